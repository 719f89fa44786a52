"""Starting: `new` copies a working example, `init` writes a commented spec inferred from the user's own files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from espalier_runtime.store import disk_error
from espalier_sdk.errors import SpecError

from espalier_pipeline.inference import Guess, guess
from espalier_pipeline.packed import packed_folder
from espalier_pipeline.reading import check

EXAMPLES = {"classification": "support-triage"}
_MANY_CLASSES = 20
_LEFT_OUT = shutil.ignore_patterns(".espalier", "__pycache__", "demo.py", "questions.jsonl")


def new_example(folder: Path, task: str) -> Path:
    """Copies the example of a task into a new or empty folder and returns its spec."""
    if task not in EXAMPLES:
        raise SpecError(f"there is no example for task {task!r}", given=task, accepted=", ".join(EXAMPLES))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpecError("is not empty", file=str(folder), remedy="give a new folder")
    source = packed_folder("_examples", "examples") / EXAMPLES[task]
    try:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=_LEFT_OUT)
    except OSError as error:  # shutil.Error, a list of what was not copied, is one too
        raise disk_error(error, str(folder)) from error
    return folder / f"{EXAMPLES[task]}.yaml"


def infer_spec(data: Sequence[Path], out: Path, *, text: str | None = None, target: str | None = None) -> list[str]:
    """Writes a spec for classification and returns in words what was found; nothing is overwritten."""
    if out.exists():
        raise SpecError("is there already", file=str(out), remedy="remove it, or give another --out")
    found = guess(data, text=text, target=target)
    _write(_spec(found, data, out), out)
    told = [
        f"read             {found.rows} rows, columns {', '.join(found.facts)}",
        f"text             {found.text}, {found.facts[found.text].mean_characters:.0f} characters on average",
        f"target           {found.target}, {found.classes}: {_classes(found)}",
    ]
    if found.group:
        told.append(f"group            {found.group}: its rows stay on one side of the split")
    return told + [f"note             {note}" for note in found.notes]


def _write(text: str, out: Path) -> None:
    """Writes a spec that `check` accepts, or nothing: names and labels of strangers' files stand in it."""
    part = out.with_name(f".{out.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        check(part)
        part.replace(out)
    except OSError as error:
        raise disk_error(error, str(out)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _spec(found: Guess, data: Sequence[Path], out: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", data[0].name.split(".")[0].lower()).strip("-")[:40] or "data"
    folder = out.resolve().parent
    config = {"paths": [os.path.relpath(path.resolve(), folder) for path in data], **found.options}
    group = f", group: {_scalar(found.group)}" if found.group else ""
    tokens = _tokens(found)
    many, many_classes = found.rows >= 3000, found.facts[found.target].distinct > _MANY_CLASSES
    # Few examples need more steps and higher rates to move at all (tried on the support-triage example); a head of many
    # classes needs a rate of its own (tried on clinc150).
    batch = 16 if many else 8
    full_rate, lora_rate = ("1.0e-4", "1.0e-3") if many or many_classes else ("2.0e-4", "4.0e-3")
    control = "    controls: [head-rate]           # the head of many classes learns ten times as fast\n"
    controls = control if many_classes else ""
    epochs = _epochs(found, least=2 if many else 4)
    return f"""\
# Written by `espalier init` from {", ".join(_one_line(path.name) for path in data)}. Every line may be changed.
# Try:  espalier check {out.name},  espalier plan {out.name},  espalier run {out.name}
name: {name}

objective:
  # {found.classes}: {_classes(found)}
  task: {{name: classification, config: {{text: {_scalar(found.text)}, target: {_scalar(found.target)}}}}}
  metric: macro_f1                  # every class counts alike, however rare it is
  # at_least: 0.85                  # below this, `espalier run` ends with exit code 6

data:
  {name}:
    sources:
      - {{name: files, config: {json.dumps(config, ensure_ascii=False)}}}
    transforms:
      - clean                       # broken Unicode repaired, tags and control characters out
      - anonymize                   # mails, phone numbers, cards, IBANs, addresses of machines and pages
      - {{name: deduplicate, config: {{columns: [{_scalar(found.text)}]}}}}
    split: {{by: hash, test: 0.2, validation: 0.1{group}}}

candidates:
  scratch:                          # own tokenizer, own small encoder, random weights
    strategy: {{name: from-scratch, config: {{layers: 2, hidden_size: 128, vocabulary_size: 8000}}}}
    training: {{epochs: {2 * epochs}, batch_size: {batch}, max_tokens: {tokens}}}
  full:                             # every weight of a pre-trained encoder
    strategy: full-finetune
    base: minilm
{controls}    training: {{epochs: {epochs}, batch_size: {batch}, learning_rate: {full_rate}, max_tokens: {tokens}}}
  lora:                             # the encoder stays as it is; low-rank updates and the head are trained
    strategy: peft
    base: minilm
    peft: {{name: lora, config: {{rank: 8}}}}
{controls}    training: {{epochs: {epochs}, batch_size: {batch}, learning_rate: {lora_rate}, max_tokens: {tokens}}}

serve:
  endpoint: {name}
  bootstrap: chosen                 # the first champion; an endpoint that has one keeps it
  challenger: runner-up             # tried against it
  weights: [50, 50]
  coverage: 1.0
"""


def _epochs(found: Guess, *, least: int) -> int:
    """Returns how often the examples are seen: a head of many classes learns slowly."""
    return max(least, min(10, math.ceil(found.facts[found.target].distinct / 25)))


def _tokens(found: Guess) -> int:
    """Returns a length that holds 95 % of the texts: about four characters make a token."""
    wanted = found.facts[found.text].long_characters / 4 + 8
    return next((size for size in (32, 48, 64, 96, 128, 192) if size >= wanted), 256)


def _classes(found: Guess) -> str:
    values = found.facts[found.target].values
    shown = ", ".join(f"{_one_line(value)} ({number})" for value, number in values[:8])
    return shown + (f" and {found.facts[found.target].distinct - 8} more" if len(values) > 8 else "")


def _one_line(text: str) -> str:
    """Returns a text that a comment can hold: a label or a file's name may have line breaks and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:60]


def _scalar(text: str | None) -> str:
    plain = text is not None and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ -]*", text)
    return (
        str(text)
        if plain and str(text).lower() not in ("true", "false", "null")
        else json.dumps(text, ensure_ascii=False)
    )
