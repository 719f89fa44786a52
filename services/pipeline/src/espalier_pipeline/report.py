"""The report of a run: one self-contained HTML page with tables and plots, readable without a network.

Knows nothing about how anything was made: it reads the run's document and what lies beside its models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.plugins import Plugins
from espalier_runtime.specs.checking import objective_metric
from espalier_runtime.store import Store, disk_error
from espalier_sdk import ArtifactRef
from espalier_sdk.columns import PREDICTION, TARGET

from espalier_pipeline import forgetting, learning, tables
from espalier_pipeline.confidence import confidence, sentences
from espalier_pipeline.predictions import predictions_of
from espalier_pipeline.samples import samples
from espalier_pipeline.studies import sentence, value_text
from espalier_pipeline.worst import Worst, worst

if TYPE_CHECKING:
    from espalier_pipeline.result import RunResult


def write_report(result: RunResult, store: Store, path: Path) -> None:
    """Writes the page; DataError where the disk does not take it."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("espalier_pipeline", "templates"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": tables.interval, "seconds": tables.seconds}
    environment.filters |= {"value": value_text, "data_rows": tables.data_rows, "spent": tables.spent}
    environment.filters |= {"size": tables.size, "count": tables.count}
    page = environment.get_template("report.html").render(
        **_content(result, store), style=files("espalier_pipeline").joinpath("templates/report.css").read_text("utf-8")
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, str(path)) from error


def _content(result: RunResult, store: Store) -> dict[str, Any]:
    from espalier_pipeline import plots

    document, metric = result.document(), result.spec.objective.metric
    ordered = document["candidates"]
    shown = [one for one in ordered if one["name"] in (document["chosen"], document["runner_up"])]
    models = {one["name"]: one["model"] for one in ordered}  # and those that were built for them
    models |= {one["name"]: one["ref"] for one in document["stages"] if one["stage"] == "train"}
    histories = {name: learning.history(store, model) for name, model in models.items()}
    trained = {name: learning.phases(store, model) for name, model in models.items()}
    chosen = next(one for one in ordered if one["name"] == document["chosen"])
    tuned = document["tuned"]
    sure = confidence(document["stages"], store, chosen["name"], _dataset(store, chosen["model"]))
    return {
        "document": document,
        "metric": metric,
        "candidates": ordered,
        "objective": tables.objective_text(document["objective"], document["test_openings"]),
        "classes": [(one["name"], _per_class(one)) for one in shown],
        "quality_plot": plots.quality(ordered, document["baselines"], metric, document["chosen"]),
        "cost_plot": plots.cost(ordered, metric, document["chosen"]),
        "loss_plot": plots.losses(histories),
        "learned_plots": [(name, plot) for name, found in histories.items() if (plot := plots.learned(found))],
        "diverged": [(name, said) for name, found in histories.items() if (said := learning.divergence(found))],
        "overfitting": [
            (name, said)
            for name, found in histories.items()
            if (said := learning.overfitting(found, early_stopping=_stops_early(result, name)))
        ],
        "forgotten": [(name, forgetting.told(figures)) for name, figures in document["forgetting"].items()],
        "tuned": [(one, sentence(one), plots.trials(one, logarithmic=_logarithmic(result, one))) for one in tuned],
        "curves": [(one, plots.learning_curve(one)) for one in document["learning_curves"] if one["points"]],
        "phase_plots": [(name, plots.phases(found)) for name, found in trained.items() if found],
        "confusion_plots": [
            (one["name"], "test" if one["test"] else "validation", plots.confusion(counts))
            for one in shown
            if (counts := _confusion(one))
        ],
        "samples": samples(document["stages"], store, document["chosen"]),
        "confidence": sure,
        "abstaining": sentences(sure) if sure else [],
        "worst": None if sure else _worst(result, store, chosen),
        "coverage_plot": plots.coverage(sure.curve) if sure else None,
        "number_plots": [
            (one["name"], split, plots.numbers(*found))
            for one in shown
            for split in (("test" if one["test"] else "validation"),)
            if (found := _numbers(document, store, one["name"], split))
        ],
        "spec": json.dumps(result.spec.model_dump(mode="json", exclude_defaults=True), indent=1, ensure_ascii=False),
        "provenance": store.manifest(ArtifactRef.parse(ordered[0]["model"])).provenance,
        "plugins": store.manifest(ArtifactRef.parse(ordered[0]["model"])).plugins,
    }


def _logarithmic(result: RunResult, found: Mapping[str, Any]) -> list[str]:
    """Returns the paths of a study whose values are spread over orders of magnitude."""
    tune = result.spec.candidates[found["candidate"]].tune
    space = tune.space if tune else {}
    return [path for path, one in space.items() if one.log_uniform or one.log_integer]


def _dataset(store: Store, model: str) -> str:
    """Returns the dataset that a model was trained on."""
    return next(str(ref) for ref in store.manifest(ArtifactRef.parse(model)).inputs if ref.kind == "dataset")


def _worst(result: RunResult, store: Store, chosen: Mapping[str, Any]) -> Worst | None:
    """Returns the rows that the chosen candidate answered worst, by the objective's metric where that can tell."""
    plugins = Plugins()
    first = objective_metric(result.spec, plugins)
    ordered = [first, *(choice for choice in result.spec.evaluate.metrics if choice != first)]
    metrics = {choice.name: plugins.load("espalier.metrics", choice) for choice in ordered}
    return worst(result.stages, store, chosen["name"], _dataset(store, chosen["model"]), metrics=metrics)


def _stops_early(result: RunResult, name: str) -> bool:
    return result.spec.candidates[name].training.early_stopping is not None


def _per_class(candidate: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], Any]]:
    """Returns class or type of entity, validation F1 and test F1, the worst first."""
    test = candidate["test"] or {}
    rows = [
        (name.partition("/")[2], value, test.get(name))
        for name, value in candidate["validation"].items()
        if name.startswith(("f1/", "entity_f1/"))
    ]
    return sorted(rows, key=lambda row: row[1]["value"])


def _confusion(candidate: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Returns counts by (target, prediction), of the test split where it was opened."""
    values = candidate["test"] or candidate["validation"]
    found = {}
    for name, measured in values.items():
        if name.startswith("confusion/"):
            _, target, prediction = name.split("/", 2)
            found[target, prediction] = int(measured["value"])
    return found


def _numbers(
    document: Mapping[str, Any], store: Store, candidate: str, split: str
) -> tuple[list[float], list[float]] | None:
    """Returns targets and answers of an evaluation, where they are numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = predictions_of(document["stages"], store, candidate, split)
    if path is None or not pa.types.is_floating(pq.read_schema(path).field(PREDICTION).type):
        return None
    table = pq.read_table(path, columns=[TARGET, PREDICTION])
    table = table.filter(table.column(TARGET).is_valid())
    return table.column(TARGET).to_pylist(), table.column(PREDICTION).to_pylist()
