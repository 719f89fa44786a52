"""LoRA of a large decoder with random weights: tokens per second, use of the GPU, and memory against what was foretold.

    python tests/benchmarks/decoder_lora.py [--gpus 1] [--compile] [--steps 20] [--tokens 4096] [--home FOLDER]

The decoder is shaped like Llama 3.1 8B and stored in bfloat16; every text fills the sequence, and every linear layer of
the blocks is adapted with rank 8. Trains through `espalier run`, without validation. The use of the GPU (MFU) counts
what the model needs: two operations per weight and token forward and as many backward for what flows through frozen
weights, attention likewise over the causal half (twice backward), nothing for embeddings, adapters or what is computed
again, over --peak. Sizes can be lowered to try it on a processor: --hidden 64 --layers 2 --vocabulary 512 --gpus 0.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Choice

ROWS, SPEC = 64, "decoder.yaml"


def main() -> None:
    """Writes the base and the texts, trains once, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, choices=[0, 1], default=1)
    parser.add_argument("--compile", action="store_true", help="with compiled blocks")
    parser.add_argument("--checkpointing", action="store_true", help="with activations computed again")
    parser.add_argument("--quantise", action="store_true", help="beside a base in four bits")
    parser.add_argument("--targets", default="all-linear")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2, help="sequences per step")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--peak", type=float, default=989e12, help="operations per second that the GPU can do (H200)")
    parser.add_argument("--home", type=Path, help="where the base and the runs are kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="espalier-decoder-") as scratch:
        folder = arguments.home or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "base").is_dir():
            write(folder, arguments)
        told = measure(folder, arguments)
    print(json.dumps(told))


def write(folder: Path, arguments: argparse.Namespace) -> None:
    """Writes a decoder with random weights, a small tokenizer, and texts that are longer than the sequence."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    drawn = random.Random(0)
    words = ["".join(drawn.choices("abcdefghij", k=4)) for _ in range(200)]
    texts = [" ".join(drawn.choices(words, k=arguments.tokens)) for _ in range(ROWS + 1)]
    base = folder / "base"
    sizes = {"family": "llama", "vocabulary_size": 500, "max_positions": arguments.tokens}
    Plugins().load("espalier.model_strategies", Choice(name="from-scratch", config=sizes)).tokenizer(
        texts[:4], base=None, out=base
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    full = [cut(text, tokenizer, arguments.tokens) for text in texts]
    parts = ["train"] * ROWS + ["validation"]
    lines = [json.dumps({"text": text, "part": part}) for text, part in zip(full, parts, strict=True)]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    hidden = arguments.hidden
    config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=arguments.layers,
        num_attention_heads=max(4, hidden // 128),
        num_key_value_heads=max(1, hidden // 512),
        max_position_embeddings=arguments.tokens,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.bfloat16().save_pretrained(base)


def cut(text: str, tokenizer: Any, tokens: int) -> str:
    """Returns the beginning of a text that fills one sequence between the marks of beginning and end."""
    ends = [end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]]
    return text[: ends[tokens - 3]]


def document(arguments: argparse.Namespace, *, steps: int) -> dict[str, Any]:
    """Returns the spec of the run."""
    return {
        "name": "decoder",
        "objective": {"task": {"name": "generation", "config": {"text": "text"}}, "metric": "bits_per_byte"},
        "data": {
            "texts": {
                "sources": [{"name": "files", "config": {"paths": ["texts.jsonl"]}}],
                "split": {"by": "column", "column": "part", "test": 0},
            }
        },
        "candidates": {
            "adapted": {
                "strategy": {"name": "peft", "config": {"quantise": "nf4" if arguments.quantise else "none"}},
                "base": {"name": "folder", "config": {"path": "base"}},
                "peft": {"name": "lora", "config": {"targets": arguments.targets}},
                "training": {
                    "max_steps": steps,
                    "batch_size": arguments.batch,
                    "max_tokens": arguments.tokens,
                    "validations": 0,
                },
                "where": {
                    "gpus_per_worker": arguments.gpus,
                    "compile": arguments.compile,
                    "gradient_checkpointing": arguments.checkpointing,
                },
            }
        },
        "evaluate": {"metrics": ["bits-per-byte"]},
    }


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains for a quarter of the steps and for all: the rate is that of the steps between, after what comes once.

    What compiles finds its code on the disk when it comes again, so a short training goes before both.
    """
    if arguments.compile:
        train(folder, arguments, steps=2)
    first, last = (train(folder, arguments, steps=steps) for steps in (arguments.steps // 4, arguments.steps))
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "espalier_training.forecast",
            "--spec",
            str(folder / SPEC),
            "--store",
            str(store(folder)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    foretold = json.loads(told.stdout)["adapted"]["memory_bytes"]
    tokens = (arguments.steps - arguments.steps // 4) * arguments.batch * arguments.tokens
    rate = tokens / (last["train_seconds"] - first["train_seconds"])
    return {
        "tokens_per_second": round(rate),
        "mfu": round(rate * operations(arguments) / arguments.peak, 3),
        "seconds_of_all_steps": last["train_seconds"],
        "load_seconds": last["load_seconds"],
        "trained": last["trainable_parameters"],
        "weights": last["parameters"],
        "memory_gib": round(last["peak_memory_bytes"] / 2**30, 2),
        "foretold_gib": round(foretold / 2**30, 2) if foretold else None,
        "loss": last["train_loss"],
    }


def train(folder: Path, arguments: argparse.Namespace, *, steps: int) -> dict[str, Any]:
    """Trains through the pipeline and returns the model's metrics."""
    path = folder / SPEC
    path.write_text(yaml.safe_dump(document(arguments, steps=steps), sort_keys=False), encoding="utf-8")
    stages = run(path, only="train", view=QuietView()).stages
    ref = ArtifactRef.parse(next(str(stage["ref"]) for stage in stages if stage["stage"] == "train"))
    return dict(Store.open(str(store(folder))).manifest(ref).metrics)


def store(folder: Path) -> Path:
    """Returns where a run keeps its artifacts."""
    return folder / ".espalier" / "store"


def operations(arguments: argparse.Namespace) -> float:
    """Returns the operations that a token needs, forward and backward."""
    hidden, inner = arguments.hidden, arguments.hidden * 7 // 2
    heads, groups = max(4, hidden // 128), max(1, hidden // 512)
    attention = hidden * hidden * (2 + 2 * groups / heads)
    weights = arguments.layers * (attention + 3 * hidden * inner) + hidden * arguments.vocabulary
    scores = arguments.layers * arguments.tokens / 2 * hidden * 2  # with the keys before, and their values
    return 2 * 2 * weights + 3 * 2 * scores


if __name__ == "__main__":
    main()
