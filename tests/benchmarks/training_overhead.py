"""Espalier's training against the bare Hugging Face Trainer: same model, data, steps and arithmetic (float32), in turn.

    python tests/benchmarks/training_overhead.py [--steps 30] [--rounds 3] [--candidate full] [--uniform]

Texts have 5 to 60 words, as real ones differ; with --uniform all have 40, which shows the cost of Ray alone.

Prints seconds per optimizer step of both and their ratio (median of the rounds).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_runtime.tables import write_parts
from espalier_sdk import Choice
from espalier_sdk.columns import ID

TASK = {"name": "classification", "config": {"text": "text", "target": "label"}}
SPEC = """\
name: bench
objective: {{task: {{name: classification, config: {{text: text, target: label}}}}, metric: macro_f1}}
data: {{words: {{sources: [{{name: files, config: {{paths: [none.csv]}}}}]}}}}
candidates:
  full: {{strategy: full-finetune, base: minilm, training: {training}}}
  lora: {{strategy: peft, base: minilm, peft: lora, training: {training}}}
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidate", choices=["full", "lora"], default="full")
    parser.add_argument("--uniform", action="store_true")
    parser.add_argument("--bare", nargs=3, metavar=("DATA", "BASE", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(json.dumps({"seconds": bare(Path(arguments.bare[0]), Path(arguments.bare[1]), int(arguments.bare[2]))}))
        return
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset = make_dataset(folder, uniform=arguments.uniform)
        for round_number in range(arguments.rounds):
            ours.append(espalier(folder, dataset, arguments, seed=round_number))
            theirs.append(run_bare(folder, arguments))
            print(f"round {round_number + 1}: espalier {ours[-1]:.4f} s/step, bare {theirs[-1]:.4f} s/step", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"{arguments.candidate}, {arguments.steps} steps of 16 examples, {os.cpu_count()} CPUs")
    mean = [statistics.median(one) for one in (ours, theirs)]
    print(f"espalier {mean[0]:.4f} s/step, bare Trainer {mean[1]:.4f} s/step, ratio of the medians {ratio:.3f}")


def make_dataset(folder: Path, *, uniform: bool) -> str:
    """Publishes a dataset of 480 texts and returns its reference."""
    words = random.Random(0)
    vocabulary = [
        f"{first}{second}" for first in ("gar", "pla", "mor", "ten", "sil") for second in ("den", "ter", "ning")
    ]
    texts = [" ".join(words.choices(vocabulary, k=40 if uniform else words.randint(5, 60))) for _ in range(480)]
    labels = [str(words.randrange(4)) for _ in texts]
    table = pa.table({ID: [str(number) for number in range(len(texts))], "text": texts, "label": labels})
    task = Plugins().load("espalier.tasks", Choice(**TASK))
    attempt = Store.open(str(folder / "store")).begin("0" * 64)
    for split in ("train", "validation", "test"):
        write_parts([table], attempt.folder / split)
    state = task.finish(task.observe(table)).model_dump(mode="json")
    (attempt.folder / "state.json").write_text(json.dumps({"task": state, "transforms": []}))
    return str(attempt.publish(kind="dataset", name="words", what={"task": TASK}).ref())


def espalier(folder: Path, dataset: str, arguments: argparse.Namespace, *, seed: int) -> float:
    """Trains through the service's command and returns seconds per step."""
    spec = folder / "bench.yaml"
    training = f"{{max_steps: {arguments.steps}, seed: {seed}, max_tokens: 64, dtype: float32}}"
    spec.write_text(SPEC.format(training=training))
    (folder / "none.csv").write_text("text,label\na,b\n")
    line = ["--spec", str(spec), "--store", str(folder / "store"), "--candidate", arguments.candidate, "--json"]
    base = service([*line, "--stage", "base"])["ref"]
    metrics = service([*line, "--input", f"dataset={dataset}", "--input", f"base={base}"])["metrics"]
    return float(metrics["train_seconds"]) / float(metrics["steps"])


def service(line: list[str]) -> dict[str, Any]:
    """Runs the training service and returns its document."""
    done = subprocess.run(
        [sys.executable, "-m", "espalier_training", *line], stdout=subprocess.PIPE, check=True, text=True
    )
    document: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return document


def run_bare(folder: Path, arguments: argparse.Namespace) -> float:
    """Trains with the bare Trainer in a process of its own and returns seconds per step."""
    store = Store.open(str(folder / "store"))
    data = next(store.open_artifact(ref).folder for ref in store.refs("prepared"))
    base = next(store.open_artifact(ref).folder for ref in store.refs("model") if ref.name == "base-minilm")
    line = [sys.executable, __file__, "--candidate", arguments.candidate]
    line += ["--bare", str(data / "train"), str(base), str(arguments.steps)]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["seconds"]) / arguments.steps


def bare(data: Path, base: Path, steps: int) -> float:
    """What one would write without Espalier: AutoModel, Trainer, the same arguments."""
    import pyarrow.parquet as pq
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(0)
    rows = pq.read_table(data, columns=["input_ids", "attention_mask", "labels"]).to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    if "lora" in sys.argv:
        import peft

        config = peft.LoraConfig(
            task_type="SEQ_CLS",
            r=8,
            lora_alpha=16,
            lora_dropout=0.05,
            target_modules=["query", "key", "value", "attention.output.dense"],
        )
        model = peft.get_peft_model(model, config)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=steps,
        per_device_train_batch_size=16,
        learning_rate=5e-5,
        weight_decay=0.01,
        warmup_steps=steps // 10,
        logging_steps=max(1, steps // 50),
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    started = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
