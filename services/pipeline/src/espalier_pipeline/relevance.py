"""`relevance`: which parts of a model carry its decisions, as a table, a plot and a page.

The figures are made by a child, so that the command line imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from espalier_runtime.store import disk_error
from espalier_sdk.errors import SpecError

from espalier_pipeline.children import run_child
from espalier_pipeline.places import Places

_SUFFIXES = (".html", ".svg")


def relevance(
    model: str,
    *,
    data: str | None = None,
    rows: int = 200,
    seed: int = 0,
    home: Path | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Returns shares by layer, head, hidden unit and module with two checks of them, measured on validation rows.

    `data` is a dataset's ref; default: the one that the model was trained on. Raises SpecError for a model that
    decides nothing per row, DataError where its blocks cannot be read or the dataset lacks a column.
    """
    places = Places.of(home=home, store=store)
    arguments = ["--store", places.store, "--model", model, "--rows", str(rows), "--seed", str(seed)]
    arguments += ["--data", data] if data else []
    log = places.home / "relevance.log"
    return run_child("espalier_training.relevance", arguments, log=log, environment={}, on_event=lambda event: None)


def require_drawable(out: Path) -> None:
    """Raises SpecError where a file's ending says neither page nor plot."""
    if out.suffix not in _SUFFIXES:
        raise SpecError("is no page and no plot", field="--out", given=str(out), accepted=" or ".join(_SUFFIXES))


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Writes a page (.html) or the plot alone (.svg); DataError where the disk does not take it."""
    from espalier_pipeline import plots

    text = plots.relevance(found)
    if out.suffix == ".html":
        text = _page(found, text)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, str(out)) from error


def table(found: Mapping[str, Any]) -> str:
    """Returns layers with their strongest head and module, and what the checks say, as text."""
    lines = [f"{found['model']}, {found['rows']} rows of {found['split']}, {found['dataset']}"]
    lines.append(f"{'layer':<6} {'relevance':>9} {'heads':>7} {'units':>7}  {'strongest head':<16} strongest module")
    for one in found["layers"]:
        heads, own = one["heads"], modules_of(found, one["layer"])
        best = max(range(len(heads)), key=lambda place: heads[place])
        name, share = max(own, key=lambda pair: pair[1])
        shares = f"{one['relevance']:>9.1%} {sum(heads):>7.1%} {one['units']:>7.1%}"
        lines.append(f"{one['layer']:<6} {shares}  {f'{best} ({heads[best]:.1%})':<16} {name} ({share:.1%})")
    return "\n".join([*lines, *sentences(found)])


def modules_of(found: Mapping[str, Any], layer: int) -> Sequence[tuple[str, float]]:
    """Returns names and shares of the linear modules of a layer."""
    return [(one["name"], one["relevance"]) for one in found["modules"] if one["layer"] == layer]


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Returns what removing parts does to the decisions, and how alike the shares of a shuffled model are."""
    said = []
    for kind, one in found["removal"].items():
        drawn = one["drawn"]
        effects = [
            ("the most relevant", one["most"]),
            ("the least", one["least"]),
            ("drawn ones", {name: _mean([effect[name] for effect in drawn]) for name in drawn[0]}),
        ]
        told = ", ".join(f"without {which} {_effect(effect)}" for which, effect in effects)
        said.append(f"{one['removed']} of {one['of']} {kind} removed: {told}")
    shuffled = ", ".join(f"{kind} {value:.2f}" for kind, value in found["shuffled"].items())
    said.append(f"rank correlation with the same model, its weights shuffled: {shuffled}; near 0 is as it should be")
    return said


def _effect(effect: Mapping[str, float | None]) -> str:
    kept = effect["kept"]
    said = f"scores move by {effect['moved']:.0%}"
    return said if kept is None else f"{said} and {kept:.0%} of the decisions stay"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


def _page(found: Mapping[str, Any], plot: str) -> str:
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("espalier_pipeline", "templates"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("espalier_pipeline").joinpath("templates/report.css").read_text("utf-8")
    modules = sorted(found["modules"], key=lambda one: -one["relevance"])
    page: str = environment.get_template("relevance.html").render(
        found=found, plot=plot, style=style, modules=modules, sentences=sentences(found)
    )
    return page
