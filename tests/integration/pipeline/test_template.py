"""The template: it builds, passes its kit, and is found when its wheel lies outside the workspace."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from espalier_pipeline.command import run as command


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


def test_a_name_that_python_cannot_import_is_refused(tmp_path: Path) -> None:
    assert command(["plugins", "new", "Loud Words", "--out", str(tmp_path / "x")]) == 2
