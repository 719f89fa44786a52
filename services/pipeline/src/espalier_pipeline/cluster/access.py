"""One namespace of a cluster through the official client, and what is installed there.

Knows nothing about jobs; turns what the API answers into errors that say what to do.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from espalier_sdk.errors import ClusterError

POOLS_LABEL = "espalier.dev/pools=true"
SETTINGS_FOLDER = Path("/etc/espalier")  # where the driver's pod has the same ConfigMap
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
OPERATOR = "infra/prerequisites/install.sh installs the pinned operator with its CRDs"
API_CODES = ("kubernetes", "unreachable")  # of errors that the API server, or its absence, is the cause of
_REMEDIES = {
    401: "the token of this kubeconfig has expired, or is another cluster's: log in again",
    403: "ask for the chart's Role: values `submitters` bind it to a user or group",
    404: "see that the namespace is right: -n NAMESPACE",
    422: "see that chart and command are of one version",
}


@dataclass(frozen=True)
class Cluster:
    """A namespace, and the parts of the API that are used in it."""

    namespace: str
    core: Any
    batch: Any
    custom: Any

    @classmethod
    def of_user(cls, namespace: str, *, context: str | None = None) -> Self:
        """Opens a namespace with the user's kubeconfig; ClusterError where there is none that can be read."""
        from kubernetes import config

        try:
            config.load_kube_config(context=context)
        except (config.ConfigException, OSError, TypeError, ValueError) as error:
            raise ClusterError(
                f"there is no kubeconfig that can be used: {_one_line(error)}",
                code="kubeconfig",
                remedy="set KUBECONFIG to the file that kubectl works with",
            ) from error
        return cls._open(namespace)

    @classmethod
    def of_pod(cls) -> Self:
        """Opens the namespace that this pod runs in, as its service account."""
        from kubernetes import config

        config.load_incluster_config()
        return cls._open(_NAMESPACE_FILE.read_text(encoding="utf-8").strip())

    @classmethod
    def _open(cls, namespace: str) -> Self:
        from kubernetes import client

        return cls(namespace, client.CoreV1Api(), client.BatchV1Api(), client.CustomObjectsApi())


@dataclass(frozen=True)
class Installation:
    """What the chart tells those who submit: the driver's pod, the pools, and how long things may take."""

    driver: Mapping[str, Any]
    pools: Mapping[str, Any]
    settings: Mapping[str, Any]

    @classmethod
    def find(cls, cluster: Cluster, *, release: str | None = None) -> Self:
        """Returns the installation of a namespace; ClusterError where there is none, or several and none is named."""
        with asking(cluster.namespace):
            maps = cluster.core.list_namespaced_config_map(cluster.namespace, label_selector=POOLS_LABEL).items
        found = {json.loads(one.data["settings.json"])["release"]: one.data for one in maps}
        if release is not None:
            found = {name: data for name, data in found.items() if name == release}
        if not found:
            raise ClusterError(
                f"no Espalier is installed in namespace {cluster.namespace}",
                code="not_installed",
                given=release or cluster.namespace,
                remedy=f"helm install espalier charts/espalier -n {cluster.namespace}, or name another namespace: -n",
            )
        if len(found) > 1:
            raise ClusterError(
                f"several releases are installed in namespace {cluster.namespace}",
                code="several_installed",
                accepted=", ".join(sorted(found)),
                remedy="name one: --release",
            )
        return cls.read(next(iter(found.values())))

    @classmethod
    def mounted(cls) -> Self:
        """Returns the installation that this pod belongs to."""
        names = ("driver.json", "pools.json", "settings.json")
        return cls.read({name: (SETTINGS_FOLDER / name).read_text(encoding="utf-8") for name in names})

    @classmethod
    def read(cls, data: Mapping[str, str]) -> Self:
        """Reads the ConfigMap's data."""
        driver, pools, settings = (json.loads(data[f"{name}.json"]) for name in ("driver", "pools", "settings"))
        return cls(driver, pools, settings)


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turns what the API server answers, or that it does not, into one ClusterError."""
    import urllib3
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        raise ClusterError(
            f"the cluster refused ({error.status}) at {what}: {_message(error)}",
            code="kubernetes",
            given=what,
            retryable=(error.status or 0) >= 500 or error.status == 429,
            remedy=_REMEDIES.get(error.status or 0),
        ) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterError(
            f"the cluster cannot be reached: {_one_line(error)}",
            code="unreachable",
            retryable=True,
            remedy="see that `kubectl get pods` answers; what runs there goes on",
        ) from error


def status_of(error: ClusterError) -> int | None:
    """Returns the HTTP status that the API server refused with; None where it did not answer."""
    status = getattr(error.__cause__, "status", None)
    return int(status) if status is not None else None


def events_of(cluster: Cluster, uid: str) -> list[dict[str, Any]]:
    """Returns the events about one object, the newest first; an earlier one of the same name has its own."""
    with asking("events"):
        found = plain(
            cluster.core.list_namespaced_event(cluster.namespace, field_selector=f"involvedObject.uid={uid}")
        )["items"]
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")), reverse=True)


def plain(found: Any) -> Any:
    """Returns an object of the client as the API writes it: dicts with its own field names."""
    from kubernetes import client

    return client.ApiClient().sanitize_for_serialization(found)


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "no reason given")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
