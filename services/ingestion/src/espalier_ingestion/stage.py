"""The stage `ingest`: sources are read into a corpus; what cannot be read is kept apart and counted."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier_runtime.job import Job, Stage
from espalier_runtime.ray_session import configure_ray_data, own_errors
from espalier_sdk.choice import Choice
from espalier_sdk.columns import ROW
from espalier_sdk.errors import DataError, Problem

from espalier_ingestion import reading
from espalier_ingestion.profiling import Profile
from espalier_ingestion.unifying import as_text, conform, misfits, mixed_columns, unify

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

DOCUMENTS = "documents"
QUARANTINE = "quarantine.jsonl"
PROFILE = "profile.json"
SHOWN = 5  # how many bad rows an error shows


def run(job: Job) -> dict[str, Any]:
    """Reads the sources of the job's data into `documents/`, `quarantine.jsonl` and `profile.json`.

    Raises DataError where a source cannot be read, where nothing is in it, or where more rows are bad than the spec
    allows. `quarantine.jsonl` then lies beside the attempt.
    """
    assert job.request.data is not None, "an ingest request names its data"
    data = job.spec.data[job.request.data]
    sources = [job.plugins.load("espalier.sources", choice) for choice in data.sources]
    tasks = reading.list_tasks(sources)
    job.session.start(job.request.plugins)
    configure_ray_data()
    job.progress.note(f"reading {len(tasks)} parts")
    records = reading.read_tasks(tasks, sources).materialize()
    seen = _look(records, job.beside / QUARANTINE, total=len(tasks), job=job)
    _refuse_failures(seen.failures)
    _refuse_bad_rows(seen, limit=data.bad_rows, kept_at=f"{job.beside_uri}/{QUARANTINE}", sources=data.sources)
    shutil.copyfile(job.beside / QUARANTINE, job.out / QUARANTINE)
    schema, notes = _fitting(records, seen.schemas)
    profile = Profile(schema)
    rows = _write(records, schema, profile, job.out / DOCUMENTS)
    assert rows == seen.good, f"{rows} rows were written, {seen.good} were read"
    _write_profile(job.out / PROFILE, seen, profile, notes, [choice.name for choice in data.sources])
    job.progress.update(rows, rows, f"{rows} rows, {seen.bad} quarantined")
    return {"rows_read": seen.good + seen.bad, "rows": seen.good, "quarantined": seen.bad, "columns": len(schema)}


STAGE = Stage(name="ingest", run=run)


class _Seen:
    """What a first look at the records tells: schemas, counts, failures and the worst examples."""

    def __init__(self) -> None:
        self.schemas: list[pa.Schema] = []
        self.good = 0
        self.bad = 0
        self.rows_by_source: Counter[int] = Counter()
        self.failures: list[DataError] = []
        self.examples: list[dict[str, Any]] = []


def _look(records: ray.data.Dataset, quarantine: Path, *, total: int, job: Job) -> _Seen:
    import pyarrow as pa

    seen, known = _Seen(), set()
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    light = records.select_columns(
        [reading.SCHEMA, reading.GOOD_ROWS, reading.BAD, reading.BAD_ROWS, reading.SOURCE, reading.FAILURE]
    )
    with quarantine.open("wb") as file:
        for row in _rows(light):
            if row[reading.FAILURE] is not None:
                seen.failures.append(pickle.loads(row[reading.FAILURE]))  # from our own workers, not from a file
                continue
            if row[reading.SCHEMA] not in known:
                known.add(row[reading.SCHEMA])
                seen.schemas.append(pa.ipc.read_schema(pa.BufferReader(row[reading.SCHEMA])))
            seen.good += row[reading.GOOD_ROWS]
            seen.bad += row[reading.BAD_ROWS]
            seen.rows_by_source[row[reading.SOURCE]] += row[reading.GOOD_ROWS]
            file.write(row[reading.BAD])
            if row[reading.BAD_ROWS] and len(seen.examples) < SHOWN:
                seen.examples += [json.loads(line) for line in row[reading.BAD].splitlines()[:SHOWN]]
    return seen


def _rows(records: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    for batch in records.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _refuse_failures(failures: list[DataError]) -> None:
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise DataError(problems=tuple(problem for failure in failures for problem in failure.problems))


def _places(sources: Sequence[Choice]) -> Iterator[str]:
    """Yields where sources read, by the keys that the spec's loader takes for paths."""
    for choice in sources:
        for key in ("path", "paths"):
            value = choice.config.get(key, ())
            yield from [value] if isinstance(value, str) else map(str, value)


def _refuse_bad_rows(seen: _Seen, *, limit: float, kept_at: str, sources: Sequence[Choice]) -> None:
    total = seen.good + seen.bad
    if not total:
        raise DataError(
            "the sources hold no row at all",
            code="no_rows",
            file=", ".join(_places(sources)) or None,
            remedy="check the files: a header alone, blank lines and empty lists make no row",
        )
    if seen.bad <= limit * total and seen.good:
        return
    examples = tuple(
        Problem(
            code="bad_row",
            message=f"{example['error']}: {(example['raw'] or '')[:80]!r}",
            file=example["origin"],
            line=example["line"],
        )
        for example in seen.examples[:SHOWN]
    )
    raise DataError(
        f"{seen.bad} of {total} rows cannot be read ({seen.bad / total:.1%}), the limit is {limit:.1%}; "
        f"all of them stand in {kept_at}",
        code="bad_rows",
        field="bad_rows",
        given=round(seen.bad / total, 4),
        accepted=f"at most {limit}",
        remedy="repair the rows below, give the source the right options (columns, delimiter, encoding), "
        "or raise `bad_rows`",
        problems=examples,
    )


def _fitting(records: ray.data.Dataset, schemas: Sequence[pa.Schema]) -> tuple[pa.Schema, list[str]]:
    """Returns the schema that holds every value, and notes on its types.

    Types alone do not tell whether an integer above 2**53 meets a column of floats: where types differ, one more
    pass over those columns does.
    """
    schema, notes = unify(schemas)
    mixed = mixed_columns(schemas, schema)
    if not mixed:
        return schema, notes

    def look(batch: pa.Table) -> pa.Table:
        import pyarrow as pa

        goods = (reading.open_good(good) for good in batch.column(reading.GOOD).to_pylist() if good is not None)
        return pa.table(
            {"name": pa.array([name for good in goods for name in misfits(good, schema, mixed)], pa.string())}
        )

    with own_errors():
        looked = records.select_columns([reading.GOOD]).map_batches(look, batch_size=1, batch_format="pyarrow")
        names = sorted({row["name"] for row in _rows(looked)})
    wider, more = as_text(schema, names)
    return wider, notes + more


def _write(records: ray.data.Dataset, schema: pa.Schema, profile: Profile, folder: Path) -> int:
    from espalier_runtime.tables import write_parts

    def finish(batch: pa.Table) -> Iterator[pa.Table]:
        for good in batch.column(reading.GOOD).to_pylist():
            yield conform(reading.open_good(good), schema)

    finished = records.select_columns([reading.GOOD]).map_batches(finish, batch_size=1, batch_format="pyarrow")
    with own_errors():
        return write_parts(_numbered(finished, profile), folder)


def _numbered(batches: ray.data.Dataset, profile: Profile) -> Iterator[pa.Table]:
    import numpy as np
    import pyarrow as pa

    row = 0
    for batch in batches.iter_batches(batch_size=None, batch_format="pyarrow"):
        profile.add(batch)
        yield batch.append_column(ROW, pa.array(np.arange(row, row + batch.num_rows)))
        row += batch.num_rows


def _write_profile(path: Path, seen: _Seen, profile: Profile, notes: list[str], sources: list[str]) -> None:
    content = {
        "rows": {"read": seen.good + seen.bad, "kept": seen.good, "quarantined": seen.bad},
        "sources": [{"name": name, "rows": seen.rows_by_source[index]} for index, name in enumerate(sources)],
        "columns": profile.to_json(),
        "notes": notes,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
