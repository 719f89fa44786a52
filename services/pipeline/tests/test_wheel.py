"""The wheel has what `new` and `plugins new` copy, and nothing that running the examples leaves behind."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from espalier_pipeline import packed
from espalier_pipeline.starting import new_example
from espalier_sdk.errors import EspalierError

FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(FOLDER)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(out / "site")
    return out / "site" / "espalier_pipeline"


def test_template_and_example_are_in_the_wheel_and_no_trace_of_a_run(site: Path) -> None:
    assert (site / "_template" / "pyproject.toml").is_file()
    assert (site / "_template" / "src" / "espalier_shout" / "__init__.py").is_file()
    example = {path.name for path in (site / "_examples" / "support-triage").iterdir()}
    assert example == {"README.md", "support-triage.yaml", "tickets.csv"}
    assert not [path for path in site.rglob("*") if path.name in (".espalier", "__pycache__")]


def test_an_installed_wheel_copies_its_own_example(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "__file__", str(site / "packed.py"))
    assert new_example(tmp_path / "mine", "classification").is_file()


def test_an_installation_without_them_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "__file__", str(tmp_path / "packed.py"))
    with pytest.raises(EspalierError, match=r"has no examples.*install espalier-pipeline from its wheel"):
        new_example(tmp_path / "mine", "classification")
