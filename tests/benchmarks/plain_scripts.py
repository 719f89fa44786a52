"""Quality of Espalier's candidates beside that of bare scripts: the same base, rows, steps and rates, in one run.

    python tests/benchmarks/plain_scripts.py --data FOLDER [--sets sst2 emobank-v xquad] [--ways full lora] [--seeds 3]

FOLDER holds the data sets, as for `ways.py`, whose candidates are trained. A bare script is what a user writes from the
libraries' own documentation: transformers' Trainer, PEFT's LoRA, float32, padding to the longest of a batch, batches
drawn by chance. Prints a table in Markdown: mean and standard deviation over seeds, and the mean difference of
a seed's two runs with its standard error.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from espalier_metrics.squad import score
from espalier_pipeline import run
from espalier_pipeline.view import QuietView
from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice
from placement import difference, spread
from ways import SETS, Row, Set, write

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer

RATES = {"full": 1.0e-4, "lora": 1.0e-3}
STRIDE, LONGEST_ANSWER = 64, 30
KINDS = {"classification": "SEQ_CLS", "regression": "SEQ_CLS", "question-answering": "QUESTION_ANS"}


def main() -> None:
    """Trains and measures both, set by set and seed by seed, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    comparable = [name for name, one in SETS.items() if one.task["name"] in KINDS]
    parser.add_argument("--sets", nargs="+", default=["sst2", "emobank-v", "xquad"], choices=comparable, metavar="SET")
    parser.add_argument("--ways", nargs="+", default=list(RATES), choices=RATES, metavar="WAY")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--home", type=Path, help="where Espalier's runs are kept, so that a further run goes on")
    arguments = parser.parse_args()
    lines = [
        "| set | value | way | Espalier | bare script | difference | training, Espalier | training, bare script |",
        "|---" * 8 + "|",
    ]
    with tempfile.TemporaryDirectory(prefix="espalier-plain-") as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        bundled = Plugins().load("espalier.base_models", Choice(name="minilm"))
        bundled.fetch(bundled.revision(), base)
        for name in arguments.sets:
            folder = (arguments.home or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            lines += measure(name, arguments, base=base, folder=folder)
    print("\n".join(lines))


def measure(name: str, arguments: argparse.Namespace, *, base: Path, folder: Path) -> list[str]:
    """Trains every way with every seed, and returns the lines of the table."""
    chosen, value = SETS[name], SETS[name].values[0]
    learned, held_out = chosen.read(arguments.data)
    found = defaultdict[tuple[str, str], list[tuple[float, float]]](list)  # by way and who: quality, seconds
    for seed in range(arguments.seeds):
        spec = write(chosen, arguments.ways, data=arguments.data, folder=folder, seed=seed)
        document = run(spec, only="evaluate", view=QuietView()).document()
        for one in document["candidates"]:
            found[one["name"], "espalier"].append((one["validation"][value]["value"], one["train_seconds"]))
        for way in arguments.ways:
            found[way, "bare"].append(bare(chosen, way, base=base, learned=learned, held_out=held_out, seed=seed))
            told = ", ".join(f"{who} {found[way, who][-1][0]:.3f}" for who in ("espalier", "bare"))
            print(f"{name} seed {seed}  {way}  {told}", file=sys.stderr, flush=True)
    lines = []
    for way in arguments.ways:
        ours, theirs = ([one[0] for one in found[way, who]] for who in ("espalier", "bare"))
        differences = [mine - other for mine, other in zip(ours, theirs, strict=True)]
        seconds = [statistics.mean(one[1] for one in found[way, who]) for who in ("espalier", "bare")]
        cells = [name, value, f"`{way}`", spread(ours), spread(theirs), difference(differences)]
        lines.append(f"| {' | '.join([*cells, *(f'{one:.0f} s' for one in seconds)])} |")
    return lines


def bare(
    chosen: Set, way: str, *, base: Path, learned: Sequence[Row], held_out: Sequence[Row], seed: int
) -> tuple[float, float]:
    """Trains as a bare script does; returns the metric on the rows held out, and the seconds of training."""
    import torch
    from transformers import AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    work = WORK[chosen.task["name"]](learned, tokenizer, chosen.training["max_tokens"])
    model = work.model(base)
    if way == "lora":
        from peft import LoraConfig, get_peft_model

        targets = ["query", "key", "value", "attention.output.dense"]
        kind = KINDS[chosen.task["name"]]
        model = get_peft_model(
            model, LoraConfig(task_type=kind, r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets)
        )
    examples = work.encode(learned)
    epochs = chosen.training["epochs"]
    with tempfile.TemporaryDirectory(prefix="espalier-bare-") as out:
        settings = TrainingArguments(
            output_dir=out,
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            learning_rate=RATES[way],
            weight_decay=0.01,
            warmup_steps=epochs * -(-len(examples) // 16) // 10,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )

        def collate(some: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            return dict(tokenizer.pad(some, return_tensors="pt"))

        trainer = Trainer(model=model, args=settings, train_dataset=examples, data_collator=collate)
        begun = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - begun

    def outputs(some: Sequence[Mapping[str, Any]]) -> list[tuple[np.ndarray, ...]]:
        model.eval()
        rows: list[tuple[np.ndarray, ...]] = []
        with torch.no_grad():
            for first in range(0, len(some), 16):
                batch = tokenizer.pad(list(some[first : first + 16]), return_tensors="pt")
                made = model(**batch).to_tuple()
                rows += [tuple(part[place].float().numpy() for part in made) for place in range(len(made[0]))]
        return rows

    return work.quality(held_out, outputs), seconds


class Labels:
    """Classification with Trainer: accuracy."""

    def __init__(self, learned: Sequence[Row], tokenizer: Tokenizer, max_tokens: int) -> None:
        self._labels = sorted({row["label"] for row in learned})
        self._tokenizer, self._longest = tokenizer, max_tokens

    def model(self, base: Path) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(self._labels))

    def encode(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [{**self._inputs(row), "labels": self._labels.index(row["label"])} for row in rows]

    def quality(self, rows: Sequence[Row], outputs: Any) -> float:
        found = outputs([self._inputs(row) for row in rows])
        right = [self._labels[int(one[0].argmax())] == row["label"] for one, row in zip(found, rows, strict=True)]
        return statistics.mean(right)

    def _inputs(self, row: Row) -> dict[str, Any]:
        return dict(self._tokenizer(row["text"], truncation=True, max_length=self._longest))


class Numbers:
    """Regression with Trainer, the target scaled to mean 0 and deviation 1: Spearman's correlation."""

    def __init__(self, learned: Sequence[Row], tokenizer: Tokenizer, max_tokens: int) -> None:
        values = [row["value"] for row in learned]
        self._mean, self._deviation = statistics.mean(values), statistics.stdev(values)
        self._tokenizer, self._longest = tokenizer, max_tokens

    def model(self, base: Path) -> Any:
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)

    def encode(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        scaled = [(row["value"] - self._mean) / self._deviation for row in rows]
        return [{**self._inputs(row), "labels": value} for row, value in zip(rows, scaled, strict=True)]

    def quality(self, rows: Sequence[Row], outputs: Any) -> float:
        from scipy.stats import spearmanr

        found = outputs([self._inputs(row) for row in rows])
        return float(spearmanr([one[0].item() for one in found], [row["value"] for row in rows]).statistic)

    def _inputs(self, row: Row) -> dict[str, Any]:
        return dict(self._tokenizer(row["text"], truncation=True, max_length=self._longest))


class Answers:
    """Extractive question answering with Trainer, windows as in transformers' course: F1 of SQuAD."""

    def __init__(self, learned: Sequence[Row], tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._longest = tokenizer, max_tokens

    def model(self, base: Path) -> Any:
        from transformers import AutoModelForQuestionAnswering

        return AutoModelForQuestionAnswering.from_pretrained(base)

    def encode(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        examples = []
        for row in rows:
            answer = row["answers"][0]
            begin, end = answer["start"], answer["start"] + len(answer["text"])
            for inputs, places in self._windows(row):
                inside = [index for index, (left, right) in places.items() if left < end and right > begin]
                whole = inside and places[inside[0]][0] <= begin and places[inside[-1]][1] >= end
                start, stop = (inside[0], inside[-1]) if whole else (0, 0)
                examples.append({**inputs, "start_positions": start, "end_positions": stop})
        return examples

    def quality(self, rows: Sequence[Row], outputs: Any) -> float:
        scores = []
        for row in rows:
            windows = self._windows(row)
            best, answer = -np.inf, ""
            for (start, end), (_, places) in zip(outputs([one for one, _ in windows]), windows, strict=True):
                for left in places:
                    for right in range(left, min(left + LONGEST_ANSWER, max(places) + 1)):
                        if start[left] + end[right] > best:
                            best = start[left] + end[right]
                            answer = row["context"][places[left][0] : places[right][1]]
            scores.append(score(tuple(one["text"] for one in row["answers"]), answer)[1])
        return statistics.mean(scores)

    def _windows(self, row: Row) -> list[tuple[dict[str, Any], dict[int, tuple[int, int]]]]:
        """Returns inputs and the characters of each token of the context, window by window."""
        made = self._tokenizer(
            row["question"],
            row["context"],
            truncation="only_second",
            max_length=self._longest,
            stride=STRIDE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows = []
        for index in range(len(made["input_ids"])):
            places = {
                place: made["offset_mapping"][index][place]
                for place, part in enumerate(made.sequence_ids(index))
                if part == 1
            }
            names = ("input_ids", "token_type_ids", "attention_mask")
            windows.append(({name: made[name][index] for name in names}, places))
        return windows


WORK: Mapping[str, Any] = {"classification": Labels, "regression": Numbers, "question-answering": Answers}


if __name__ == "__main__":
    main()
