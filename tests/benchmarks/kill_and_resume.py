"""`kill -9` of the driver and of each stage's process at random moments: what the next run finds, repeats and makes.

    python tests/benchmarks/kill_and_resume.py [--moments 3] [--victims driver train ...] [--seed 0]

Builds two small candidates once without a break, then breaks the same pipeline again and again, each in a new home.
A killed driver is followed by a second run; a killed stage is tried again by its driver. Prints a line for each and
ends with 1 where an artifact's reference differs from the unbroken run's, or where something complete was made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

SPEC = """\
name: broken
objective: {task: {name: classification, config: {text: text, target: label}}, metric: macro_f1}
data:
  mails:
    sources: [{name: files, config: {paths: [mails.csv]}}]
    transforms: [clean, {name: deduplicate, config: {columns: [text]}}]
    split: {by: hash, test: 0.25, validation: 0.25}
candidates:
  tiny:
    strategy: {name: from-scratch, config: {layers: 1, hidden_size: 32, vocabulary_size: 300}}
    training: {epochs: 2, max_tokens: 16, learning_rate: 5.0e-3}
  lora: {strategy: peft, base: minilm, peft: lora, training: {max_steps: 10, max_tokens: 16}}
evaluate: {resamples: 200}
"""
WORDS = {
    "garden": ("rose", "spade", "seeds", "soil", "hedge"),
    "money": ("invoice", "refund", "card", "charge", "bank"),
}
MODULES = {
    "ingest": "espalier_ingestion",
    "preprocess": "espalier_preprocessing",
    "base": "espalier_training",
    "train": "espalier_training",
    "evaluate": "espalier_evaluation",
}


def main() -> int:
    """Breaks the pipeline as asked and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=3, help="random moments per victim")
    parser.add_argument("--victims", nargs="+", choices=("driver", *MODULES), default=("driver", *MODULES))
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    arguments = parser.parse_args()
    chance, wrong = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory(prefix="espalier-broken-") as scratch:
        started = time.monotonic()
        expected = finish(write(Path(scratch) / "unbroken"))
        whole = time.monotonic() - started
        print(f"unbroken    {whole:.1f} s, {len(expected['stages'])} stages")
        # Of stages of one kind the first is the victim.
        seconds = {stage["stage"]: stage["seconds"] for stage in reversed(expected["stages"])}
        for victim in arguments.victims:
            for moment in range(arguments.moments):
                after = chance.uniform(0.5, whole) if victim == "driver" else chance.uniform(0.0, 0.9 * seconds[victim])
                found = broken(write(Path(scratch) / f"{victim}-{moment}"), victim, after)
                different = [] if refs(found["document"]) == refs(expected) else ["other artifacts"]
                again = [name for name, at in found["complete"].items() if found["answered"][name] != at]
                wrong += bool(different or again)
                told = ", ".join([*different, *(f"{len(again)} made again" for _ in again[:1])]) or "the same artifacts"
                print(f"{victim:<11} killed {after:4.1f} s in, {len(found['complete'])} complete: {told}", flush=True)
    return 1 if wrong else 0


def write(folder: Path) -> Path:
    """Writes spec and data into a folder of their own and returns the spec."""
    folder.mkdir()
    chance, lines = random.Random(0), ["text,label"]
    for number in range(160):
        label = ("money", "garden")[number % 2]
        lines.append(f"{' '.join(chance.choice(WORDS[label]) for _ in range(6))} {number},{label}")
    (folder / "mails.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "broken.yaml").write_text(SPEC, encoding="utf-8")
    return folder / "broken.yaml"


def begin(spec: Path) -> subprocess.Popen[bytes]:
    """Starts `espalier run`."""
    line = [sys.executable, "-m", "espalier_pipeline.command", "run", str(spec), "--json"]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finish(spec: Path, child: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
    """Waits for a run and returns its document."""
    child = child or begin(spec)
    output = child.communicate()[0]
    if child.returncode != 0:
        raise SystemExit(f"a run ended with {child.returncode}: {output.decode()[:500]}")
    document: dict[str, Any] = json.loads(output)
    return document


def broken(spec: Path, victim: str, after: float) -> dict[str, Any]:
    """Kills the victim some seconds after it began; returns what was answered then and in the end, and the document."""
    child = begin(spec)
    process = psutil.Process(child.pid) if victim == "driver" else wait_for(child, victim)
    time.sleep(after)
    below = process.children(recursive=True) if process.is_running() else []
    complete = answered(spec)
    if process.is_running():
        os.kill(process.pid, signal.SIGKILL)
    if victim == "driver":
        child.communicate()
        psutil.wait_procs(below, timeout=30)
    document = finish(spec, None if victim == "driver" else child)
    return {"complete": complete, "answered": answered(spec), "document": document}


def wait_for(child: subprocess.Popen[bytes], stage: str) -> psutil.Process:
    """Returns the process of a stage, as soon as it is there."""
    while child.poll() is None:
        for process in psutil.Process(child.pid).children():
            try:
                line = process.cmdline()
            except psutil.Error:  # gone meanwhile
                continue
            if MODULES[stage] in line and line[line.index("--stage") + 1] == stage:
                return process
        time.sleep(0.02)
    raise SystemExit(f"the run ended before {stage} began")


def answered(spec: Path) -> dict[str, int]:
    """Returns the requests that are answered, each with the moment of its answer: making it again would change that."""
    folder = spec.parent / ".espalier" / "store" / "requests"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def refs(document: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Returns the artifacts of a run by stage and name."""
    return {(stage["stage"], stage["name"]): stage["ref"] for stage in document["stages"]}


if __name__ == "__main__":
    sys.exit(main())
