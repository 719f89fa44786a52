"""What a user sends into a driver's pod: taken whole, or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from espalier_pipeline.cluster.receive import main
from espalier_pipeline.cluster.segments import bundle_path
from espalier_runtime import shelf
from espalier_runtime.store import Store

SENT = b"all that a spec names" * 9999
HASH = hashlib.sha256(SENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ESPALIER_STORE", str(tmp_path / "store"))
    return Store.open(str(tmp_path / "store"))


def sends(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_what_is_sent_is_in_the_store_and_said_to_be(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("one", HASH) == 0
    assert capsys.readouterr().out == "not there\n"
    sends(monkeypatch, SENT + b"and what is not ours")
    assert main("one", HASH, len(SENT)) == 0
    assert main("one", HASH) == 0
    assert capsys.readouterr().out == "received\nreceived\n"
    assert shelf.get(store, bundle_path("one")) == SENT


@pytest.mark.parametrize("content", [SENT[:-1], SENT[:-1] + b"?"])
def test_what_is_cut_or_changed_on_the_way_is_not_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    sends(monkeypatch, content)
    assert main("one", HASH, len(SENT)) == 4
    assert "send" in capsys.readouterr().err
    assert shelf.get(store, bundle_path("one")) is None
