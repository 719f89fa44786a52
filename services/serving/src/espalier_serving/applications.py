"""The Serve applications of an endpoint: the static one, and one for each variant, made from its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from espalier_serving.tables import Variant
from espalier_serving.variant_config import VariantConfig

STATIC = "espalier"
CONTROL = "Control"
PREFIX = "variant-"
DRAIN_SECONDS = 330.0  # longer than the longest request (300 s), shorter than a pod's termination (360 s)
_DRAIN_STEP_SECONDS = 0.5
_START_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """What an application of a variant is made from."""

    id: str
    model: str
    engine: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def of(cls, row: Variant) -> VariantSpec:
        """Reads the row of a variant."""
        return cls(row.id, row.model_ref, row.engine, row.config)


@dataclass(frozen=True, slots=True)
class Status:
    """How an application stands: `starting`, `running`, `failed` (with the reason) or `stopping`."""

    state: str
    reason: str = ""


class Applications(Protocol):
    """The applications of variants, by variant id."""

    def statuses(self) -> dict[str, Status]:
        """Returns how each application stands."""
        ...

    def start(self, variants: Sequence[VariantSpec]) -> None:
        """Starts applications and returns before they run."""
        ...

    def delete(self, variant: str) -> None:
        """Lets an application drain and end, without waiting for it."""
        ...


def application_name(variant: str) -> str:
    """Returns the name of a variant's application."""
    return PREFIX + variant


class ServeApplications:
    """The applications on Ray Serve."""

    def __init__(self, store: str) -> None:
        self._store = store

    def statuses(self) -> dict[str, Status]:
        """Returns how each application of a variant stands."""
        from ray import serve

        found = serve.status().applications.items()
        return {name.removeprefix(PREFIX): _status(app) for name, app in found if name.startswith(PREFIX)}

    def start(self, variants: Sequence[VariantSpec]) -> None:
        """Starts applications and returns before they run."""
        from ray import serve

        serve.run_many([variant_target(one, self._store) for one in variants], wait_for_applications_running=False)

    def delete(self, variant: str) -> None:
        """Lets an application drain and end, without waiting for it."""
        from ray import serve

        serve.delete(application_name(variant), _blocking=False)


def variant_target(variant: VariantSpec, store: str) -> Any:
    """Returns the application of a variant, as `serve.run_many` takes it: no route, its own replicas."""
    from ray import serve

    from espalier_serving.variant import VariantReplica

    options = VariantConfig.read(variant.config)
    deployment = serve.deployment(
        VariantReplica,
        name="Variant",
        num_replicas=options.num_replicas,
        max_ongoing_requests=options.max_ongoing,
        ray_actor_options={"num_cpus": options.num_cpus, "num_gpus": options.num_gpus},
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=_DRAIN_STEP_SECONDS,
        max_constructor_retry_count=_START_ATTEMPTS,
    )
    bound = deployment.bind(engine=variant.engine, config=variant.config, model=variant.model, store=store)
    return serve.RunTarget(bound, name=application_name(variant.id), route_prefix=None)


def static_application(*, database: str, store: str, gateways: int) -> Any:
    """Returns the application that never changes, bound: the gateways and the one Control."""
    from ray import serve

    from espalier_serving.control import Control
    from espalier_serving.gateway import Gateway

    control = serve.deployment(
        Control,
        name=CONTROL,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=5.0,
        graceful_shutdown_wait_loop_s=_DRAIN_STEP_SECONDS,
    )
    gateway = serve.deployment(
        Gateway,
        name="Gateway",
        num_replicas=gateways,
        # Above what the variants' own caps let in: the gateway's errors have the one shape, Serve's do not.
        max_ongoing_requests=5_000,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=_DRAIN_STEP_SECONDS,
    )
    return gateway.bind(database, control.bind(database, store))


def static_target(*, database: str, store: str, gateways: int = 1) -> Any:
    """Returns the application that never changes, as `serve.run_many` takes it."""
    from ray import serve

    bound = static_application(database=database, store=store, gateways=gateways)
    return serve.RunTarget(bound, name=STATIC, route_prefix="/")


def _status(app: Any) -> Status:
    state = str(getattr(app.status, "value", app.status))
    if state == "RUNNING":
        return Status("running")
    if state == "DEPLOY_FAILED":
        return Status("failed", _reason(app))
    if state == "DELETING":
        return Status("stopping")
    return Status("starting")


def _reason(app: Any) -> str:
    messages = [one.message for one in app.deployments.values() if one.message] or [app.message]
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "the application could not be started"
