"""Quality on AG News: from scratch, full fine-tuning and LoRA, 2,000 rows to learn from, 1,000 held out, several seeds.

    python tests/benchmarks/ag_news.py --data FOLDER/ag_news/train.csv [--seeds 3] [--candidates scratch]

The file has `text,label` rows without a header. Its first 2,000 rows are learned from and its last 1,000 are held out;
nothing is tuned on them: the sizes of `scratch` were chosen among fourteen on rows 2,001 to 3,000. Prints macro F1 of
each candidate and seed, and the means.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from pathlib import Path

from espalier_pipeline import run
from espalier_pipeline.view import QuietView

SPEC = """\
name: ag-news
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data:
  news:
    sources: [{name: files, config: {paths: [news.csv]}}]
    split: {by: column, column: part}
evaluate: {resamples: 200}
candidates:
"""
CANDIDATES = {
    "scratch": """\
  scratch:
    strategy:
      name: from-scratch
      config: {family: modernbert, layers: 1, hidden_size: 128, dropout: 0.3, vocabulary_size: 16000}
    training: {epochs: 10, max_tokens: 128}
""",
    "full": """\
  full: {strategy: full-finetune, base: minilm, training: {epochs: 2, max_tokens: 128}}
""",
    "lora": """\
  lora: {strategy: peft, base: minilm, peft: {name: lora, config: {rank: 8}}, training: {epochs: 2, max_tokens: 128}}
""",
}
LEARNED, HELD_OUT = 2000, 1000


def main() -> None:
    """Runs the pipeline once per seed, each in the same home, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="espalier-ag-news-") as scratch:
        spec = write(arguments.data, Path(scratch), arguments.candidates)
        for seed in range(arguments.seeds):
            seeds = [f"candidates.{name}.training.seed={seed}" for name in arguments.candidates]
            document = run(spec, only="evaluate", overrides=seeds, view=QuietView()).document()
            for one in document["candidates"]:
                value = one["validation"]["macro_f1"]["value"]
                found.setdefault(one["name"], []).append(value)
                print(f"seed {seed}  {one['name']:<8} {value:.4f}  {one['train_seconds']:.0f} s", flush=True)
            for one in document["baselines"] if seed == 0 else ():
                print(f"        {one['name']:<14} {one['validation']['macro_f1']['value']:.4f}")
    for name, values in found.items():
        print(f"mean    {name:<8} {statistics.mean(values):.4f} of {len(values)} seeds")


def write(data: Path, folder: Path, candidates: list[str]) -> Path:
    """Writes the rows with the part that each belongs to, and the spec."""
    with data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if len(rows) < LEARNED + HELD_OUT + 1:
        sys.exit(f"{data}: {len(rows)} rows, {LEARNED + HELD_OUT + 1} are needed")
    parts = [(rows[:LEARNED], "train"), (rows[LEARNED:-HELD_OUT], "test"), (rows[-HELD_OUT:], "validation")]
    with (folder / "news.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "part"])
        for some, part in parts:
            out.writerows([*row, part] for row in some)
    spec = folder / "ag-news.yaml"
    spec.write_text(SPEC + "".join(CANDIDATES[name] for name in candidates), encoding="utf-8")
    return spec


if __name__ == "__main__":
    main()
