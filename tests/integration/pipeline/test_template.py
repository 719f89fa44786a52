"""The template: it builds, passes its kit, and is found when its wheel lies outside the workspace."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from espalier_pipeline.command import run as command
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A new plugin, built as a wheel and unpacked outside the workspace, and an environment that sees it."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "espalier-loud-words"
    assert command(["plugins", "new", "loud-words", "--out", str(source)]) == 0
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return source, {**os.environ, "PYTHONPATH": str(folder / "site")}


def test_the_new_plugin_passes_its_own_tests(installed) -> None:
    source, environment = installed
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(source)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=source, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_new_plugin_is_found_and_shown_by_name(installed) -> None:
    _, environment = installed
    for arguments in (["plugins", "list", "espalier.transforms"], ["plugins", "show", "loud-words"]):
        line = [sys.executable, "-m", "espalier_pipeline.command", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, check=True)
        assert "espalier-loud-words" in done.stdout
    assert (
        "loud-words"
        not in subprocess.run(
            [sys.executable, "-m", "espalier_pipeline.command", "plugins", "list"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


def test_the_template_asks_for_a_range_that_holds_the_lowest_and_the_newest_contract() -> None:
    project = tomllib.loads((ROOT / "plugins" / "template" / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for text in project["dependencies"] if (one := Requirement(text)).name == "espalier-sdk"]
    lowest = next(one.version for one in wanted.specifier if one.operator == ">=")
    assert wanted.specifier.contains(lowest)
    assert wanted.specifier.contains(version("espalier-sdk"))


def test_the_kit_runs_against_an_installed_wheel_of_the_sdk(installed, tmp_path: Path) -> None:
    """Today the lowest version that the template allows is the newest there is, so one wheel stands for both."""
    source, environment = installed
    sdk = ROOT / "plugins" / "sdk"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(sdk)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    alone = {**environment, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{environment['PYTHONPATH']}"}
    seen = "import espalier_sdk.testing; print(espalier_sdk.testing.__file__)"
    where = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, env=alone, check=True)
    assert where.stdout.startswith(str(tmp_path / "site"))
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(source)]
    done = subprocess.run(line, capture_output=True, text=True, env=alone, cwd=source, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path) -> None:
    assert command(["plugins", "new", "Loud Words", "--out", str(tmp_path / "x")]) == 2
