"""`doctor`: looks at this machine, each finding with its remedy. Imports neither torch nor Ray."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from espalier_runtime.plugins import ALLOW_VARIABLE, Plugins
from espalier_runtime.store import Store
from espalier_sdk.errors import EspalierError
from espalier_sdk.groups import GROUPS

from espalier_pipeline.authoring import check_plugins
from espalier_pipeline.counting import counted
from espalier_pipeline.places import Places

_SERVICES = ("ingestion", "preprocessing", "training", "evaluation", "serving")
_MEMORY_BYTES, _DISK_BYTES, _SHM_BYTES = 4 * 2**30, 5 * 2**30, 256 * 2**20


def examine(home: Path | None = None) -> list[dict[str, Any]]:
    """Returns findings: name, ok, found, remedy."""
    places = Places.of(home=home)
    return [
        _python(),
        _packages(),
        _services(),
        *_plugins(),
        _memory(),
        _disk(places.home),
        _shared_memory(),
        _store(places.store),
        _ray_address(),
        _port(8000),
    ]


def finding(name: str, ok: bool, found: str, remedy: str = "") -> dict[str, Any]:
    """Returns one finding; a remedy is for what is not ok."""
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy}


def _python() -> dict[str, Any]:
    release = tuple(int(part) for part in platform.python_version_tuple()[:2])
    return finding("python", (3, 11) <= release < (3, 14), platform.python_version(), "use Python 3.11, 3.12 or 3.13")


def _packages() -> dict[str, Any]:
    found, missing = [], []
    for name in ("ray", "torch", "transformers", "peft", "pyarrow", "mlflow"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    remedy = f"install {', '.join(missing)}, or run their stages on a cluster"
    return finding("packages", not missing, ", ".join(found), remedy)


def _services() -> dict[str, Any]:
    missing = []
    for name in _SERVICES:
        try:
            version(f"espalier-{name}")
        except PackageNotFoundError:
            missing.append(f"espalier-{name}")
    return finding("services", not missing, f"{len(_SERVICES) - len(missing)} of 5", f"install {', '.join(missing)}")


def _plugins() -> list[dict[str, Any]]:
    count = len(Plugins().inventory())
    broken = [one for one in check_plugins() if one["problem"]]
    allow = os.environ.get(ALLOW_VARIABLE)
    text = f"{count} in {len(GROUPS)} groups{f'; allowed: {allow}' if allow is not None else ''}"
    findings = [finding("plugins", count > 0, text, "install espalier-platform[all]")]
    findings += [finding("plugin", False, f"{one['name']}: {one['problem']}", "see it") for one in broken]
    return findings


def _memory() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    text = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free, {os.cpu_count()} CPUs"
    return finding("memory", memory.available >= _MEMORY_BYTES, text, "the demo needs 4 GiB: end other programs")


def _disk(home: Path) -> dict[str, Any]:
    place = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    return finding("disk", free >= _DISK_BYTES, f"{free / 2**30:.1f} GiB free at {place}", "free 5 GiB, or use --home")


def _shared_memory() -> dict[str, Any]:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return finding("/dev/shm", True, "not used here")
    free = shutil.disk_usage(folder).free
    remedy = "Ray falls back to slow files: give the container more with --shm-size"
    return finding("/dev/shm", free >= _SHM_BYTES, f"{free / 2**30:.1f} GiB free", remedy)


def _store(uri: str) -> dict[str, Any]:
    if "://" not in uri and not Path(uri).exists():
        return finding("store", True, f"{uri}: made by the first run")
    try:
        count = sum(1 for _ in Store.open(uri).refs())
    except EspalierError as error:
        return finding("store", False, f"{uri}: {error.problems[0].message}", error.problems[0].remedy or "")
    return finding("store", True, f"{uri}: {counted(count, 'artifact')}")


def _ray_address() -> dict[str, Any]:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return finding("ray", True, "RAY_ADDRESS is not set: each run starts its own")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=3):
            return finding("ray", True, f"{address} accepts connections")
    except (OSError, ValueError) as error:
        return finding("ray", False, f"{address}: {error}", "unset RAY_ADDRESS, or start Ray there")


def _port(port: int) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return finding("port", False, f"{port}: {error.strerror}", "`espalier serve --port N` takes another")
    return finding("port", True, f"{port} is free")
