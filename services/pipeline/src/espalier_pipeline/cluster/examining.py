"""`doctor -n NAMESPACE`: looks at a namespace as a user of it may, each finding with its remedy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from espalier_runtime.plugins import Plugins
from espalier_sdk import PluginUse
from espalier_sdk.errors import ClusterError, EspalierError

from espalier_pipeline.cluster.access import OPERATOR, Cluster, Installation, asking, plain, status_of
from espalier_pipeline.cluster.segments import CPU_POOL
from espalier_pipeline.doctor import finding

_LEAST = (1, 30)  # of Kubernetes; the chart asks for the same
_NEEDED = {  # kinds of KubeRay, and the newest field of each that is used: an older operator drops it without a word
    "RayCluster": "authOptions",
    "RayJob": "preRunningDeadlineSeconds",
    "RayService": "rayClusterDeletionDelaySeconds",
}
_DEFINITIONS = "/openapi/v3/apis/ray.io/v1"
_RIGHTS = (  # group, resource, verb: what `submit`, `runs`, `logs` and `stop` do
    ("batch", "jobs", "create"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "delete"),
    ("", "configmaps", "list"),
    ("", "pods", "list"),
    ("", "pods/log", "get"),
    ("", "pods/exec", "get"),
    ("", "events", "list"),
)
_UNITS = {
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
}
_INVENTORY = (
    "import json; from espalier_runtime.plugins import Plugins; p = Plugins(); "
    "print(json.dumps([p.use(f.group, f.name).model_dump(mode='json') for f in p.inventory()]))"
)


def examine(namespace: str, *, context: str | None = None) -> list[dict[str, Any]]:
    """Returns findings about a namespace: name, ok, found, remedy; ClusterError where the cluster does not answer."""
    cluster = Cluster.of_user(namespace, context=context)
    found = [_version(), *_kuberay(), *_rights(namespace)]
    try:
        installation = Installation.find(cluster)
    except ClusterError as error:
        problem = error.problems[0]
        return [*found, finding("installation", False, problem.message, problem.remedy or "")]
    found.append(_release(installation))
    for look in (_storage, _security, _quota, _endpoint, _plugins):
        found += _looked(look, cluster, installation)
    return found


def _looked(
    look: Callable[[Cluster, Installation], Iterator[dict[str, Any]]], cluster: Cluster, installation: Installation
) -> Iterator[dict[str, Any]]:
    """Yields what a look finds; what this user may not see is said, and is no fault."""
    try:
        yield from look(cluster, installation)
    except ClusterError as error:
        if status_of(error) != 403:
            raise
        yield finding(look.__name__.strip("_"), True, "not looked at: this user may not see it")


def _version() -> dict[str, Any]:
    from kubernetes import client

    with asking("version"):
        told = client.VersionApi().get_code()
    release = (int(told.major), int("".join(one for one in told.minor if one.isdigit())))
    remedy = f"take Kubernetes {_LEAST[0]}.{_LEAST[1]} or newer"
    return finding("kubernetes", release >= _LEAST, f"{told.major}.{told.minor}", remedy)


def _kuberay() -> Iterator[dict[str, Any]]:
    from kubernetes import client

    try:
        with asking("ray.io/v1"):
            api = client.ApiClient()
            answered = api.call_api(*api.param_serialize("GET", _DEFINITIONS, auth_settings=["BearerToken"]))
            answered.read()
            told: Any = api.response_deserialize(answered, {"200": "object"}).data
        schemas = told["components"]["schemas"]
    except ClusterError as error:
        if status_of(error) != 404:
            raise
        schemas = {}
    missing = lacking(schemas)
    yield finding("kuberay", not missing, f"no {', '.join(missing)}" if missing else "ray.io/v1", OPERATOR)


def lacking(schemas: Mapping[str, Any]) -> list[str]:
    """Returns what of KubeRay is needed and not among the API server's definitions: kinds, and fields of their spec."""
    missing = []
    for kind, field in _NEEDED.items():
        schema = schemas.get(f"io.ray.v1.{kind}")
        if schema is None:
            missing.append(kind)
        elif field not in schema["properties"]["spec"].get("properties", {}):
            missing.append(f"{kind}.spec.{field} (an older KubeRay)")
    return missing


def _rights(namespace: str) -> Iterator[dict[str, Any]]:
    from kubernetes import client

    denied = []
    for group, resource, verb in _RIGHTS:
        name, _, part = resource.partition("/")
        wanted = client.V1ResourceAttributes(
            namespace=namespace, group=group, resource=name, subresource=part or None, verb=verb
        )
        review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=wanted))
        with asking("rights"):
            answered = client.AuthorizationV1Api().create_self_subject_access_review(review)
        if not answered.status.allowed:
            denied.append(f"{verb} {resource}")
    told = f"not allowed to {', '.join(denied)}" if denied else "all that submit needs"
    yield finding("rights", not denied, told, "the chart's values `submitters` bind its Role to a user or group")


def _release(installation: Installation) -> dict[str, Any]:
    here, there = version("espalier-pipeline"), str(installation.settings["version"])
    told = f"{installation.settings['release']} {there}, pools {', '.join(sorted(installation.pools))}"
    return finding("installation", here == there, told, f"this command is {here}: upgrade the older of the two")


def _storage(cluster: Cluster, installation: Installation) -> Iterator[dict[str, Any]]:
    name = installation.settings["release"]
    with asking("claims"):
        claims = plain(cluster.core.list_namespaced_persistent_volume_claim(cluster.namespace))["items"]
    for claim in claims:
        labels = claim["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/instance") == name:
            phase = claim["status"]["phase"]
            remedy = "name a storage class that exists: storage.claim.storageClassName, or make one the default"
            yield finding(f"claim {claim['metadata']['name']}", phase == "Bound", phase, remedy)


def _security(cluster: Cluster, installation: Installation) -> Iterator[dict[str, Any]]:
    with asking("namespace"):
        labels = plain(cluster.core.read_namespace(cluster.namespace))["metadata"].get("labels", {})
    level = labels.get("pod-security.kubernetes.io/enforce")
    yield finding("pod security", True, f"{level or 'nothing'} enforced; every pod passes restricted")


def _quota(cluster: Cluster, installation: Installation) -> Iterator[dict[str, Any]]:
    with asking("quotas"):
        quotas = plain(cluster.core.list_namespaced_resource_quota(cluster.namespace))["items"]
    wanted = requests_of(installation.driver["spec"])
    head = installation.pools[CPU_POOL]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    for resource, amount in requests_of(head).items():
        wanted[resource] = wanted.get(resource, 0.0) + amount
    for quota in quotas:
        hard, used = quota["status"].get("hard", {}), quota["status"].get("used", {})
        for resource, amount in sorted(wanted.items()):
            key = next((one for one in (f"requests.{resource}", resource) if one in hard), None)
            if key is None:
                continue
            free = amount_of(hard[key]) - amount_of(used.get(key, "0"))
            told = f"{free:g} {resource} free, a submission wants {amount:g}"
            remedy = f"raise {key} of quota {quota['metadata']['name']}, or lower pools.cpu.resources"
            yield finding(f"quota {quota['metadata']['name']}", free >= amount, told, remedy)


def _endpoint(cluster: Cluster, installation: Installation) -> Iterator[dict[str, Any]]:
    with asking("RayServices"):
        found = cluster.custom.list_namespaced_custom_object("ray.io", "v1", cluster.namespace, "rayservices")["items"]
    for one in found:
        if one["metadata"]["name"] == installation.settings["fullname"]:
            count = (one.get("status") or {}).get("numServeEndpoints", 0)
            remedy = f"kubectl -n {cluster.namespace} get pods, and the log of the head"
            yield finding("endpoint", count > 0, f"{count} pods answer", remedy)


def _plugins(cluster: Cluster, installation: Installation) -> Iterator[dict[str, Any]]:
    """Yields how the plugins here differ from those of the image that trains, asked in a pod of the endpoint."""
    from espalier_pipeline.cluster.submitting import run_in_pod

    selector = f"app.kubernetes.io/instance={installation.settings['release']},ray.io/node-type=head"
    with asking("pods"):
        pods = plain(cluster.core.list_namespaced_pod(cluster.namespace, label_selector=selector))["items"]
    running = [one["metadata"]["name"] for one in pods if one["status"]["phase"] == "Running"]
    if not running:
        yield finding("plugins", True, "not compared: no pod of the endpoint runs")
        return
    container = next(one for one in pods if one["metadata"]["name"] == running[0])["spec"]["containers"][0]["name"]
    answered = run_in_pod(cluster, running[0], ["python", "-c", _INVENTORY], container=container)
    there = {(use["group"], use["name"]): use for use in _uses(answered)}
    different = sorted(differences(there))
    remedy = "build the image from what is installed here (infra/images), or install here what is in the image"
    told = "; ".join(different[:5]) if different else f"{len(there)}, the same as here"
    yield finding("plugins", not different, told, remedy)


def differences(there: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Yields where plugins that are installed here are absent or other code there."""
    plugins = Plugins()
    for one in plugins.inventory():
        with contextlib.suppress(EspalierError):  # a broken one is this machine's own finding
            here: PluginUse = plugins.use(one.group, one.name)
            other = there.get((one.group, one.name))
            if other is None:
                yield f"{one.name} ({one.distribution}) is not in the image"
            elif other["sha256"] != here.sha256:
                yield f"{one.name}: {here.version} ({here.sha256[:8]}) here, {other['sha256'][:8]} in the image"


def requests_of(pod: Mapping[str, Any]) -> dict[str, float]:
    """Returns what the containers of a pod request, summed, in units of the resource."""
    summed: dict[str, float] = {}
    for container in pod["containers"]:
        for resource, text in (container.get("resources") or {}).get("requests", {}).items():
            summed[resource] = summed.get(resource, 0.0) + amount_of(str(text))
    return summed


def amount_of(text: str) -> float:
    """Returns a quantity of Kubernetes as a number: `500m` is 0.5, `2Gi` is 2 * 2**30."""
    unit = next(one for one in sorted(_UNITS, key=len, reverse=True) if str(text).endswith(one))
    return float(str(text)[: len(str(text)) - len(unit)]) * _UNITS[unit]


def _uses(answered: str) -> list[dict[str, Any]]:
    lines = [line for line in answered.splitlines() if line.startswith("[")]
    if not lines:
        raise ClusterError(f"the image did not tell its plugins: {answered.strip()[-200:]}", code="inventory")
    return list(json.loads(lines[-1]))
