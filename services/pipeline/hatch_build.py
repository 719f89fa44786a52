"""Puts the plugin template and the examples of the checkout into the wheel, file by file.

Not whole folders: a checkout's example holds the runs, stores and logs of whoever tried it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PACKAGE = "espalier_pipeline"
_EXAMPLE = ("README.md", "support-triage.yaml", "tickets.csv")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds files from outside this folder; a wheel that is built from the sdist finds them inside already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Names the files to hatchling; an editable install reads the checkout and needs none."""
        checkout = Path(self.root).parents[1]
        if version == "editable" or not (checkout / "plugins" / "template").is_dir():
            return
        prefix = f"src/{_PACKAGE}" if self.target_name == "sdist" else _PACKAGE
        template, example = checkout / "plugins" / "template", checkout / "examples" / "support-triage"
        files = [path for name in ("src", "tests") for path in (template / name).rglob("*") if path.is_file()]
        for path in [template / "README.md", template / "pyproject.toml", *files]:
            if "__pycache__" not in path.parts:
                target = f"{prefix}/_template/{path.relative_to(template).as_posix()}"
                build_data["force_include"][str(path)] = target
        for name in _EXAMPLE:
            build_data["force_include"][str(example / name)] = f"{prefix}/_examples/support-triage/{name}"
