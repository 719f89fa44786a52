"""Plugins compared between driver and workers, and what a session does before Ray is started."""

from __future__ import annotations

import builtins
import socket
import sys
import types
from typing import Any

import pytest
from espalier_runtime.plugins import Plugins
from espalier_runtime.ray_session import Session, plugin_differences, require_same_plugins
from espalier_sdk import ClusterError, PluginError, PluginUse


def _installed() -> PluginUse:
    found = Plugins().inventory()[0]
    return Plugins().use(found.group, found.name)


def test_equal_plugins_have_no_difference() -> None:
    use = _installed()
    assert plugin_differences([use]) == []
    require_same_plugins([use])


def test_other_code_under_the_same_version_is_a_difference_with_both_hashes() -> None:
    use = _installed()
    other = use.model_copy(update={"sha256": "f" * 64})
    (sentence,) = plugin_differences([use, other])
    assert use.sha256[:8] in sentence
    assert "ffffffff" in sentence
    assert use.distribution in sentence


def test_a_plugin_that_is_not_here_is_a_difference_and_the_list_comes_whole() -> None:
    use = _installed()
    wanted = [use.model_copy(update={"name": name}) for name in ("no-such-one", "nor-this")]
    with pytest.raises(PluginError, match=r"no-such-one.*nor-this") as error:
        require_same_plugins(wanted)
    assert error.value.exit_code == 3
    assert error.value.problems[0].code == "plugins_differ"


def test_a_session_that_is_not_started_imports_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        assert name.partition(".")[0] != "ray", "a session imports Ray before it is started"
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    Session(cpus=2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0"), "ray_version"),
        (ConnectionError("Could not find any running Ray instance"), "ray"),
    ],
)
def test_a_ray_that_cannot_be_joined_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def init(**options: Any) -> None:
        raise error

    fake = types.ModuleType("ray")
    fake.init, fake.is_initialized = init, lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=f"Ray at {address} cannot be used") as raised:
            Session().start()
    assert raised.value.exit_code == 5
    assert raised.value.problems[0].code == code


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_at_which_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    fake = types.ModuleType("ray")
    fake.is_initialized = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("RAY_ADDRESS", form.format(port))
    with pytest.raises(ClusterError, match="nobody listens at RAY_ADDRESS") as raised:
        Session().start()
    assert (raised.value.exit_code, raised.value.problems[0].code) == (5, "unreachable")
