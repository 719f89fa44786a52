"""The ways of building a model side by side on one data set: quality, time, memory and trained weights of each.

    python tests/benchmarks/ways.py SET --data FOLDER [--ways scratch full lora ...] [--seeds 1] [--home FOLDER]

SET is sst2, clinc150, emobank-v, -a, -d, xquad, shakespeare, gsm8k, dpo or kto; FOLDER holds the data sets,
each in a folder of its own under its published file names. A way is a method, or a learner and a method (`dpo-lora`),
or either with a control (`full+head-rate`).
2,000 rows are learned from, or all where there are fewer; the rest of what a set holds out is measured, and nothing is
tuned on it. Prints a table in Markdown, a line per way, each value with its 95 % bootstrap interval (of the first seed)
or, with several seeds, as mean and standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from espalier_pipeline import run
from espalier_pipeline.view import QuietView

LEARNED, HELD_OUT = 2000, 1000
Row = Mapping[str, Any]
Parts = tuple[Sequence[Row], Sequence[Row]]  # to learn from, held out


@dataclass(frozen=True)
class Set:
    """A data set as a task reads it."""

    read: Callable[[Path], Parts]
    task: Mapping[str, Any]
    metrics: tuple[str, ...]
    values: tuple[str, ...]  # what of the metrics is printed; the first is the objective's
    training: Mapping[str, Any]
    decoder: bool = False
    ways: Sequence[str] = ("scratch", "full", "lora", "prefix-tuning", "bottleneck")


def sst2(folder: Path) -> Parts:
    """Returns sentences with their sentiment."""

    def rows(name: str) -> list[Row]:
        lines = (folder / "sst2" / f"stsa.binary.{name}").read_text(encoding="utf-8").splitlines()
        return [dict(zip(("label", "text"), line.split(" ", 1), strict=True)) for line in lines]

    return rows("train")[:LEARNED], rows("dev")


def clinc150(folder: Path) -> Parts:
    """Returns questions with one of 150 intents; rows of the file stand intent by intent, so they are drawn."""
    document = json.loads((folder / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    drawn = random.Random(0)
    learned, held_out = (
        [{"text": text, "label": label} for text, label in drawn.sample(document[key], count)]
        for key, count in (("train", LEARNED), ("val", HELD_OUT))
    )
    return learned, held_out


def emobank(dimension: str) -> Callable[[Path], Parts]:
    """Returns the reader of sentences with one of their three values."""

    def read(folder: Path) -> Parts:
        with (folder / "emobank" / "emobank.csv").open(encoding="utf-8", newline="") as file:
            found = [row for row in csv.DictReader(file) if row["text"].strip()]
        learned, held_out = (
            [{"text": row["text"], "value": float(row[dimension])} for row in found if row["split"] == split]
            for split in ("train", "dev")
        )
        return learned[:LEARNED], held_out

    return read


def xquad(folder: Path) -> Parts:
    """Returns questions with their texts; the last six articles are held out."""
    articles = json.loads((folder / "xquad_en_a" / "xquad.en.json").read_text(encoding="utf-8"))["data"]

    def rows(some: Sequence[Any]) -> Iterator[Row]:
        for article in some:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = [{"text": one["text"], "start": one["answer_start"]} for one in asked["answers"]]
                    yield {"question": asked["question"], "context": paragraph["context"], "answers": answers}

    return list(rows(articles[:-6])), list(rows(articles[-6:]))


def shakespeare(folder: Path) -> Parts:
    """Returns passages of about 400 characters, the last tenth held out."""
    text = (folder / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    passages, now = [], ""
    for speech in text.split("\n\n"):
        now = f"{now}\n\n{speech}".strip()
        if len(now) > 400:
            passages.append({"text": now})
            now = ""
    first = len(passages) - len(passages) // 10
    return passages[:first][:LEARNED], passages[first:]


def gsm8k(folder: Path) -> Parts:
    """Returns problems of arithmetic with worked answers."""
    lines = (folder / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return rows[:LEARNED], rows[-300:]


def dpo(folder: Path) -> Parts:
    """Returns conversations with an answer that was liked better and one that was liked less."""
    document = json.loads((folder / "dpo_en_demo" / "dpo_en_demo.json").read_text(encoding="utf-8"))
    rows = [
        {
            "prompt": "\n".join(turn["value"] for turn in one["conversations"]) + "\n",
            "chosen": one["chosen"]["value"],
            "rejected": one["rejected"]["value"],
        }
        for one in document
        if one["chosen"]["value"].strip() and one["rejected"]["value"].strip()
    ]
    return rows[:-60], rows[-60:]


def kto(folder: Path) -> Parts:
    """Returns conversations with a last answer and its thumb; of what is held out, the answers that were liked."""
    document = json.loads((folder / "kto_en_demo" / "kto_en_demo.json").read_text(encoding="utf-8"))
    rows = [
        {
            "prompt": "\n".join(turn["content"] for turn in one["messages"][:-1]) + "\n",
            "chosen": one["messages"][-1]["content"],
            "label": one["label"],
        }
        for one in document
    ]
    return rows[:-40], [row for row in rows[-40:] if row["label"]]


_LABELS: dict[str, Any] = {"name": "classification", "config": {"text": "text", "target": "label"}}
_NUMBERS: dict[str, Any] = {"name": "regression", "config": {"text": "text", "target": "value"}}
_ACCURACY, _SPEARMAN = ("accuracy", "macro_f1"), ("spearman", "mae", "r2")
_PLAIN: dict[str, Any] = {"name": "generation", "config": {"text": "text"}}
_ASKED: dict[str, Any] = {"name": "generation", "config": {"prompt": "question", "completion": "answer"}}
_PAIRS: dict[str, Any] = {
    "name": "generation",
    "config": {"prompt": "prompt", "completion": "chosen", "rejected": "rejected"},
}
_THUMBS: dict[str, Any] = {"name": "generation", "config": {"prompt": "prompt", "completion": "chosen"}}
_BITS = ("bits-per-byte", "perplexity")
_WRITTEN = {"epochs": 3, "max_tokens": 256}
SETS = {
    "sst2": Set(sst2, _LABELS, ("accuracy", "f1"), _ACCURACY, {"epochs": 3, "max_tokens": 64}),
    "clinc150": Set(clinc150, _LABELS, ("accuracy", "f1"), _ACCURACY, {"epochs": 10, "max_tokens": 48}),
    **{
        f"emobank-{one.lower()}": Set(emobank(one), _NUMBERS, _SPEARMAN, _SPEARMAN, {"epochs": 4, "max_tokens": 64})
        for one in ("V", "A", "D")
    },
    "xquad": Set(
        xquad,
        {"name": "question-answering", "config": {}},
        ("squad",),
        ("squad_f1", "squad_exact_match"),
        {"epochs": 4, "max_tokens": 256},
    ),
    "shakespeare": Set(shakespeare, _PLAIN, _BITS, ("bits_per_byte", "perplexity"), _WRITTEN, decoder=True),
    "dpo": Set(
        dpo,
        _PAIRS,
        ("preference-accuracy", "bits-per-byte"),
        ("preference_accuracy", "bits_per_byte"),
        {"epochs": 4, "max_tokens": 256},
        decoder=True,
        ways=("full", "lora", "dpo-full", "dpo-lora", "dpo-bottleneck"),
    ),
    "kto": Set(
        kto,
        _THUMBS,
        _BITS,
        ("bits_per_byte", "perplexity"),
        {"epochs": 4, "max_tokens": 256},
        decoder=True,
        ways=("full", "lora", "kto-full", "kto-lora", "kto-bottleneck"),
    ),
    "gsm8k": Set(gsm8k, _ASKED, _BITS, ("bits_per_byte", "perplexity"), _WRITTEN, decoder=True),
}

PEFT = (
    *("lora", "adalora", "loha", "lokr", "vera"),
    *("prompt-tuning", "prefix-tuning", "p-tuning"),
    *("bottleneck", "ia3", "bitfit", "ln-tuning"),
)
LEARNERS: dict[str, Mapping[str, str]] = {"dpo": {"rejected": "rejected"}, "kto": {}}
_DECODER = {"family": "llama", "layers": 4, "hidden_size": 192, "heads": 4, "vocabulary_size": 2000}


def candidate(way: str, chosen: Set) -> dict[str, Any]:
    """Returns a way of building the model as a spec says it."""
    training = dict(chosen.training)
    way, _, control = way.partition("+")
    if control:
        return candidate(way, chosen) | {"controls": [control]}
    learner, _, rest = way.partition("-")
    if learner in LEARNERS:
        return candidate(rest, chosen) | {"learner": {"name": learner, "config": LEARNERS[learner]}}
    if way == "scratch":
        config = _DECODER if chosen.decoder else {"layers": 2, "hidden_size": 128}
        return {
            "strategy": {"name": "from-scratch", "config": config},
            "training": training if chosen.decoder else training | {"epochs": 2 * training["epochs"]},
        }
    base: Any = {"from": "pre"} if chosen.decoder else "minilm"
    if way == "full":
        rate = {"learning_rate": 5.0e-4} if chosen.decoder else {"learning_rate": 1.0e-4}
        return {"strategy": "full-finetune", "base": base, "training": training | rate}
    return {"strategy": "peft", "base": base, "peft": way, "training": training}


def document(chosen: Set, ways: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Returns the whole spec."""
    candidates = {way.replace("+", "-"): candidate(way, chosen) for way in ways}
    data: dict[str, Any] = {"rows": _source("rows.jsonl", split=True)}
    if chosen.decoder:
        data["web"] = _source("web.jsonl", split=False)
        candidates["pre"] = {  # a decoder of other texts, which the others but `scratch` start from
            "strategy": {"name": "from-scratch", "config": _DECODER},
            "data": "web",
            "task": {"name": "generation", "config": {"text": "text"}},
            "learner": "causal",
            "competes": False,
            "training": {"epochs": 10, "max_tokens": 256},
        }
        for way in ways:
            candidates[way.replace("+", "-")]["data"] = "rows"
    for one in candidates.values():
        one["training"]["seed"] = seed
    return {
        "name": "ways",
        "objective": {"task": dict(chosen.task), "metric": chosen.values[0]},
        "data": data,
        "candidates": candidates,
        "evaluate": {"metrics": list(chosen.metrics)},
    }


def _source(name: str, *, split: bool) -> dict[str, Any]:
    by: dict[str, Any] = {"by": "column", "column": "part"} if split else {"by": "hash", "test": 0, "validation": 0.1}
    return {"sources": [{"name": "files", "config": {"paths": [name]}}], "split": by}


def write(chosen: Set, ways: Sequence[str], *, data: Path, folder: Path, seed: int) -> Path:
    """Writes the rows with the part that each belongs to, and the spec."""
    learned, held_out = chosen.read(data)
    parts = [(learned, "train"), (held_out[:1], "test"), (held_out, "validation")]  # test is never opened here
    lines = [json.dumps({**row, "part": part}) for rows, part in parts for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if chosen.decoder:
        texts = (data / "c4_demo" / "c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
        (folder / "web.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    spec = folder / "ways.yaml"
    spec.write_text(yaml.safe_dump(document(chosen, ways, seed=seed), sort_keys=False), encoding="utf-8")
    return spec


def main() -> None:
    """Runs the pipeline once per seed, without opening the test split, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", metavar="WAY", help=f"scratch, full, {', '.join(PEFT)}; or LEARNER-WAY")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--home", type=Path, help="where runs are kept, so that a further run goes on")
    arguments = parser.parse_args()
    chosen = SETS[arguments.set]
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="espalier-ways-") as scratch:
        folder = arguments.home or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(arguments.seeds):
            spec = write(chosen, arguments.ways or chosen.ways, data=arguments.data, folder=folder, seed=seed)
            result = run(spec, only="evaluate", view=QuietView()).document()
            for one in [*result["candidates"], *(result["baselines"] if seed == 0 else ())]:
                if one["validation"]:
                    found.setdefault(one["name"], []).append(one)
                    values = ", ".join(f"{name} {one['validation'][name]['value']:.3f}" for name in chosen.values)
                    print(f"seed {seed}  {one['name']}  {values}", file=sys.stderr, flush=True)
    print(table(found, chosen.values))


def table(found: Mapping[str, Sequence[Row]], values: Sequence[str]) -> str:
    """Returns what was measured in Markdown."""
    lines = ["| way | " + " | ".join(values) + " | training | peak memory | trained weights |"]
    lines.append("|---" * (len(values) + 4) + "|")
    for name, runs in found.items():
        cells = [_value([one["validation"][value] for one in runs]) for value in values]
        seconds = statistics.mean(one["train_seconds"] or 0 for one in runs)
        memory = max(one.get("peak_memory_bytes") or 0 for one in runs)
        trained = runs[0].get("trainable_parameters") or 0
        cells += [f"{seconds:.0f} s", f"{memory / 2**30:.2f} GiB" if memory else "", f"{trained:,}" if trained else ""]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _value(measured: Sequence[Mapping[str, Any]]) -> str:
    if len(measured) == 1:
        one = measured[0]
        return f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
    values = [one["value"] for one in measured]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
