"""The whole loop on one machine: build three models, compare them, serve the best two, ask, and send feedback.

`make run` runs it. Everything goes through the `espalier` command and the endpoint's HTTP routes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from espalier_pipeline.client import Client
from espalier_pipeline.commands.printing import DRIVEN_VARIABLE
from espalier_runtime.parent import PARENT_VARIABLE
from espalier_sdk.errors import EspalierError

HERE = Path(__file__).resolve().parent
SPEC = HERE / "support-triage.yaml"
ESPALIER = [sys.executable, "-m", "espalier_pipeline.command"]
READY_SECONDS = 120.0


def main() -> int:
    """Runs the demo and returns the exit code of the part that failed, or 0."""
    started = time.monotonic()
    code = built_with_code()
    if code not in (0, 6):  # 6: the objective was missed, which is a result
        return code
    built = time.monotonic()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(free_port()))
        experiment = wait_for_experiment(server)
        ready = time.monotonic()
        answers = ask_all(Client.find(HERE / ".espalier"), questions())
        asked = time.monotonic()
        print_split(answers, experiment)
    ended = time.monotonic()
    print(
        f"\nseconds          {built - started:.0f} built, {ready - built:.0f} endpoint up, {asked - ready:.0f} asked, "
        f"{ended - asked:.0f} shut down, {ended - started:.0f} in all"
    )
    print_next()
    return 0


def built_with_code() -> int:
    """Runs the pipeline and returns its exit code; after Ctrl-C, which it hears too, it is given time to say so."""
    child = start("run", str(SPEC))
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.wait(timeout=60)
        raise


def start(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Starts an `espalier` command that ends with this process, also by `kill -9`: it watches its standard input."""
    watched = {**os.environ, PARENT_VARIABLE: "1", DRIVEN_VARIABLE: "1"}
    return subprocess.Popen([*ESPALIER, *words], stdin=subprocess.PIPE, env=watched, **options)


def questions() -> list[dict[str, str]]:
    """Reads the hundred questions, each with its unit and its true queue."""
    lines = (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


@contextlib.contextmanager
def serving(port: int) -> Any:
    """Starts `espalier serve` and stops it at the end, whatever happens between."""
    log = HERE / ".espalier" / "serve.log"
    with log.open("w", encoding="utf-8") as file:
        child = start("serve", str(SPEC), "--port", str(port), stdout=file, stderr=file, start_new_session=True)
    print(f"\nserving          http://127.0.0.1:{port}", flush=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=60)
        if child.poll() is None:
            child.kill()


def wait_for_experiment(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Waits until the endpoint answers and its experiment is in force; returns the experiment."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(EspalierError):
            client = Client.find(HERE / ".espalier")
            if client.assignment("support", "anybody")["assignment"] == "enrolled":
                return client.experiment("support")
        time.sleep(0.3)
    tail = (HERE / ".espalier" / "serve.log").read_text(encoding="utf-8").splitlines()[-15:]
    raise SystemExit("\n".join(["the endpoint did not come up; the end of its log:", *tail]))


def ask_all(client: Client, asked: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Asks every question for its unit, and sends whether the answer was right as feedback."""
    answers = []
    for question in asked:
        answer = client.ask("support", question["message"], unit=question["unit"])
        label = answer["predictions"][0]["label"]
        headers = answer["headers"]
        answers.append(
            {
                "unit": question["unit"],
                "request_id": answer["id"],
                "variant": headers["x-espalier-variant"],
                "assignment": headers["x-espalier-assignment"],
                "overhead_ms": float(headers["x-espalier-overhead-ms"]),
                "right": label == question["queue"],
            }
        )
    items = [
        {
            "request_id": one["request_id"],
            "metric": "right_queue",
            "value": float(one["right"]),
            "key": one["request_id"],
        }
        for one in answers
    ]
    statuses = Counter(item["status"] for item in client.feedback(items))
    told = ", ".join(f"{number} {status}" for status, number in statuses.items())
    units = {one["unit"] for one in answers}
    print(f"asked            {len(answers)} questions from {len(units)} units; feedback: {told}")
    return answers


def print_split(answers: list[dict[str, Any]], experiment: dict[str, Any]) -> None:
    """Prints which variant answered whom, and how often it was right."""
    units: dict[str, set[str]] = defaultdict(set)
    by_variant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in answers:
        units[one["unit"]].add(one["variant"])
        by_variant[one["variant"]].append(one)
    print(f"experiment       {experiment['id']}, weights {experiment['weights'][0]}:{experiment['weights'][1]}")
    for variant, group in sorted(by_variant.items()):
        right = sum(one["right"] for one in group) / len(group)
        people = len({one["unit"] for one in group})
        print(f"  {variant:<14} {len(group):>3} answers to {people} units, {right:.0%} right per answer")
    moved = sum(len(variants) > 1 for variants in units.values())
    overhead = sorted(one["overhead_ms"] for one in answers)
    print(f"sticky           {len(units) - moved} of {len(units)} units kept their variant")
    print(f"overhead         {overhead[len(overhead) // 2]:.1f} ms per answer beside the model's own time (median)")


def free_port() -> int:
    """Returns 8000 where it is free, else a port that is."""
    for port in (8000, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("no free port")


def print_next() -> None:
    """Prints what to try next."""
    spec, command = os.path.relpath(SPEC), os.path.relpath(Path(sys.executable).with_name("espalier"))
    print(f"next             {command} serve {spec}")
    home = f"{os.path.relpath(HERE)}/.espalier"
    print("                 and while it runs, in another terminal:")
    print(f"                 {command} ask support 'my parcel never came' --unit me --home {home}")
    print("                 or with data of your own:")
    print(f"                 {command} init YOUR_FILE.csv")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; `make run` goes on where it was", file=sys.stderr)
        sys.exit(130)
