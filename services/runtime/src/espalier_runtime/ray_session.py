"""One Ray for a stage: joins the one at RAY_ADDRESS, or starts a local one; checks that its nodes fit.

Knows nothing about what runs on it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from espalier_sdk.artifacts import PluginUse
from espalier_sdk.errors import ClusterError, EspalierError, PluginError

NAMESPACE = "espalier"
_PROBE_SECONDS = 3.0
NEW_RAY = "local"  # without an address Ray looks for one that `ray start` left in /tmp, and waits for it if it is gone
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # Ray would rebuild the environment of an ancestor `uv run` in workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray Train asks the dashboard each second whether its controller lives; where there is none, each time in vain.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "Failed to query Ray Train Controller actor state",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

# For a Ray that is started here, beside ENVIRONMENT.
LOCAL_ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # at Ray's 15 anything else on the machine slows training down
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # waits for notices that a local machine never gets
}


class Session:
    """A stage's hold on Ray. Nothing is started before `start`, so that a cached stage needs no Ray."""

    def __init__(self, *, cpus: int | None = None, memory_bytes: int | None = None) -> None:
        self._cpus, self._memory = cpus, memory_bytes
        self._started = False

    def start(self, plugins: Sequence[PluginUse] = ()) -> None:
        """Joins or starts Ray once, then compares each node's plugins with this process's, by hash.

        Raises ClusterError where there is no Ray at the address or one of another version, PluginError where
        a node's plugins differ.
        """
        if self._started:
            return
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        address = os.environ.get("RAY_ADDRESS")
        if address and not ray.is_initialized():
            _require_listener(address)
        try:
            if ray.is_initialized():
                pass
            elif address:
                ray.init(address=address, namespace=NAMESPACE, logging_level=logging.WARNING, log_to_driver=True)
            else:
                os.environ.update({**LOCAL_ENVIRONMENT, **os.environ})
                ray.init(
                    address=NEW_RAY,
                    num_cpus=self._cpus or os.cpu_count(),
                    _memory=self._memory,
                    namespace=NAMESPACE,
                    include_dashboard=False,
                    logging_level=logging.WARNING,
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"Ray at {address or 'this machine'} cannot be used: {' '.join(str(error).split())[:400]}",
                code="ray_version" if "ersion mismatch" in str(error) else "ray",
                given=address,
                remedy="use the same Ray and Python version on both sides (`espalier doctor` shows yours)",
            ) from error
        self._started = True
        _compare_nodes(plugins)

    def cpus(self) -> int:
        """Returns the CPUs of the largest node, which is what one worker can have."""
        self.start()
        return int(max((node["Resources"].get("CPU", 0) for node in _nodes()), default=1)) or 1


def _require_listener(address: str) -> None:
    """Raises ClusterError where nobody listens: Ray itself would wait for an address that is gone, and say nothing."""
    host, sign, port = address.rpartition("://")[2].rpartition(":")
    if not sign or not port.isdigit():  # `auto` and the like, which Ray looks up
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"nobody listens at RAY_ADDRESS {address}: {error.strerror or error}",
            code="unreachable",
            given=address,
            retryable=True,
            remedy="start that Ray, correct RAY_ADDRESS, or unset it to use a local Ray",
        ) from error


def _nodes() -> list[dict[str, Any]]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return [node for node in nodes if node["Alive"]]


def plugin_differences(wanted: Sequence[PluginUse]) -> list[str]:
    """Returns where this process's plugins differ from the given ones, in sentences."""
    from espalier_runtime.plugins import Plugins

    here, found = Plugins(), []
    for use in wanted:
        try:
            mine = here.use(use.group, use.name)
        except PluginError as error:
            found.append(f"{use.name}: {error.problems[0].message}")
            continue
        if mine.sha256 != use.sha256:
            found.append(
                f"{use.name}: {mine.distribution} {mine.version} ({mine.sha256[:8]}) here, "
                f"{use.distribution} {use.version} ({use.sha256[:8]}) at the driver"
            )
    return found


def require_same_plugins(wanted: Sequence[PluginUse]) -> None:
    """Raises PluginError with the list where a worker's plugins differ from the driver's: its first act."""
    if found := plugin_differences(wanted):
        raise PluginError(
            f"this worker's plugins differ from the driver's: {'; '.join(found)}",
            code="plugins_differ",
            remedy="use one image, or one environment, for driver and workers",
        )


def _answer(check: Any) -> list[str]:
    import ray

    try:
        found: list[str] = ray.get(check)
    except ray.exceptions.RayError as error:  # a node without espalier-runtime cannot even be asked
        return [f"cannot compare its plugins: {str(error).strip().splitlines()[-1]}"]
    return found


def _compare_nodes(plugins: Sequence[PluginUse]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    others = [node for node in _nodes() if node["Resources"].get("CPU")]
    mine = ray.get_runtime_context().get_node_id()
    checks = [
        (
            node["NodeManagerAddress"],
            ray.remote(plugin_differences)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(list(plugins)),
        )
        for node in others
        if node["NodeID"] != mine
    ]
    wrong = [f"node {address}: {text}" for address, check in checks for text in _answer(check)]
    if wrong:
        raise PluginError(
            f"plugins differ between the driver and the cluster: {'; '.join(wrong)}",
            code="plugins_differ",
            remedy="use one image, or one environment, for driver and workers",
        )


def configure_ray_data() -> None:
    """Makes Ray Data keep the order of rows, and be quiet."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # An error of a step reaches the user as one line; Ray would print it with its tasks' stacks before.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises the error of the family that lies inside what Ray raises."""
    try:
        yield
    except EspalierError:
        raise
    except Exception as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, EspalierError):
            inner = getattr(inner, "cause", None) or inner.__cause__
        if inner is None:
            raise
        raise inner from None
