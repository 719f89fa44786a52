"""Regression on EmoBank: full fine-tuning and LoRA against TF-IDF with ridge, 2,000 rows to learn from, one seed.

    python tests/benchmarks/emobank.py --data FOLDER/emobank/emobank.csv [--dimensions V A D] [--seed 0]

The file has `id,split,V,A,D,text`. The first 2,000 rows of its part `train` are learned from and all of its part `dev`
is held out; nothing is tuned on them. Prints Spearman's correlation, mean absolute error and explained variance.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

from espalier_pipeline import run
from espalier_pipeline.view import QuietView

SPEC = """\
name: emobank
objective: {{task: {{name: regression, config: {{text: text, target: value}}}}, metric: spearman}}
data:
  sentences:
    sources: [{{name: files, config: {{paths: [{dimension}.csv]}}}}]
    split: {{by: column, column: part}}
candidates:
  full:
    strategy: full-finetune
    base: minilm
    training: {{epochs: 4, max_tokens: 64, learning_rate: 1.0e-4, seed: {seed}}}
  lora:
    strategy: peft
    base: minilm
    peft: {{name: lora, config: {{rank: 8}}}}
    training: {{epochs: 4, max_tokens: 64, seed: {seed}}}
evaluate: {{metrics: [spearman, mae, r2], resamples: 200}}
"""
LEARNED = 2000


def main() -> None:
    """Runs the pipeline once per dimension and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dimensions", nargs="+", choices=("V", "A", "D"), default=["V", "A", "D"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="espalier-emobank-") as scratch:
        for dimension in arguments.dimensions:
            spec = write(arguments.data, Path(scratch), dimension=dimension, seed=arguments.seed)
            document = run(spec, only="evaluate", view=QuietView()).document()
            for one in [*document["candidates"], *document["baselines"]]:
                said = "  ".join(f"{name} {one['validation'][name]['value']:.3f}" for name in ("spearman", "mae", "r2"))
                print(f"{dimension}  {one['name']:<12} {said}  {one['train_seconds']:.0f} s", flush=True)


def write(data: Path, folder: Path, *, dimension: str, seed: int) -> Path:
    """Writes the rows with the part that each belongs to, and the spec."""
    with data.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["text"].strip()]
    train, held_out = ([row for row in rows if row["split"] == split] for split in ("train", "dev"))
    if len(train) < LEARNED or not held_out:
        sys.exit(f"{data}: {len(train)} train and {len(held_out)} dev rows, {LEARNED} and 1 are needed")
    parts = [(train[:LEARNED], "train"), (train[LEARNED : LEARNED + 100], "test"), (held_out, "validation")]
    with (folder / f"{dimension}.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "value", "part"])
        for some, part in parts:
            out.writerows([row["text"], row[dimension], part] for row in some)
    spec = folder / f"emobank-{dimension}.yaml"
    spec.write_text(SPEC.format(dimension=dimension, seed=seed), encoding="utf-8")
    return spec


if __name__ == "__main__":
    main()
