"""Starting the endpoint: Ray, Serve, the static application and the variants; and stopping what was started."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier_sdk.errors import ClusterError, SpecError
from sqlalchemy import select

from espalier_serving.applications import PREFIX, STATIC, VariantSpec, static_target, variant_target
from espalier_serving.database import Database
from espalier_serving.endpoints import begin_loading
from espalier_serving.joining import check_serve, serve_runs
from espalier_serving.proxying import CALLBACK, CALLBACK_VARIABLE
from espalier_serving.tables import Endpoint, Variant

ACTOR = "serve"  # the program, in the audit log
_STEP_SECONDS = 0.1
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class Place:
    """Where an endpoint runs, and what of it was started here."""

    host: str
    port: int
    started_ray: bool = False
    started_serve: bool = False
    may_delete: bool = False  # not before it is known that no other program's applications run there
    seconds: dict[str, float] = field(default_factory=dict)  # how long each step of the start took

    @property
    def url(self) -> str:
        """Returns the address that clients on this machine use."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"

    @contextlib.contextmanager
    def timed(self, step: str) -> Any:
        """Notes how long a step takes."""
        begun = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 2)


def check_port(port: int) -> None:
    """Raises SpecError unless a client could be told this port; 0, any port that is free, could not be."""
    if not 1 <= port <= 65_535:
        raise SpecError("there is no such port", field="--port", given=port, accepted="1 to 65535; 8000 is usual")


def check_free(host: str, port: int) -> None:
    """Raises ClusterError unless a server could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except OSError as error:
        raise ClusterError(
            f"nothing can listen on {host}:{port}: {(error.strerror or str(error)).lower()}",
            code="port",
            field="--port",
            given=port,
            remedy="stop what uses the port, or name another: --port",
        ) from error


@contextlib.contextmanager
def only_server_of(database: Database) -> Iterator[None]:
    """Holds a SQLite database for one program; raises ClusterError while another one serves it.

    Two gateways on one file would write against each other. The lock ends with the process, however that ends.
    """
    import fcntl

    path = database.engine.url.database if database.single_writer else None
    if path is None or path == ":memory:":
        yield
        return
    with Path(f"{path}.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClusterError(
                "another program serves this database",
                code="database_in_use",
                field="--database",
                given=path,
                remedy="stop it first; several gateways need Postgres",
            ) from error
        yield


def start_ray(place: Place) -> None:
    """Joins the Ray at RAY_ADDRESS, or starts one on this machine."""
    from espalier_runtime.ray_session import ENVIRONMENT, NAMESPACE, NEW_RAY, Session

    for name, value in {**ENVIRONMENT, CALLBACK_VARIABLE: CALLBACK}.items():
        os.environ.setdefault(name, value)
    address = os.environ.get("RAY_ADDRESS")
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # A token of its own: other users of this machine cannot submit work to it.
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    import ray

    if not ray.is_initialized():
        options: dict[str, Any] = {"address": address} if address else {"address": NEW_RAY, "include_dashboard": False}
        # Where this cannot join, the session's own try says why.
        with contextlib.suppress(ConnectionError, RuntimeError, ValueError):
            ray.init(namespace=NAMESPACE, logging_level="ERROR", log_to_driver=False, **options)
            place.started_ray = not address
    Session().start()


def start_applications(place: Place, database: Database, *, url: str, store: str, gateways: int) -> None:
    """Starts Serve where there is none, then all applications at once; returns before they run."""
    from ray import serve

    if database.single_writer and gateways > 1:
        raise ClusterError("SQLite allows one gateway", field="--gateways", given=gateways, remedy="use Postgres")
    with place.timed("serve"):
        # Its sentences about what it starts are for developers of Serve.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        starts_serve = not serve_runs()
        if starts_serve:
            check_free(place.host, place.port)
        else:
            check_serve(database, host=place.host, port=place.port)
        place.started_serve, place.may_delete = starts_serve, True
        serve.start(
            proxy_location="HeadOnly" if place.started_ray else "EveryNode",
            http_options={"host": place.host, "port": place.port},
            controller_options=None
            if place.started_ray
            else {"runtime_env": {"env_vars": {CALLBACK_VARIABLE: CALLBACK}}},
        )
    with place.timed("deploy"):
        with database.writing() as session:
            begin_loading(session, actor=ACTOR)
        serve.run_many(
            [static_target(database=url, store=store, gateways=gateways), *_variants(database, store)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )


def wait_until_ready(place: Place, database: Database, *, seconds: float, stopping: Callable[[], bool]) -> bool:
    """Waits until the gateway says that all champions that open answer; False when it was told to stop meanwhile.

    Raises ClusterError when no champion of any endpoint opens, with a reason, or when the time is over.
    """
    import httpx

    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=place.url, timeout=2.0, trust_env=False) as client:
        while not stopping():
            with contextlib.suppress(httpx.HTTPError):
                if client.get("/health/ready").status_code == 200:
                    return True
            _raise_when_no_champion_opens(database)
            _raise_for_failed_gateway()
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the endpoint is not ready after {seconds:g} s: {', '.join(_unready(database)) or 'no answer'}",
                    code="not_ready",
                    remedy="a variant that is loading may wait for CPUs that others hold",
                )
            time.sleep(_STEP_SECONDS)
    return False


def stop(place: Place) -> None:
    """Stops what was started here, and leaves the rest of a joined cluster alone."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return
    with contextlib.suppress(Exception):  # whatever is broken, the processes must still end
        if place.started_ray:
            pass  # everything ends with Ray
        elif place.started_serve:
            serve.shutdown()
        elif place.may_delete:
            _delete_applications()
    ray.shutdown()


def _delete_applications() -> None:
    from ray import serve

    names = [name for name in serve.status().applications if name == STATIC or name.startswith(PREFIX)]
    for name in sorted(names):  # the static one first, or Control would start the variants again
        serve.delete(name)


def _variants(database: Database, store: str) -> Sequence[Any]:
    with database.reading() as session:
        rows = session.scalars(select(Variant).where(Variant.state.not_in(("failed", "retired"))))
        return [variant_target(VariantSpec.of(row), store) for row in rows]


def _raise_when_no_champion_opens(database: Database) -> None:
    query = select(Variant).join(Endpoint, Endpoint.champion == Variant.id).order_by(Variant.endpoint)
    with database.reading() as session:
        champions = session.scalars(query).all()
    if champions and all(row.state == "failed" for row in champions):
        row = champions[0]
        raise ClusterError(
            f"the champion {row.endpoint}/{row.name} cannot be served: {row.error}",
            code="champion_failed",
            given=row.model_ref,
            remedy="see why the model does not open (espalier store verify, espalier plugins list), then serve again; "
            "or propose another model, which becomes the champion",
        )


def _raise_for_failed_gateway() -> None:
    from ray import serve

    app = serve.status().applications.get(STATIC)
    if app is not None and app.status == "DEPLOY_FAILED":
        lines = [line for one in app.deployments.values() for line in one.message.splitlines() if line.strip()]
        raise ClusterError(f"the gateway does not start: {lines[-1].strip() if lines else app.message}", code="gateway")


def _unready(database: Database) -> list[str]:
    with database.reading() as session:
        rows = session.scalars(select(Variant).where(Variant.state.in_(("proposed", "loading"))))
        return [f"{row.endpoint}/{row.name} is {row.state}" for row in rows]
