"""What the wheel brings along beside code: the plugin template and the examples, which a checkout has as folders."""

from __future__ import annotations

from pathlib import Path

from espalier_sdk.errors import EspalierError


def packed_folder(name: str, in_checkout: str) -> Path:
    """Returns a folder inside the wheel, or the checkout's; EspalierError where this installation has neither."""
    here = Path(__file__).resolve()
    for folder in (here.parent / name, *(root / in_checkout for root in here.parents[4:5])):
        if folder.is_dir():
            return folder
    raise EspalierError(
        f"this installation of espalier-pipeline has no {name.strip('_')}",
        code="not_installed_whole",
        file=str(here.parent / name),
        remedy="install espalier-pipeline from its wheel again",
    )
