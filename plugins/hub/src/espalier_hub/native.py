"""What a base may ask to be run: nothing. Its architecture is transformers' own, and pointers to code are left out.

Knows nothing about where a base comes from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from espalier_sdk import DataError

_CODE = "auto_map"  # where transformers would look for classes in the repository's Python files


def require_native(config: Path, *, name: str, field: str) -> None:
    """Raises DataError where transformers does not have the architecture that a `config.json` names."""
    from transformers import CONFIG_MAPPING

    said = _read(config)
    kind = said.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    if _CODE in said:
        what = "brings its architecture as code, which is never run: no spec can allow it"
    else:
        what = f"has the architecture {kind!r}, which transformers does not have" if kind else "names no `model_type`"
    raise DataError(
        f"{name} {what}",
        code="base",
        field=field,
        given=kind,
        remedy="choose a model whose architecture transformers has; its `model_type` stands in config.json",
    )


def copy_native(files: Iterable[Path], folder: Path) -> None:
    """Copies a base's files without what points to code, so that nothing that opens them later asks whether to run it.

    Many repositories keep such pointers from before transformers had their architecture.
    """
    for path in files:
        said = _read(path) if path.suffix == ".json" else {}
        if _CODE in said:
            kept = {key: value for key, value in said.items() if key != _CODE}
            (folder / path.name).write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, folder / path.name)  # the hub's cache holds links


def _read(path: Path) -> dict[str, Any]:
    """Returns what a JSON file says, or nothing where it holds no object."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
