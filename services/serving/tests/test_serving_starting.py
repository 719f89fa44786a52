"""Starting and stopping on a Ray: who is refused ends nothing of others."""

from __future__ import annotations

import pytest
import ray
from espalier_sdk.errors import ClusterError
from espalier_serving import starting
from espalier_serving.database import Database
from espalier_serving.starting import Place, start_applications, stop


def test_who_is_refused_deletes_no_application(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(database: Database, *, host: str, port: int) -> None:
        raise ClusterError("this Ray serves another database already")

    deleted: list[str] = []
    monkeypatch.setattr(starting, "serve_runs", lambda: True)
    monkeypatch.setattr(starting, "check_serve", refuse)
    monkeypatch.setattr(starting, "_delete_applications", lambda: deleted.append("all"))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    place = Place("127.0.0.1", 8000)
    with pytest.raises(ClusterError):
        start_applications(place, database, url="", store="", gateways=1)
    stop(place)
    assert deleted == []
    place.may_delete = True
    stop(place)
    assert deleted == ["all"]
