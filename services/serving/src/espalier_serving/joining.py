"""Joining a Ray that runs Serve already: what is there, and whether this program may take it over."""

from __future__ import annotations

from typing import Any

from espalier_sdk.errors import ClusterError

from espalier_serving.applications import CONTROL, STATIC
from espalier_serving.database import Database

_ANSWER_SECONDS = 10.0
_ADDRESSES = {"localhost": "127.0.0.1"}


def serve_runs() -> bool:
    """Returns whether the joined Ray runs Serve."""
    try:
        _controller()
    except ValueError:
        return False
    return True


def check_serve(database: Database, *, host: str, port: int) -> None:
    """Raises ClusterError unless the Serve that runs listens there, and serves no other database.

    The same database is what a program that was killed has left behind.
    """
    import ray
    from ray import serve

    options = ray.get(_controller().get_http_config.remote())
    if (_address(options.host), options.port) != (_address(host), port):
        raise ClusterError(
            f"the Serve of this Ray listens on {options.host}:{options.port} already",
            code="serve_elsewhere",
            field="--port",
            given=f"{host}:{port}",
            remedy=f"serve with --host {options.host} --port {options.port}, or on another Ray",
        )
    if STATIC in serve.status().applications and _served() != database.identity:
        raise ClusterError(
            "this Ray serves another database already",
            code="ray_in_use",
            field="--database",
            remedy="stop that program, or run `serve shutdown` where it is gone; or serve on another Ray",
        )


def _served() -> str | None:
    from ray import serve

    try:
        handle: Any = serve.get_deployment_handle(CONTROL, STATIC)
        return str(handle.identity.remote().result(timeout_s=_ANSWER_SECONDS))
    except Exception:  # it starts, ends or is broken: whose it is cannot be told, so it is left alone
        return None


def _controller() -> Any:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)


def _address(host: str | None) -> str:
    return _ADDRESSES.get(host or "", host or "")
