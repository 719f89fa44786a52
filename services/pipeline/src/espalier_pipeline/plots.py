"""Plots of the report, as SVG text. Drawn by matplotlib; texts stay texts, so that the page can be searched."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_pipeline.learning import series, signals
from espalier_pipeline.studies import value_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from espalier_pipeline.confidence import Threshold

_POINTS = 1000  # drawn at most: each is an element of the page
_CHOSEN, _OTHER, _BASELINE, _LINE = "#0b6e4f", "#4a6fa5", "#b8b8b8", "#d9d9d9"


def quality(
    candidates: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]], metric: str, chosen: str
) -> str:
    """Returns candidates and baselines with their validation intervals, and the test value where it was opened."""
    rows = [(one, one["validation"].get(metric)) for one in [*candidates, *baselines]]
    rows = [row for row in rows if row[1]][::-1]
    figure, axes = _figure(6.4, 0.42 * len(rows) + 0.9)
    for place, (one, measured) in enumerate(rows):
        colour = _BASELINE if "model" not in one else _CHOSEN if one["name"] == chosen else _OTHER
        if measured["low"] is not None:
            axes.plot(
                [measured["low"], measured["high"]], [place, place], color=colour, linewidth=2.4, solid_capstyle="round"
            )
        axes.plot(measured["value"], place, "o", color=colour, markersize=6)
        if one["test"] and metric in one["test"]:
            axes.plot(one["test"][metric]["value"], place, "D", color="white", markeredgecolor=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [one["name"] for one, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{metric}: circle and line validation with interval, diamond test")
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    return _svg(figure)


def cost(candidates: Sequence[Mapping[str, Any]], metric: str, chosen: str) -> str:
    """Returns quality against trained parameters, on a logarithmic axis."""
    figure, axes = _figure(6.4, 2.6)
    for one in candidates:
        value = one["validation"][metric]["value"]
        axes.plot(one["trainable_parameters"], value, "o", color=_CHOSEN if one["name"] == chosen else _OTHER)
        axes.annotate(
            one["name"], (one["trainable_parameters"], value), textcoords="offset points", xytext=(7, 4), fontsize=9
        )
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.25)
    axes.set_xlabel("trained parameters")
    axes.set_ylabel(f"validation {metric}")
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def losses(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Returns the loss by share of the steps, on train (line) and validation (dashes); None where none was recorded."""
    drawn = {name: entries for name, entries in histories.items() if len(series(entries, "loss")) > 1}
    if not drawn:
        return None
    figure, axes = _figure(6.4, 2.6)
    for place, (name, entries) in enumerate(drawn.items()):
        last = entries[-1]["step"]
        for key, style in (("loss", "-"), ("eval_loss", "--o")):
            points = series(entries, key)
            shares, values = [step / last for step, _ in points], [value for _, value in points]
            label = name if key == "loss" else None
            axes.plot(shares, values, style, color=f"C{place % 10}", label=label, linewidth=1.4, markersize=3)
    axes.set_xlabel("share of the optimizer steps: line train, dashes validation")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def learned(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns what a learner logged beside the loss, one panel per kind; None where it logged nothing."""
    panels = signals(entries)
    if not panels:
        return None
    figure, drawn = _figure(6.4, 1.5 * len(panels) + 0.4, rows=len(panels))
    for axes, (kind, names) in zip([drawn] if len(panels) == 1 else drawn, panels.items(), strict=True):
        for place, name in enumerate(names):
            for key, style in ((name, "-"), (f"eval_{name}", "--o")):
                points = series(entries, key)
                label = name.removeprefix(f"{kind}/") if key == name else None
                steps, values = [step for step, _ in points], [value for _, value in points]
                axes.plot(steps, values, style, color=f"C{place}", label=label, linewidth=1.4, markersize=3)
        axes.set_ylabel(kind)
        axes.grid(color=_LINE, linewidth=0.6)
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlabel("optimizer step: line train, dashes validation")
    return _svg(figure)


def phases(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns for each depth when it was trained, darker at a higher scale of the rate, and how far it moved."""
    depths = [one["depth"] for one in found[0]["depths"]]
    figure, (left, right) = _figure(6.4, 0.26 * len(depths) + 1.1, columns=(3, 1))
    for phase in found:
        for place, one in enumerate(phase["depths"]):
            if one["trained"]:
                shade = 0.2 + 0.8 * min(one["lr_scale"], 1.0)
                span = phase["stop"] - phase["start"]
                left.barh(place, span, left=phase["start"], height=0.8, color=_CHOSEN, alpha=shade)
    left.set_xlim(0, found[-1]["stop"])
    left.set_xlabel("optimizer step; darker at a higher rate")
    left.set_ylabel("depth")
    moved = [one["moved"] or 0.0 for one in found[-1]["depths"]]
    right.barh(range(len(depths)), moved, height=0.8, color=_OTHER)
    right.set_xlabel("moved, |w - w0| / |w0|")
    for axes in (left, right):
        axes.set_yticks(range(len(depths)), [str(depth) for depth in depths])
        axes.set_ylim(-0.6, len(depths) - 0.4)
    return _svg(figure)


def relevance(found: Mapping[str, Any]) -> str:
    """Returns the shares of each layer's heads, darker where more, and of layers and hidden units as bars."""
    layers = found["layers"]
    shares = [one["heads"] for one in layers]
    figure, drawn = _figure(0.3 * len(shares[0]) + 5.2, 0.26 * len(layers) + 1.1, columns=(0.3 * len(shares[0]), 2, 2))
    drawn[0].imshow(shares, cmap="Greens", vmin=0, aspect="auto", origin="lower")
    drawn[0].set_xticks(range(len(shares[0])), [str(head) for head in range(len(shares[0]))])
    drawn[0].set_xlabel(f"head; darkest is {max(map(max, shares)):.1%} of all")
    drawn[0].set_ylabel("layer")
    for axes, key, label in ((drawn[1], "relevance", "layer, % of all"), (drawn[2], "units", "hidden units, % of all")):
        axes.barh(range(len(layers)), [100 * one[key] for one in layers], height=0.8, color=_OTHER)
        axes.set_xlabel(label)
    for axes in drawn:
        axes.set_yticks(range(len(layers)), [str(one["layer"]) for one in layers])
        axes.set_ylim(-0.6, len(layers) - 0.4)
    return _svg(figure)


def trials(found: Mapping[str, Any], *, logarithmic: Collection[str]) -> str | None:
    """Returns a study's scores against the values of each path, one panel each; None where no trial was complete.

    Trials without a score are drawn as crosses at the foot.
    """
    scored = [one for one in found["trials"] if one["score"] is not None]
    if not scored:
        return None
    paths = list(found["values"])
    figure, drawn = _figure(6.4, 1.9 * len(paths) + 0.3, rows=len(paths))
    for axes, path in zip([drawn] if len(paths) == 1 else drawn, paths, strict=True):
        values = [one["values"][path] for one in found["trials"]]
        places, labels = _places(values)
        for one, place in zip(found["trials"], places, strict=True):
            best = one["number"] == found["best"]
            if one["score"] is None:
                foot = axes.get_xaxis_transform()
                axes.plot(place, 0.04, "x", color=_BASELINE, markersize=6, transform=foot, clip_on=False)
            else:
                axes.plot(place, one["score"], "o", color=_CHOSEN if best else _OTHER, markersize=7 if best else 5)
        if labels:
            axes.set_xticks(range(len(labels)), labels)
        elif path in logarithmic:
            axes.set_xscale("log")
        axes.margins(x=0.08, y=0.18)
        axes.set_xlabel(path)
        axes.set_ylabel(found["scored"])
        axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def learning_curve(found: Mapping[str, Any]) -> str:
    """Returns quality on validation against the examples that were learned from, with intervals."""
    points = found["points"]
    figure, axes = _figure(6.4, 2.8)
    places, values = [one["examples"] for one in points], [one["value"] for one in points]
    axes.plot(places, values, "-o", color=_CHOSEN, linewidth=1.4, markersize=5)
    for one in points:
        if one["low"] is not None:
            axes.plot([one["examples"]] * 2, [one["low"], one["high"]], color=_CHOSEN, linewidth=1.4, alpha=0.5)
    axes.set_xscale("log")
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    axes.set_xlabel("examples learned from")
    axes.set_ylabel(f"validation {found['metric']}")
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def _places(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Returns where values stand on an axis, with a label for each place where they are not all numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    labels = sorted({value_text(value) for value in values})
    return [float(labels.index(value_text(value))) for value in values], labels


def coverage(curve: Sequence[Threshold]) -> str:
    """Returns accuracy against the share of questions that are answered, as the threshold on the score rises."""
    figure, axes = _figure(6.4, 2.6)
    axes.plot([one.coverage for one in curve], [one.accuracy for one in curve], color=_CHOSEN, linewidth=1.4)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share answered")
    axes.set_ylabel("accuracy of those")
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def confusion(counts: Mapping[tuple[str, str], int]) -> str:
    """Returns the confusion matrix, targets by row; shades are shares of a row."""
    labels = sorted({label for pair in counts for label in pair})
    totals = {target: sum(counts.get((target, one), 0) for one in labels) or 1 for target in labels}
    shares = [[counts.get((target, one), 0) / totals[target] for one in labels] for target in labels]
    side = min(0.62 * len(labels) + 1.6, 12)
    figure, axes = _figure(side, side - 0.5)
    axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    if len(labels) <= 15:
        for row, target in enumerate(labels):
            for column, answered in enumerate(labels):
                number = counts.get((target, answered), 0)
                if number:
                    dark = shares[row][column] > 0.55
                    axes.text(
                        column,
                        row,
                        str(number),
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="white" if dark else "black",
                    )
    return _svg(figure)


def numbers(targets: Sequence[float], answers: Sequence[float]) -> str:
    """Returns answers against targets with the line on which they are equal; of many rows every n-th."""
    step = max(1, len(targets) // _POINTS)
    figure, axes = _figure(4.6, 4.2)
    both = [*targets, *answers]
    axes.plot([min(both), max(both)], [min(both), max(both)], color=_LINE, linewidth=1.2)
    axes.plot(targets[::step], answers[::step], "o", color=_CHOSEN, markersize=3.5, alpha=0.5, markeredgewidth=0)
    axes.set_xlabel("true")
    axes.set_ylabel("answered")
    axes.grid(color=_LINE, linewidth=0.6)
    return _svg(figure)


def _figure(width: float, height: float, *, columns: Sequence[int] = (1,), rows: int = 1) -> tuple[Figure, Any]:
    """Returns a figure with its axes: one, or as many as `columns` has relative widths, or as there are rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "espalier"
    mpl.rcParams["font.size"] = 9
    mpl.rcParams["font.family"] = "sans-serif"
    figure = Figure(figsize=(width, height), layout="constrained")
    made = figure.subplots(nrows=rows, ncols=len(columns), width_ratios=columns, squeeze=False).flatten()
    for axes in made:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, made[0] if len(made) == 1 else made


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
