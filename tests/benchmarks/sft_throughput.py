"""Supervised fine-tuning of a small decoder: Espalier against TRL's SFTTrainer and LLaMA-Factory, in one run.

    python tests/benchmarks/sft_throughput.py --data FOLDER/gsm8k/train.jsonl [--steps 60] [--rounds 3] [--way lora]
        [--llamafactory ENVIRONMENT/bin/python]

The file has a question and an answer per line; 1,000 are learned from, in batches of 16, with the loss on answers.
Both start from the same random decoder (llama, 6 layers of 256) and tokenizer, at the same rate, in bfloat16 where the
processor computes in it. SFTTrainer has its defaults but for what a processor needs (`use_cpu`), what makes it faster
there (`gradient_checkpointing=False`), and what must be equal. LLaMA-Factory pins other versions, so it is run by the
Python of an environment in which it is installed, in the same way, with the template that adds nothing. Each peer is
timed from its trainer's first step to its last. Prints tokens per second of each (padding not counted), the loss of the
last tenth of the steps, and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.arithmetic import computes_bfloat16
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Choice, Head, Placement

LEARNED, BATCH, LONGEST, RATE, RANK = 1000, 16, 256, 5.0e-4, 8
SIZES = {"family": "llama", "layers": 6, "hidden_size": 256, "heads": 4, "vocabulary_size": 4000}
SPEC = """\
name: sft
objective: {{task: {{name: generation, config: {{prompt: question, completion: answer}}}}, metric: bits_per_byte}}
data:
  problems:
    sources: [{{name: files, config: {{paths: [problems.jsonl]}}}}]
    split: {{by: column, column: part, test: 0}}
candidates:
  model:
    strategy: {strategy}
    base: {{name: folder, config: {{path: base}}}}
    {peft}
    training: {{max_steps: {steps}, batch_size: {batch}, max_tokens: {longest}, learning_rate: {rate}, validations: 0,
               seed: {seed}, weight_decay: 0, warmup: 0}}
evaluate: {{metrics: [bits-per-byte]}}
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=["full", "lora"], default="full")
    parser.add_argument("--llamafactory", metavar="PYTHON", help="of an environment that has LLaMA-Factory")
    parser.add_argument("--trl", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trl:
        print(json.dumps(trl(arguments.trl, arguments)))
        return
    if arguments.data is None:
        parser.error("--data is needed")
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="espalier-sft-") as scratch:
        folder = Path(scratch)
        prepare(arguments.data, folder)
        for seed in range(arguments.rounds):
            ours = espalier(folder, arguments, seed=seed)
            found = {"espalier": ours, "SFTTrainer": child(folder, arguments)}
            if arguments.llamafactory:
                found["LLaMA-Factory"] = llamafactory(folder, arguments, seed=seed)
            for name, one in found.items():
                speed = ours["tokens"] / one["seconds"]
                speeds.setdefault(name, []).append(speed)
                print(f"round {seed + 1}  {name:<13} {speed:7.0f} tokens/s  loss {one['loss']:.3f}", flush=True)
    print(f"{arguments.way}, {arguments.steps} steps of {BATCH} examples, {os.cpu_count()} CPUs")
    medians = {name: statistics.median(one) for name, one in speeds.items()}
    for name, median in medians.items():
        print(f"{name:<13} {median:7.0f} tokens/s, espalier is {medians['espalier'] / median:.2f} times as fast")


def prepare(data: Path, folder: Path) -> None:
    """Writes the rows, and the decoder that both start from."""
    lines = data.read_text(encoding="utf-8").splitlines()[: LEARNED + 10]
    rows = [json.loads(line) for line in lines]
    parts = ["train"] * LEARNED + ["validation"] * (len(rows) - LEARNED)
    marked = [json.dumps({**row, "part": part}) for row, part in zip(rows, parts, strict=True)]
    (folder / "problems.jsonl").write_text("\n".join(marked) + "\n", encoding="utf-8")
    strategy = Plugins().load("espalier.model_strategies", Choice(name="from-scratch", config=SIZES))
    base = folder / "base"
    strategy.tokenizer([f"{row['question']}\n{row['answer']}" for row in rows], base=None, out=base)
    blueprint = strategy.blueprint(Head("causal-lm"), tokenizer=base, base=None)
    strategy.build(blueprint, base=None, placement=Placement()).save_pretrained(base)


def espalier(folder: Path, arguments: argparse.Namespace, *, seed: int) -> dict[str, float]:
    """Trains through the pipeline and returns tokens, seconds of its steps, and the last losses' mean."""
    peft = f"peft: {{name: lora, config: {{rank: {RANK}}}}}" if arguments.way == "lora" else ""
    spec = folder / "sft.yaml"
    spec.write_text(
        SPEC.format(
            strategy="peft" if peft else "full-finetune",
            peft=peft,
            steps=arguments.steps,
            batch=BATCH,
            longest=LONGEST,
            rate=RATE,
            seed=seed,
        )
    )
    stages = run(spec, only="train", view=QuietView()).stages
    ref = ArtifactRef.parse(next(str(stage["ref"]) for stage in stages if stage["stage"] == "train"))
    store = Store.open(str(folder / ".espalier" / "store"))
    metrics, beside = store.manifest(ref).metrics, store.beside(ref)
    assert beside is not None
    history = json.loads((beside / "history.json").read_text())
    seconds = float(metrics["train_seconds"])
    return {"tokens": metrics["tokens_per_second"] * seconds, "seconds": seconds, "loss": last_loss(history)}


def last_loss(history: Sequence[Mapping[str, Any]]) -> float:
    """Returns the mean of the last tenth of the logged losses."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return statistics.mean(losses[-max(1, len(losses) // 10) :])


def child(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Trains with the peer in a process of its own."""
    line = [sys.executable, __file__, "--trl", str(folder), "--steps", str(arguments.steps), "--way", arguments.way]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def trl(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """What one would write without Espalier."""
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files=str(folder / "problems.jsonl"), split="train").filter(
        lambda row: row["part"] == "train"
    )
    rows = rows.map(lambda row: {"prompt": row["question"] + "\n", "completion": row["answer"]})
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=arguments.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        max_length=LONGEST,
        logging_steps=max(1, arguments.steps // 50),
        bf16=computes_bfloat16(),
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=16, lora_dropout=0.05)
    trainer = SFTTrainer(
        model=str(folder / "base"),
        args=config,
        train_dataset=rows.select_columns(["prompt", "completion"]),
        peft_config=lora if arguments.way == "lora" else None,
    )
    started = time.perf_counter()
    trainer.train()
    return {"seconds": time.perf_counter() - started, "loss": last_loss(trainer.state.log_history)}


def llamafactory(folder: Path, arguments: argparse.Namespace, *, seed: int) -> dict[str, float]:
    """Trains with LLaMA-Factory, by the configuration that its documentation gives for a processor."""
    place, out = folder / "llamafactory", folder / "llamafactory" / "out"
    place.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in (folder / "problems.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [
        {"instruction": f"{row['question']}\n", "input": "", "output": row["answer"]}
        for row in lines
        if row["part"] == "train"
    ]
    (place / "problems.json").write_text(json.dumps(rows), encoding="utf-8")
    (place / "dataset_info.json").write_text(json.dumps({"problems": {"file_name": "problems.json"}}), encoding="utf-8")
    lora = {"lora_rank": RANK, "lora_alpha": 16, "lora_dropout": 0.05, "lora_target": "q_proj,k_proj,v_proj,o_proj"}
    config = {
        "model_name_or_path": str(folder / "base"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": arguments.way,
        **(lora if arguments.way == "lora" else {"pure_bf16": False}),
        "dataset": "problems",
        "dataset_dir": str(place),
        "template": "empty",
        "cutoff_len": LONGEST,
        "output_dir": str(out),
        "overwrite_output_dir": True,
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATE,
        "max_steps": arguments.steps,
        "lr_scheduler_type": "linear",
        "logging_steps": max(1, arguments.steps // 50),
        "bf16": computes_bfloat16(),
        "disable_gradient_checkpointing": True,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "seed": seed,
    }
    path = place / "train.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = [arguments.llamafactory, "-m", "llamafactory.cli", "train", str(path)]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"LLaMA-Factory ended with {done.returncode}:\n{done.stdout[-2000:]}")
    logged = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    seconds = json.loads((out / "train_results.json").read_text(encoding="utf-8"))["train_runtime"]
    return {"seconds": seconds, "loss": last_loss(logged)}


if __name__ == "__main__":
    main()
