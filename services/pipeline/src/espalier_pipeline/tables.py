"""Tables for people: candidates, runs, experiments, as plain aligned text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from espalier_pipeline.studies import sentence

if TYPE_CHECKING:
    from espalier_pipeline.records import RunRecord
    from espalier_pipeline.result import RunResult


def render(result: RunResult) -> str:
    """Returns what a run ends with: data, candidates, baselines, objective and report."""
    document = result.document()
    lines = [line for one in document["data"] for line in _data_lines(result.spec.name, one)]
    if result.candidates:
        lines += [candidate_table(document, result.spec.objective.metric)]
    lines += [f"{'baseline':<16} {said}" for said in [document["against_baseline"]] if said]
    lines += [f"{'tuned':<16} {one['candidate']}: {sentence(one)}" for one in document["tuned"]]
    curves = [one for one in document["learning_curves"] if one["said"]]
    lines += [f"{'learning curve':<16} {one['candidate']}: {one['said']}" for one in curves]
    goal = document["objective"]
    if goal:
        lines.append(f"{'objective':<16} {objective_text(goal, document['test_openings'])}")
    if result.report:
        lines.append(f"{'report':<16} {result.report}")
    return "\n".join(lines)


def objective_text(goal: Mapping[str, Any], openings: int) -> str:
    """Returns the objective's outcome in words."""
    limits = [
        f"at {word} {goal[key]:g}"
        for word, key in (("least", "at_least"), ("most", "at_most"))
        if goal[key] is not None
    ]
    opened = "once" if openings == 1 else f"{openings} times"
    where = f"on the test split (opened {opened})" if goal["split"] == "test" else "on validation"
    verdict = f": {'met' if goal['met'] else 'MISSED'}," if limits else ":"
    return f"{goal['metric']} {' and '.join(limits)}".rstrip() + f"{verdict} {goal['value']:.3f} {where}"


def candidate_table(document: Mapping[str, Any], metric: str) -> str:
    """Returns the table of candidates, the best on validation first, and the baselines below them."""
    rows = [["", f"validation {metric}", f"test {metric}", "train", "memory", "trained", "size", ""]]
    for one in document["candidates"]:
        chosen = one["name"] == document["chosen"]
        rows.append(
            [
                f"{'>' if chosen else ' '} {one['name']}",
                interval(one["validation"].get(metric)),
                _tested(one, metric),
                seconds(one["train_seconds"]),
                size(one["peak_memory_bytes"]),
                count(one["trainable_parameters"]),
                size(one["size_bytes"]),
                f"chosen: {document['reason']}" if chosen else "",
            ]
        )
    for one in document["baselines"]:
        cells = [f"  {one['name']}", interval(one["validation"].get(metric)), _tested(one, metric)]
        rows.append([*cells, seconds(one["train_seconds"]), "", "", "", "baseline"])
    told = "train: seconds of optimizer steps, or of a baseline's fit; starting and reading come on top"
    return f"{columns(rows)}\n{'':<16} {told}"


def _tested(one: Mapping[str, Any], metric: str) -> str:
    test = one.get("test")  # records of older runs have none for baselines
    return interval(test.get(metric)) if test else "-"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows with aligned columns."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def spent(stage: Mapping[str, Any]) -> str:
    """Returns the seconds of a stage, or that it was done before, and the seconds that it took then where known."""
    if not stage["cached"]:
        return f"{stage['seconds']:.1f}"
    made = stage.get("made_seconds")
    return "done before" if made is None else f"done before, in {made:.1f}"


def data_rows(one: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Returns stage, what was counted, and the number, for one of a run's data in the order of the stages."""
    corpus, dataset = one["corpus_metrics"], one["dataset_metrics"]
    return [
        ("ingest", "rows in the sources", corpus["rows_read"]),
        ("ingest", "unreadable, put aside", corpus["quarantined"]),
        ("ingest", "columns", corpus["columns"]),
        ("preprocess", "rows taken over", dataset["rows_read"]),
        *(("preprocess", _left_out(reason), number) for reason, number in dataset["dropped"].items()),
        ("preprocess", "rows kept", dataset["rows"]),
        *(("preprocess", f"of them {split}", dataset[f"rows_{split}"]) for split in ("train", "validation", "test")),
        *(("preprocess", f"{split} rows that read as one of train", number) for split, number in _repeated(dataset)),
    ]


def interval(measured: Mapping[str, Any] | None) -> str:
    """Returns `0.90  0.86-0.94`."""
    if measured is None:
        return "-"
    if measured["low"] is None:
        return f"{measured['value']:.2f}"
    return f"{measured['value']:.2f}  {measured['low']:.2f}-{measured['high']:.2f}"


def seconds(value: float) -> str:
    """Returns seconds, or minutes where there are many."""
    if value < 0.5:
        return "< 1 s"
    return f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def size(value: float) -> str:
    """Returns bytes in kB, MB or GB."""
    if value < 1e5:
        return f"{value / 1e3:.1f} kB"
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def count(value: float) -> str:
    """Returns a number of parameters in thousands or millions."""
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def render_runs(records: Sequence[RunRecord]) -> str:
    """Returns the list of runs, the newest first."""
    if not records:
        return "no runs here yet"
    rows = [["run", "name", "state", "started", "chosen", "objective"]]
    for record in records:
        result = record.data.get("result") or {}
        goal = result.get("objective")
        outcome = f"{goal['metric']} {goal['value']:.3f}{'' if goal['met'] else ' MISSED'}" if goal else ""
        rows.append(
            [
                record.id,
                record.data["name"],
                record.state(),
                _when(record.data["started_at"]),
                result.get("chosen") or "",
                outcome,
            ]
        )
    return columns(rows)


def render_run(record: RunRecord) -> str:
    """Returns what one run did: its stages, and its result or the reason why it has none."""
    rows = [["stage", "name", "seconds", "artifact"]]
    for stage in record.data["stages"]:
        rows.append([stage["stage"], stage["name"], spent(stage), (stage["ref"] or "")[: len(stage["ref"] or "") - 52]])
    lines = [f"{record.id}  {record.data['name']}  {record.state()}  {_when(record.data['started_at'])}", columns(rows)]
    result = record.data.get("result")
    if result and result["candidates"]:
        lines.append(candidate_table(result, result["objective"]["metric"]))
        lines += [result["against_baseline"]] if result.get("against_baseline") else []
        lines.append(objective_text(result["objective"], result["test_openings"]))
        lines.append(f"report  {result['report']}")
    lines += [f"error: {problem['message']}" for problem in record.data.get("errors", [])]
    return "\n".join(lines)


def render_comparison(records: Sequence[RunRecord]) -> str:
    """Returns the candidates of several runs, one line each."""
    rows = [["run", "candidate", "metric", "validation", "test", "train", "trained", "model"]]
    for record in records:
        result = record.data["result"]
        metric = result["objective"]["metric"] if result["objective"] else ""
        for one in result["candidates"]:
            mark = ">" if one["name"] == result["chosen"] else " "
            rows.append(
                [
                    record.id,
                    f"{mark} {one['name']}",
                    metric,
                    interval(one["validation"].get(metric)),
                    _tested(one, metric),
                    seconds(one["train_seconds"]),
                    count(one["trainable_parameters"]),
                    one["model"][: len(one["model"]) - 52],
                ]
            )
    return columns(rows)


def render_experiment(results: Mapping[str, Any]) -> str:
    """Returns counts by arm, and of each metric the mean over units with how many units it has."""
    arms = results["arms"]
    metrics = sorted({name for one in arms.values() for name in one["metrics"]})
    rows = [
        ["", "variant", "units", "crossed", "requests", "answered", "not served", *(f"{m} per unit" for m in metrics)]
    ]
    for arm, one in arms.items():
        counts = [str(one[key]) for key in ("units", "crossed", "requests", "answered", "not_served")]
        means = [one["metrics"].get(name) for name in metrics]
        told = [f"{mean['mean']:.3f} of {mean['units']}" if mean else "-" for mean in means]
        rows.append([arm, one["variant"], *counts, *told])
    note = "per unit: each unit counts once, by the mean of its own outcomes; a share of all answers can differ"
    return f"{columns(rows)}\n{note}" if metrics else columns(rows)


def _data_lines(name: str, one: Mapping[str, Any]) -> list[str]:
    corpus, dataset = one["corpus_metrics"], one["dataset_metrics"]
    told = [f"{number} {_left_out(reason)}" for reason, number in dataset["dropped"].items()]
    if corpus["quarantined"]:
        told.append(f"{corpus['quarantined']} unreadable")
    lines = [
        f"{name:<16} {corpus['rows_read']} rows, {dataset['rows']} kept" + (f" ({', '.join(told)})" if told else "")
    ]
    for split, number in _repeated(dataset):
        share = f"{number} of {dataset[f'rows_{split}']} {split} rows read as a row of train"
        lines.append(f"{'':<16} {share}: quality there is flattered; `deduplicate` with the columns read drops them")
    return [*lines, f"{'unreadable':<16} {one['quarantine']}"] if one["quarantine"] else lines


def _repeated(dataset: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Returns split and number of rows that train has too; nothing where an older dataset did not count them."""
    return dataset.get("repeated", {}).items()


def _left_out(reason: str) -> str:
    return _DROPPED.get(reason, f"dropped by {reason}")


_DROPPED = {"no target": "without a target", "no text": "without text"}


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
