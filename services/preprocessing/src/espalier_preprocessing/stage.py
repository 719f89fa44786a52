"""The stage `preprocess`: a corpus is transformed, split, and the task is fitted on its train split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from espalier_runtime.job import Job, Stage
from espalier_runtime.ray_session import configure_ray_data, own_errors
from espalier_sdk.choice import Choice
from espalier_sdk.errors import DataError
from espalier_sdk.model import SPLITS, Columns, Split

from espalier_preprocessing import passing
from espalier_preprocessing.applying import NO_TARGET, NO_TEXT, drop_unusable
from espalier_preprocessing.arranging import Arrangement, Step, arrange
from espalier_preprocessing.checking import check_columns
from espalier_preprocessing.repeating import Repeats
from espalier_preprocessing.splitting import refuse_empty

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data
    from espalier_runtime.specs.models import DataSpec

DOCUMENTS = "documents"
STATE = "state.json"
PROFILE = "profile.json"


def run(job: Job) -> dict[str, Any]:
    """Makes `train/`, `validation/`, `test/`, `state.json` and `profile.json` from a corpus.

    Order: record transforms that act everywhere and corpus transforms, as the spec has them; the split; transforms
    that learn or name splits; rows without text, or without a target that is needed, go; the task is fitted on what
    is left of train.
    Raises DataError for columns that are not there, for an empty result or split, and for what the task refuses.
    """
    assert job.request.data is not None, "a preprocess request names its data"
    data, folder = job.spec.data[job.request.data], job.inputs["corpus"].folder / DOCUMENTS
    choice = Choice.model_validate(job.request.what["task"])
    task = job.plugins.load("espalier.tasks", choice)
    optional = job.request.what.get("optional", {})
    needed = {name: use for name, use in task.columns().required.items() if set(optional.get(name, ())) != {*SPLITS}}
    steps = _load(data, job)
    check_columns(_column_names(folder), task=Columns(required=needed), split=data.split, steps=steps)
    job.session.start(job.request.plugins)
    configure_ray_data()
    read = passing.bring_in(folder, data.split)
    total, dropped = read.count(), Counter[str]()
    early, dropped_early = _run_early(read, steps.early, job)
    dropped.update(dropped_early)
    with own_errors():
        rows = passing.into_splits(early, data.split).materialize()
    fitted = _fit_steps(rows, steps.late, job)
    job.progress.note(f"fitting {choice.name}")
    usable = partial(drop_unusable, columns=needed, optional=optional)
    seen = passing.observe(rows, fitted, task, usable=usable)
    dropped.update(seen.dropped)
    _refuse_nothing_left(seen.splits, dropped, total)
    refuse_empty(seen.splits, data.split, untargeted=dropped[NO_TARGET])
    state = task.finish(seen.state)
    with own_errors():
        done = passing.finished(rows, fitted, usable).materialize()
    labels, repeated = _write_splits(done, needed, job)
    _write_state(job, state, [step for step in (*steps.early, *fitted) if step.at_serving])
    order = [step.name for step in (*steps.early, *fitted)]
    _write_profile(job, total, seen.splits, dropped, labels, repeated, order, state)
    job.progress.update(total, total, ", ".join(f"{name} {seen.splits[name]}" for name in SPLITS))
    return {
        "rows_read": total,
        "rows": sum(seen.splits.values()),
        **{f"rows_{name}": seen.splits[name] for name in SPLITS},
        "dropped": {reason: number for reason, number in dropped.items() if number},
        "repeated": {split: number for split, number in repeated.items() if number},
    }


STAGE = Stage(name="preprocess", run=run)


def _load(data: DataSpec, job: Job) -> Arrangement:
    return arrange(data.transforms, [job.plugins.load("espalier.transforms", choice) for choice in data.transforms])


def _column_names(folder: Any) -> list[str]:
    import pyarrow.parquet as pq
    from espalier_runtime.tables import part_files

    names: list[str] = pq.read_schema(part_files(folder)[0]).names
    return names


def _run_early(rows: ray.data.Dataset, steps: Sequence[Step], job: Job) -> tuple[ray.data.Dataset, Counter[str]]:
    """Runs what comes before the split; returns rows with marks, and what was counted where marks had to go."""
    dropped: Counter[str] = Counter()
    waiting: list[Step] = []
    for step in steps:
        if step.kind != "corpus":
            waiting.append(step)
            continue
        job.progress.note(step.name)
        with own_errors():
            rows = passing.run_steps(rows, waiting).materialize()
            marks = passing.count_marks(rows) if waiting else Counter[str]()
            after = step.plugin.apply(passing.only_alive(rows)).materialize()
        dropped.update(marks)
        dropped[step.name] += rows.count() - marks.total() - after.count()
        rows, waiting = passing.with_marks(after), []
    return passing.run_steps(rows, waiting), dropped


def _fit_steps(rows: ray.data.Dataset, steps: Sequence[Step], job: Job) -> tuple[Step, ...]:
    """Returns the late steps with their states; each learns from the train split as the steps before it leave it."""
    done: list[Step] = []
    for step in steps:
        if step.kind == "fitted":
            job.progress.note(f"fitting {step.name}")
            seen = passing.observe(rows, done, step.plugin)
            if seen.state is None:
                raise DataError(
                    f"the train split is empty, so {step.name} has nothing to learn from",
                    code="empty_split",
                    field="split",
                    given=dict(seen.splits),
                    remedy="look at what the transforms before it drop, and at the split",
                )
            step = replace(step, state=step.plugin.finish(seen.state))
        done.append(step)
    return tuple(done)


def _refuse_nothing_left(splits: Mapping[str, int], dropped: Mapping[str, int], total: int) -> None:
    if sum(splits.values()):
        return
    blame = ", ".join(f"{name} {count}" for name, count in dropped.items() if count) or "nothing was dropped"
    raise DataError(
        f"nothing is left of {total} rows (dropped by: {blame})",
        code="nothing_left",
        field="transforms",
        given=dict(dropped),
        remedy="loosen the transform that drops the most"
        + (", and see that the task's columns are filled" if dropped.get(NO_TARGET) or dropped.get(NO_TEXT) else ""),
    )


def _write_splits(
    rows: ray.data.Dataset, needed: Mapping[str, str], job: Job
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Writes each split in the order of the corpus.

    Returns how often each label stands in each split, and how many rows of a split stand in train too.
    """
    from espalier_runtime.tables import write_parts

    target = next((name for name, use in needed.items() if use == "label"), None)
    labels: dict[str, dict[str, int]] = {}
    repeats = Repeats(needed)
    for split in SPLITS:
        counts: Counter[str] = Counter()

        def watched(split: Split = split, counts: Counter[str] = counts) -> Iterator[pa.Table]:
            for table in passing.of_split(rows, split):
                repeats.see(split, table)
                if target is not None:
                    counts.update(_label_counts(table, target))
                yield table

        write_parts(watched(), job.out / split)
        labels[split] = dict(sorted(counts.items()))
    return labels, repeats.counts()


def _label_counts(table: pa.Table, target: str) -> dict[str, int]:
    return {str(entry["values"]): entry["counts"] for entry in table.column(target).value_counts().to_pylist()}


def _write_state(job: Job, state: Any, steps: Sequence[Step]) -> None:
    transforms = [
        {
            "name": step.choice.name,
            "config": step.choice.config,
            "state": None if step.state is None else step.state.model_dump(mode="json"),
        }
        for step in steps
    ]
    _write_json(job, STATE, {"task": state.model_dump(mode="json"), "transforms": transforms})


def _write_profile(
    job: Job,
    total: int,
    splits: Mapping[str, int],
    dropped: Mapping[str, int],
    labels: Mapping[str, Mapping[str, int]],
    repeated: Mapping[str, int],
    order: Sequence[str],
    state: Any,
) -> None:
    _write_json(
        job,
        PROFILE,
        {
            "rows": {"read": total, **{name: splits.get(name, 0) for name in SPLITS}},
            "dropped": {name: dropped.get(name, 0) for name in (*order, NO_TARGET, NO_TEXT)},
            "labels": labels,
            "repeated": repeated,
            "rare_labels": list(getattr(state, "rare", ())),
        },
    )


def _write_json(job: Job, name: str, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (job.out / name).write_text(text + "\n", encoding="utf-8")
