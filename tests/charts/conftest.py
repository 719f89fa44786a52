"""Renders the chart with the helm that is there: `HELM`, else helm on PATH; without one these tests are skipped."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

CHART = Path(__file__).resolve().parents[2] / "charts" / "espalier"
HELM = shlex.split(os.environ.get("HELM", "")) or ([found] if (found := shutil.which("helm")) else [])
KNOWN = ("ray.io/v1",)
KUBERNETES = "1.35.4"


@dataclass(frozen=True, slots=True)
class Objects:
    """What a rendering made."""

    all: list[dict[str, Any]]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Returns all objects of a kind by name."""
        return {one["metadata"]["name"]: one for one in self.all if one["kind"] == kind}

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """Returns an object; a KeyError names those that there are."""
        found = self.of(kind)
        if name not in found:
            raise KeyError(f"no {kind} {name} among {sorted(found)}")
        return found[name]

    def pools(self) -> dict[str, Any]:
        """Returns the pools as the driver reads them."""
        return json.loads(self.one("ConfigMap", "espalier-pools")["data"]["pools.json"])

    def driver(self) -> dict[str, Any]:
        """Returns the driver's pod template as `espalier submit` reads it."""
        return json.loads(self.one("ConfigMap", "espalier-pools")["data"]["driver.json"])

    def pod_templates(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields every pod that the chart, KubeRay or the driver makes, by a name for messages."""
        for one in self.all:
            name = f"{one['kind']}/{one['metadata']['name']}"
            spec = one.get("spec") or {}
            if one["kind"] == "Pod":
                yield name, one
            elif one["kind"] == "CronJob":
                yield name, spec["jobTemplate"]["spec"]["template"]
            elif one["kind"] in ("Deployment", "StatefulSet"):
                yield name, spec["template"]
            elif one["kind"] == "RayService":
                yield from _of_cluster(name, spec["rayClusterConfig"])
        for name, pool in self.pools().items():
            yield from _of_cluster(f"pool {name}", pool["rayClusterSpec"])
        yield "driver", self.driver()


class Chart:
    """The chart, rendered as often as there are different values."""

    def __call__(self, values: dict[str, Any] | None = None, *, ci: str | None = None, **options: Any) -> Objects:
        """Renders with values over those of `ci/<ci>-values.yaml`; fails where helm does."""
        code, out, err = _template(json.dumps(values or {}), ci, **options)
        assert code == 0, err
        return Objects([one for one in YAML(typ="safe", pure=True).load_all(out) if one])

    def refusal(self, values: dict[str, Any] | None = None, *, ci: str | None = None, **options: Any) -> str:
        """Returns the sentence with which a rendering is refused."""
        code, out, err = _template(json.dumps(values or {}), ci, **options)
        assert code != 0, f"accepted: {out[:500]}"
        return err

    def notes(self, folder: Path, values: dict[str, Any] | None = None) -> str:
        """Returns what `helm install` prints; in a copy of the chart, since `helm template` leaves it out."""
        copy = folder / "espalier"
        shutil.copytree(CHART, copy)
        (copy / "notes.txt").write_bytes((copy / "templates" / "NOTES.txt").read_bytes())
        text = 'kind: Notes\ntext: {{ tpl (.Files.Get "notes.txt") . | quote }}\n'
        (copy / "templates" / "notes.yaml").write_text(text, encoding="utf-8")
        code, out, err = _run(json.dumps(values or {}), None, "espalier", KNOWN, copy)
        assert code == 0, err
        objects = YAML(typ="safe", pure=True).load_all(out)
        return str(next(one["text"] for one in objects if one and one["kind"] == "Notes"))

    def upgraded(self, kubeconfig: Path) -> Objects:
        """Renders beside a cluster, which `lookup` asks for what an earlier installation made."""
        more = ("--dry-run=server", "--disable-openapi-validation", "--kubeconfig", str(kubeconfig))
        code, out, err = _run("{}", None, "espalier", KNOWN, CHART, *more)
        assert code == 0, err
        return Objects([one for one in YAML(typ="safe", pure=True).load_all(out) if one])

    def lint(self, ci: str | None) -> str:
        """Returns what `helm lint --strict` says."""
        more = ["--values", str(CHART / "ci" / f"{ci}-values.yaml")] if ci else []
        command = [*HELM, "lint", "--strict", str(CHART), "--kube-version", KUBERNETES, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr


@functools.cache
def _template(
    values: str, ci: str | None, *, name: str = "espalier", known: tuple[str, ...] = KNOWN
) -> tuple[int, str, str]:
    return _run(values, ci, name, known, CHART)


def _run(
    values: str, ci: str | None, name: str, known: tuple[str, ...], folder: Path, *more: str
) -> tuple[int, str, str]:
    command = [*HELM, "template", name, str(folder), "--namespace", "models", "--kube-version", KUBERNETES, *more]
    command += [word for one in known for word in ("--api-versions", one)]
    if ci:
        command += ["--values", str(CHART / "ci" / f"{ci}-values.yaml")]
    done = subprocess.run([*command, "--values", "-"], input=values, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _of_cluster(name: str, cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield f"{name} head", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", ()):
        yield f"{name} {group['groupName']}", group["template"]


@pytest.fixture(scope="session")
def chart() -> Chart:
    """Returns the chart, or skips."""
    if not HELM:
        pytest.skip("no helm: put helm 3 or 4 on PATH, or its command into HELM")
    return Chart()


def environment(template: dict[str, Any], container: int = 0) -> dict[str, Any]:
    """Returns the variables of a pod's container: the value, or what it is taken from."""
    entries = template["spec"]["containers"][container]["env"]
    assert len({one["name"] for one in entries}) == len(entries), "a name comes twice, which Helm 4 refuses"
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in entries}


@pytest.fixture(scope="session", name="environment")
def _environment() -> Any:
    return environment


def cis() -> list[str]:
    """Returns the ways of installing that `ci/` has."""
    return sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that takes `ci` once for each of them, and with the defaults."""
    if "ci" in metafunc.fixturenames:
        metafunc.parametrize("ci", [None, *cis()], ids=["defaults", *cis()])
