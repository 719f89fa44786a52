"""Plugins by entry point: find without importing, choose by name, load only what is asked for, check, hash.

Knows no plugin by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from pathlib import Path
from typing import Any

from espalier_sdk.artifacts import PluginUse
from espalier_sdk.choice import Choice
from espalier_sdk.errors import EspalierError, PluginError, Problem, SpecError
from espalier_sdk.groups import GROUPS, did_you_mean, mismatches
from pydantic import ValidationError

from espalier_runtime.secrets import with_secrets, without_secrets

ALLOW_VARIABLE = "ESPALIER_PLUGINS_ALLOW"
_LOAD_ERRORS = (Exception, SystemExit)  # importing a stranger's module may raise anything


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that is installed and has not been imported."""

    group: str
    name: str
    distribution: str
    version: str
    module: str
    attribute: str
    point: EntryPoint = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """Returns the words by which messages call it."""
        return f"{self.name} ({self.distribution} {self.version}, {self.group}: {self.module}:{self.attribute})"


class Plugins:
    """The plugins of this environment."""

    @cached_property
    def _index(self) -> dict[str, dict[str, list[Found]]]:
        index: dict[str, dict[str, list[Found]]] = {group: {} for group in GROUPS}
        for dist in distributions():
            points = [point for point in _points(dist) if point.group in index]
            if points:
                label = _label(dist)
                for point in points:
                    found = _found(label, point)
                    same = index[point.group].setdefault(point.name, [])
                    # A doubled sys.path shows one distribution twice: that is no second claim.
                    if all(_spelled(other.distribution) != _spelled(found.distribution) for other in same):
                        same.append(found)
        return index

    def inventory(self, group: str | None = None) -> list[Found]:
        """Returns what is installed, sorted, without importing any of it."""
        groups = [group] if group else list(GROUPS)
        return [found for name in groups for _, same in sorted(self._index[name].items()) for found in same]

    def find(self, group: str, name: str) -> Found:
        """Returns the one plugin of that name; PluginError where there is none, several, or it is not allowed."""
        same = self._index[group].get(name, [])
        noun = GROUPS[group].noun
        if not same:
            known = sorted(self._index[group])
            raise PluginError(
                f"there is no {noun} {name!r}",
                code="unknown_plugin",
                given=name,
                accepted=", ".join(known) or "none is installed",
                remedy=did_you_mean(name, known) or f"install the distribution that provides it in {group}",
            )
        if len(same) > 1:
            raise PluginError(
                f"{noun} {name!r} is claimed by {' and '.join(f'{one.distribution} {one.version}' for one in same)}",
                code="plugin_claimed_twice",
                given=name,
                remedy="uninstall one of them",
            )
        if not allowed(same[0].distribution):
            raise PluginError(
                f"{noun} {same[0].label} is not allowed here",
                code="plugin_not_allowed",
                given=same[0].distribution,
                accepted=os.environ[ALLOW_VARIABLE],
                remedy=f"add {same[0].distribution} to {ALLOW_VARIABLE}",
            )
        return same[0]

    def load_class(self, group: str, name: str) -> type[Any]:
        """Imports a plugin and checks it against its protocol; PluginError where either fails."""
        return _load(self.find(group, name))

    def load(self, group: str, choice: Choice) -> Any:
        """Returns the plugin that a spec chose, made from its checked config."""
        plugin = self.load_class(group, choice.name)
        try:
            config = plugin.Config.model_validate(with_secrets(choice.config))
        except ValidationError as error:
            raise SpecError(
                problems=tuple(
                    Problem(
                        code=item["type"],
                        message=without_secrets(f"{choice.name}: {item['msg']}", choice.config),
                        field=".".join(("config", *map(str, item["loc"]))),
                        given=without_secrets(repr(item.get("input")), choice.config)[:60],
                        accepted=", ".join(plugin.Config.model_fields) if item["type"] == "extra_forbidden" else None,
                    )
                    for item in error.errors(include_url=False)
                )
            ) from None
        return self.make(group, choice.name, config)

    def make(self, group: str, name: str, config: Any) -> Any:
        """Returns the plugin made from a config that fits it."""
        with self.blaming(group, name, "its constructor"):
            return self.load_class(group, name)(config)

    def ask(self, group: str, choice: Choice, question: str) -> Any:
        """Returns what a method without arguments of the chosen plugin answers."""
        plugin = self.load(group, choice)
        with self.blaming(group, choice.name, question):
            return getattr(plugin, question)()

    @contextmanager
    def blaming(self, group: str, name: str, part: str) -> Iterator[None]:
        """Turns what a plugin raises beside Espalier's errors into a PluginError that says whose defect it is."""
        try:
            yield
        except EspalierError:
            raise
        except Exception as error:
            found = self.find(group, name)
            raise PluginError(
                f"{found.label} is broken: {part} raises {type(error).__name__}: {error}",
                code="broken_plugin",
                given=name,
                remedy=f"report it to the authors of {found.distribution}, or install another version",
            ) from error

    def use(self, group: str, name: str) -> PluginUse:
        """Returns the record of a plugin down to the hash of its code."""
        found = self.find(group, name)
        return PluginUse(
            group=group,
            name=name,
            distribution=found.distribution,
            version=found.version,
            sha256=package_sha256(_package_of(found)),
        )


def allowed(name: str) -> bool:
    """Tells whether ESPALIER_PLUGINS_ALLOW (comma-separated distributions; unset: all) lets a distribution in."""
    value = os.environ.get(ALLOW_VARIABLE)
    return value is None or _spelled(name) in {_spelled(item.strip()) for item in value.split(",")}


def distribution_use(name: str) -> dict[str, str]:
    """Returns name, version and code hash of a distribution of this project; PluginError if it is not installed."""
    try:
        dist: Distribution = distribution(name)
    except Exception as error:
        raise PluginError(
            f"{name} is not installed", code="not_installed", given=name, remedy=f"install {name}"
        ) from error
    return {"distribution": name, "version": dist.version, "sha256": package_sha256(name.replace("-", "_"))}


@cache
def package_sha256(package: str) -> str:
    """Returns the hash over a package's files (relative path and content); the same from wheel, image or checkout."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise PluginError(f"package {package} cannot be found", code="broken_plugin", given=package)
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return hashlib.sha256(origin.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    root = origin.parent
    for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
        relative = path.relative_to(root)
        if path.is_file() and not _is_trace(relative):
            digest.update(relative.as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def named_columns(plugin: Any) -> list[str]:
    """Returns the columns that a transform's config names under `columns`, as a list or as the keys of a map."""
    columns = getattr(getattr(plugin, "config", None), "columns", None)
    return [name for name in columns if isinstance(name, str)] if isinstance(columns, list | tuple | dict) else []


def _is_trace(relative: Path) -> bool:
    """Tells what running or editing leaves behind: bytecode, and hidden files of editors and systems."""
    return relative.suffix == ".pyc" or any(part == "__pycache__" or part.startswith(".") for part in relative.parts)


def _points(dist: Distribution) -> Sequence[EntryPoint]:
    try:
        return tuple(dist.entry_points)
    except (ValueError, OSError):  # a neighbour's metadata is damaged: none of ours
        return ()


def _found(label: tuple[str, str], point: EntryPoint) -> Found:
    # A value that is no `module:attribute` breaks loading this plugin, not finding the others.
    module, _, attribute = (part.strip() for part in point.value.partition(":"))
    return Found(point.group, point.name, *label, module, attribute, point)


def _label(dist: Distribution) -> tuple[str, str]:
    """Returns name and version, also of a distribution whose METADATA is gone: its neighbours must be found."""
    try:
        told = dist.metadata
    except FileNotFoundError:  # raised by the backport `importlib_metadata`, which serves all once anybody imports it
        return "unnamed distribution", "?"
    return told["Name"] or "unnamed distribution", told["Version"] or "?"


def _spelled(name: str) -> str:
    """Returns a distribution's name in the one spelling by which indexes compare them (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _package_of(found: Found) -> str:
    """Returns the import package that holds a plugin; below a namespace package, the first with files of its own."""
    parts = found.module.split(".")
    for end in range(1, len(parts) + 1):
        package = ".".join(parts[:end])
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is not None:
            return package
    return found.module


def _load(found: Found) -> type[Any]:
    try:
        plugin = found.point.load()
    except _LOAD_ERRORS as error:
        raise PluginError(
            f"{found.label} cannot be imported: {type(error).__name__}: {error}",
            code="broken_plugin",
            given=found.name,
            remedy=f"repair or uninstall {found.distribution}",
        ) from error
    group = GROUPS[found.group]
    if not isinstance(plugin, type):
        raise PluginError(f"{found.label} is {type(plugin).__name__}, must be a class", code="broken_plugin")
    wrong = mismatches(plugin, group)
    if wrong:
        raise PluginError(
            f"{found.label} does not fit its protocol: {'; '.join(wrong)}",
            code="plugin_contract",
            given=found.name,
            remedy=f"install a version of {found.distribution} made for contract {group.contract}",
        )
    return plugin
