"""Measures the source `files` on a csv of 100 MB against pyarrow.csv and pandas, in one run, as ratios."""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    """Prints seconds, MB/s and ratios as JSON; the best of `--repeats` counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        rows = write_csv(path, arguments.megabytes * 10**6)
        megabytes = path.stat().st_size / 1e6
        readers: dict[str, Callable[[Path], int]] = {"files": by_files, "pandas": by_pandas, "pyarrow": by_pyarrow}
        seconds = {name: best(reader, path, rows, arguments.repeats) for name, reader in readers.items()}
    print(
        json.dumps(
            {
                "rows": rows,
                "megabytes": round(megabytes, 1),
                "seconds": {name: round(value, 3) for name, value in seconds.items()},
                "megabytes_per_second": {name: round(megabytes / value, 1) for name, value in seconds.items()},
                "files_over_pandas": round(seconds["files"] / seconds["pandas"], 2),
                "files_over_pyarrow": round(seconds["files"] / seconds["pyarrow"], 2),
            },
            indent=1,
        )
    )


def write_csv(path: Path, size: int) -> int:
    """Writes messages of about 200 characters, a tenth of them quoted, and returns how many."""
    rng = random.Random(0)
    words = [
        "account",
        "refund",
        "order",
        "please",
        "arrived",
        "late",
        "password",
        "invoice",
        "the",
        "is",
        "my",
        "größe",
    ]
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "customer", "message", "queue"])
        while file.tell() < size:
            for _ in range(1000):
                text = " ".join(rng.choices(words, k=28))
                writer.writerow(
                    [rows, f"c{rng.randrange(10**5)}", text + (", thanks" if rows % 10 == 0 else ""), "billing"]
                )
                rows += 1
    return rows


def by_files(path: Path) -> int:
    """Reads as ingestion does."""
    from espalier_sources import Files, FilesConfig

    source = Files(FilesConfig(paths=(str(path),)))
    return sum(batch.num_rows for part in source.parts() for batch in source.read(part))


def by_pandas(path: Path) -> int:
    """Reads with the C parser of pandas, all as text."""
    import pandas

    return len(pandas.read_csv(path, dtype=str))


def by_pyarrow(path: Path) -> int:
    """Reads on one thread with pyarrow, all as text."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = ["id", "customer", "message", "queue"]
    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return int(table.num_rows)


def best(reader: Callable[[Path], int], path: Path, rows: int, repeats: int) -> float:
    """Returns the least seconds of several readings, each of which must find all rows."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = reader(path)
        times.append(time.perf_counter() - start)
        assert found == rows, f"{reader.__name__} found {found} of {rows} rows"
    return min(times)


if __name__ == "__main__":
    main()
