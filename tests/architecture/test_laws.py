"""The repository's own laws, each of which first finds something to check."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from espalier_sdk.groups import GROUPS

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = sorted(
    path.parent
    for kind in ("plugins", "services")
    for path in (ROOT / kind).glob("*/pyproject.toml")
    if path.parent.name != "template"
)
PLUGINS = [folder for folder in MEMBERS if folder.parent.name == "plugins" and folder.name != "sdk"]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_is_something_to_check() -> None:
    assert len(MEMBERS) >= 19
    assert len(PLUGINS) >= 11


@pytest.mark.parametrize("folder", MEMBERS, ids=lambda folder: folder.name)
def test_folder_distribution_and_import_name_differ_only_by_the_prefix(folder: Path) -> None:
    name = f"espalier-{folder.name}"
    assert project(folder)["name"] == name
    package = folder / "src" / name.replace("-", "_")
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("folder", MEMBERS, ids=lambda folder: folder.name)
def test_every_distribution_has_a_readme_and_tests(folder: Path) -> None:
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) >= 3
    assert list((folder / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_declares_entry_points_that_are_found_here(folder: Path) -> None:
    declared = project(folder)["entry-points"]
    assert declared
    for group, points in declared.items():
        assert group in GROUPS
        installed = {point.name: point.value for point in entry_points(group=group)}
        for name, value in points.items():
            assert installed.get(name) == value, "run `make setup` again: the installed metadata is stale"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_every_plugin_is_checked_by_a_kit(folder: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (folder / "tests").rglob("test_*.py"))
    assert "espalier_sdk.testing" in text
    for points in project(folder)["entry-points"].values():
        for name in points:
            assert f'"{name}"' in text, f"no test names {name}"


def test_no_module_is_called_after_nothing() -> None:
    names = [path for folder in MEMBERS for path in (folder / "src").rglob("*.py")]
    assert len(names) > 100
    assert not [path for path in names if path.stem in ("utils", "helpers", "common", "misc")]


def test_no_plugin_is_named_outside_its_own_folder_by_the_runtime_or_a_service() -> None:
    """Defaults of the spec, examples and what `init` writes may name plugins; code that decides may not."""
    allowed = {"models.py", "starting.py", "inference.py", "prediction.py", "opening.py"}
    names = {point.name for group in GROUPS for point in entry_points(group=group)} - {
        "filter",
        "files",
        "missing",
        "peft",
        "transformers",
    }
    assert len(names) > 10
    pattern = re.compile(rf"""["']({"|".join(sorted(names))})["']""")
    for folder in (ROOT / "services").iterdir():
        for path in (folder / "src").rglob("*.py"):
            if path.name not in allowed and "testing" not in path.parts:
                found = pattern.findall(path.read_text(encoding="utf-8"))
                assert not [name for name in found if name not in ("accuracy", "classification")], f"{path}: {found}"


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") > 500
    assert "://" not in text


def test_every_example_spec_is_one_that_check_accepts() -> None:
    from espalier_pipeline.reading import check_with_data

    specs = sorted((ROOT / "examples").rglob("*.yaml"))
    assert specs
    for spec in specs:
        check_with_data(spec)


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- tree -->")[1]
    named = re.findall(r"^\s{0,4}([a-z0-9./-]+?)/?\s{2,}", block, flags=re.MULTILINE)
    for folder in MEMBERS:
        assert folder.name in named, f"{folder.name} is missing in the README's tree"


def test_no_address_of_a_machine_is_in_a_file() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = re.compile(r"/(?:root|home/[a-z]+|work)/[a-z]")
    files = [ROOT / name for name in tracked if name.endswith((".py", ".md", ".toml", ".yaml", ".html", "Makefile"))]
    assert len(files) > 200
    for path in files:
        if path.is_file() and path != Path(__file__):
            assert not home.search(path.read_text(encoding="utf-8")), path
