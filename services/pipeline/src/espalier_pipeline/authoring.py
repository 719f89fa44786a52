"""For plugin authors and for those who choose: describe, check and start plugins."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from espalier_runtime.plugins import Found, Plugins
from espalier_sdk.errors import PluginError, SpecError
from espalier_sdk.groups import did_you_mean

from espalier_pipeline.packed import packed_folder

_TEMPLATE_NAME = "shout"


def describe(name: str) -> list[dict[str, Any]]:
    """Returns what plugins of that name do and take; PluginError where there is none."""
    plugins = Plugins()
    found = [one for one in plugins.inventory() if one.name == name]
    if not found:
        known = sorted({one.name for one in plugins.inventory()})
        raise PluginError(
            f"there is no plugin {name!r}",
            code="unknown_plugin",
            given=name,
            accepted=", ".join(known),
            remedy=did_you_mean(name, known),
        )
    return [_describe(one, plugins) for one in found]


def describe_all() -> list[dict[str, Any]]:
    """Returns the description of every installed plugin, by group and name."""
    plugins = Plugins()
    return [_describe(one, plugins) for one in plugins.inventory()]


def check_plugins(name: str | None = None) -> list[dict[str, Any]]:
    """Loads plugins and returns, for each, what is wrong with it, or None."""
    plugins = Plugins()
    checked = []
    for found in plugins.inventory():
        if name is None or found.name == name:
            try:
                plugins.load_class(found.group, found.name)
                problem = None
            except PluginError as error:
                problem = str(error.problems[0])
            checked.append(
                {"group": found.group, "name": found.name, "distribution": found.distribution, "problem": problem}
            )
    if name is not None and not checked:
        describe(name)  # raises with the inventory
    return checked


def new_plugin(name: str, folder: Path | None) -> Path:
    """Copies the template into a new folder under the plugin's name, and returns the folder."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise SpecError(f"{name!r} is no plugin name", given=name, accepted="small letters, digits and single hyphens")
    target = folder or Path(f"espalier-{name}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SpecError("is not empty", file=str(target), remedy="give a new folder with --out")
    template = packed_folder("_template", "plugins/template")
    for source in sorted(template.rglob("*")):
        if source.is_file() and not {"__pycache__", "dist", ".pytest_cache"} & set(source.parts):
            copied = target / _renamed(source.relative_to(template).as_posix(), name).replace("-", "_")
            copied.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix in (".py", ".toml", ".md"):
                copied.write_text(_renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")
            else:
                shutil.copyfile(source, copied)
    return target


def installing(folder: Path) -> list[str]:
    """Returns the command that installs a distribution with its tests' needs where this program runs.

    With uv where there is one, on the path or beside the environment in a checkout: its environments have no pip.
    """
    beside = Path(sys.prefix).parent / ".uv" / "bin" / "uv"
    uv = "uv" if shutil.which("uv") else str(beside) if beside.is_file() else None
    start = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    return [*start, "-e", f"{folder.absolute()}[test]"]


def _renamed(text: str, name: str) -> str:
    """Puts the new name where the template's stands, in each of its spellings."""
    words = name.split("-")
    text = re.sub(rf"((?:espalier|test)_){_TEMPLATE_NAME}", rf"\g<1>{'_'.join(words)}", text)
    text = text.replace(_TEMPLATE_NAME.capitalize(), "".join(word.capitalize() for word in words))
    return re.sub(rf"\b{_TEMPLATE_NAME}\b", name, text)


def _describe(found: Found, plugins: Plugins) -> dict[str, Any]:
    described: dict[str, Any] = {
        "group": found.group,
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
    }
    try:
        plugin = plugins.load_class(found.group, found.name)
    except PluginError as error:
        return described | {"summary": f"BROKEN: {error.problems[0].message}", "options": []}
    summary = (inspect.getdoc(plugin) or "").split("\n\n")[0].replace("\n", " ")
    options = [
        {
            "name": name,
            "type": _type(field.annotation),
            "default": "required" if field.is_required() else str(field.get_default(call_default_factory=True)),
            "description": field.description,
        }
        for name, field in plugin.Config.model_fields.items()
    ]
    return described | {"summary": summary, "options": options}


def _type(annotation: Any) -> str:
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    return re.sub(r"\b(?:typing|pydantic\.\w+|collections\.abc)\.", "", text)
