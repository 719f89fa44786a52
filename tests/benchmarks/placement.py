"""LoRA with equal ranks and with ranks placed by relevance, at one budget of weights: quality of each on held-out rows.

    python tests/benchmarks/placement.py --data FOLDER [--sets sst2 clinc150 emobank-v] [--seeds 3] [--rank 2 8]

FOLDER holds the data sets, as for `ways.py`. Attention and feed-forward parts are adapted; all but the placement is the
same. Prints a table in Markdown: mean and standard deviation over the seeds, and the mean difference of
a seed's two runs with its standard error. Nothing is tuned on what is measured, and no test split is opened.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from ways import SETS, Set, write

PLACEMENTS = ("uniform", "relevance")
Found = dict[tuple[str, int, str], list[Mapping[str, Any]]]  # by set, rank and placement: a run per seed


def main() -> None:
    """Runs the pipeline once per set and seed, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["sst2", "clinc150", "emobank-v"], choices=SETS, metavar="SET")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rank", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--rows", type=int, help="rows to learn from and to hold out, at most")
    parser.add_argument("--home", type=Path, help="where runs are kept, so that a further run goes on")
    arguments = parser.parse_args()
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="espalier-placement-") as scratch:
        for name in arguments.sets:
            folder = (arguments.home or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            for seed in range(arguments.seeds):
                measure(name, arguments, folder=folder, seed=seed, found=found)
    print(table(found))


def measure(name: str, arguments: argparse.Namespace, *, folder: Path, seed: int, found: Found) -> None:
    """Trains and measures every rank and placement on one set with one seed."""
    chosen = SETS[name]
    spec = write(chosen, (), data=arguments.data, folder=folder, seed=seed)
    if arguments.rows:
        thin(folder / "rows.jsonl", arguments.rows)
    document = yaml.safe_load(spec.read_text(encoding="utf-8"))
    pairs = [(rank, placement) for rank in arguments.rank for placement in PLACEMENTS]
    document["candidates"] = {
        f"{placement}-{rank}": candidate(chosen, rank=rank, placement=placement, seed=seed) for rank, placement in pairs
    }
    spec.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    candidates = {one["name"]: one for one in run(spec, only="evaluate", view=QuietView()).document()["candidates"]}
    for rank, placement in pairs:
        one = candidates[f"{placement}-{rank}"]
        found.setdefault((name, rank, placement), []).append(one)
        value = one["validation"][chosen.values[0]]["value"]
        told = f"{chosen.values[0]} {value:.3f}, {one['trainable_parameters']:,} weights"
        print(f"{name} seed {seed}  {placement} {rank}  {told}", file=sys.stderr, flush=True)


def candidate(chosen: Set, *, rank: int, placement: str, seed: int) -> dict[str, Any]:
    """Returns a candidate as a spec says it."""
    config = {"rank": rank, "targets": "all-linear", "placement": placement}
    training = {**chosen.training, "seed": seed}
    return {
        "strategy": "peft",
        "base": "minilm",
        "peft": {"name": "lora", "config": config},
        "controls": ["head-rate"],  # else a head of 150 labels is half learned, whatever lies below it
        "training": training,
    }


def thin(rows: Path, count: int) -> None:
    """Keeps the first rows of each part."""
    kept: dict[str, list[str]] = {}
    for line in rows.read_text(encoding="utf-8").splitlines():
        kept.setdefault(json.loads(line)["part"], []).append(line)
    lines = [line for part in kept.values() for line in part[:count]]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(found: Found) -> str:
    """Returns what was measured in Markdown."""
    lines = [
        "| set | value | rank | equal ranks | placed | difference | weights, equal | weights, placed |",
        "|---" * 8 + "|",
    ]
    for name, rank in dict.fromkeys((name, rank) for name, rank, _ in found):
        value = SETS[name].values[0]
        equal, placed = (found[name, rank, placement] for placement in PLACEMENTS)
        before, after = ([one["validation"][value]["value"] for one in runs] for runs in (equal, placed))
        differences = [new - old for old, new in zip(before, after, strict=True)]
        cells = [name, value, str(rank), spread(before), spread(after), difference(differences)]
        cells += [f"{runs[0]['trainable_parameters']:,}" for runs in (equal, placed)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation, or the one value."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def difference(values: Sequence[float]) -> str:
    """Returns the mean with its standard error, or the one value."""
    if len(values) == 1:
        return f"{values[0]:+.3f}"
    return f"{statistics.mean(values):+.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
