"""Prints what the gateway adds to an answer: its own time per request, and what hop and gateway cost together.

The variant is the echo engine, so that nothing but the gateway and Serve is measured. Clients are processes of their
own on loopback; load is light and bounded in count and time. The gateway's own time begins when a request has arrived:
the way of its body from Serve's proxy is in the whole request, with and without a gateway.
Run: `python tests/benchmarks/gateway_overhead.py [--json]`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_MS = 2.0  # the p50 of the gateway's own time that a machine of two cores shall hold
WARM_UP = 50
START_SECONDS = 180
CLIENT = """
import json, sys, time, httpx
url, key, path, body, count, warm_up, seconds, interval = json.loads(sys.stdin.read())
rows, deadline = [], time.monotonic() + seconds
with httpx.Client(base_url=url, headers={"authorization": "Bearer " + key}, trust_env=False, timeout=30) as client:
    for number in range(count + warm_up):
        if time.monotonic() > deadline:
            break
        sent = dict(body, user=f"user {number % 40}") if "user" in body else body
        begun = time.perf_counter()
        response = client.post(path, json=sent)
        total = 1000 * (time.perf_counter() - begun)
        response.raise_for_status()
        if number >= warm_up:
            rows.append([total, float(response.headers.get("x-espalier-overhead-ms", "nan"))])
        time.sleep(interval)
print(json.dumps(rows))
"""


def main() -> int:
    """Measures and prints; returns 1 when the median of the gateway's own time is above the limit."""
    arguments = _parser().parse_args()
    figures = {**measure_gateway(arguments), **measure_bare(arguments)}
    figures["hop_and_gateway"] = {
        "p50_ms": round(figures["unenrolled_total"]["p50_ms"] - figures["bare_total"]["p50_ms"], 2)
    }
    met = all(figures[name]["p50_ms"] <= LIMIT_MS for name in ("unenrolled_overhead", "enrolled_overhead"))
    if arguments.json:
        print(json.dumps({**figures, "limit_ms": LIMIT_MS, "met": met}))
    else:
        _print(figures, met)
    return 0 if met else 1


def measure_gateway(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of the endpoint: requests without an experiment, then with one that writes exposures."""
    from espalier_serving.proposing import propose

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/endpoint.db"
        variants = [
            (name, f"model/{name}@{letter * 64}", {"name": "echo", "config": {"label": name}}, {"num_cpus": 0.25})
            for name, letter in (("control", "a"), ("challenger", "b"))
        ]
        split = {"weights": [50, 50], "coverage": 1.0, "unit": "user", "control": "control", "treatment": "challenger"}
        proposed = propose(
            database, endpoint="bench", task="classification", variants=variants, bootstrap="control", experiment=split
        )
        process, url, key = _serve(database, Path(folder))
        try:
            body = {"model": "bench", "input": "How do I reset my password?"}
            found |= _figures("unenrolled", _ask(arguments, url, key, "/v1/classify", body))
            _start_experiment(url, key, str(proposed["experiment"]))
            found |= _figures("enrolled", _ask(arguments, url, key, "/v1/classify", {**body, "user": "each"}))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    return found


def measure_bare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of the same echo as an application of its own, which Serve's proxy calls directly."""
    port = _free_port()
    for name, value in _environment().items():
        os.environ[name] = value
    import logging

    import ray
    from ray import serve

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(
            serve.deployment(BareEcho, ray_actor_options={"num_cpus": 0.25}).bind(), name="bare", route_prefix="/"
        )
        rows = _ask(arguments, f"http://127.0.0.1:{port}", "none", "/", {"input": "How do I reset my password?"})
    finally:
        ray.shutdown()
    return {"bare_total": _percentiles([total for total, _ in rows])}


class BareEcho:
    """The echo engine behind no gateway."""

    def __init__(self) -> None:
        from espalier_serving.echo import Echo, EchoConfig

        self._echo = Echo(EchoConfig())

    async def __call__(self, request: Any) -> Any:
        """Answers a request of Serve's proxy."""
        body = await request.json()
        return (await self._echo.answer([[body["input"]]]))[0]


def _serve(database: str, folder: Path) -> tuple[subprocess.Popen[str], str, str]:
    port = _free_port()
    command = [sys.executable, "-m", "espalier_serving", "--database", database, "--store", str(folder / "store")]
    process = subprocess.Popen(
        [*command, "--home", str(folder), "--port", str(port), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **_environment()},
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline() or "{}")
    if ready.get("event") != "ready":
        process.kill()
        raise SystemExit(f"the endpoint did not start: {ready}")
    return process, ready["url"], ready["key"]


def _start_experiment(url: str, key: str, experiment: str) -> None:
    import httpx

    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=30) as client:
        deadline = time.monotonic() + START_SECONDS
        while client.post(f"/v1/experiments/{experiment}/start", headers={"if-match": "*"}).status_code != 200:
            if time.monotonic() > deadline:
                raise SystemExit("the challenger is not ready")
            time.sleep(0.5)
    time.sleep(5)  # until the revision is in force


def _ask(arguments: argparse.Namespace, url: str, key: str, path: str, body: dict[str, Any]) -> list[list[float]]:
    task = [url, key, path, body, arguments.count, WARM_UP, arguments.seconds, arguments.interval]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(task),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=arguments.seconds + 60,
    )
    rows: list[list[float]] = json.loads(done.stdout)
    return rows


def _figures(name: str, rows: list[list[float]]) -> dict[str, Any]:
    return {
        f"{name}_overhead": _percentiles([overhead for _, overhead in rows]),
        f"{name}_total": _percentiles([total for total, _ in rows]),
    }


def _percentiles(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    at = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in (("p50", 0.5), ("p99", 0.99))
    }
    return {"p50_ms": round(at["p50"], 2), "p99_ms": round(at["p99"], 2), "requests": len(ordered)}


def _print(figures: dict[str, Any], met: bool) -> None:
    rows = [
        ("gateway overhead, no experiment", "unenrolled_overhead"),
        ("gateway overhead, enrolled (exposure on disk)", "enrolled_overhead"),
        ("whole request, no experiment", "unenrolled_total"),
        ("whole request, enrolled", "enrolled_total"),
        ("whole request, same echo without a gateway", "bare_total"),
        ("the second Serve hop and the gateway (medians)", "hop_and_gateway"),
    ]
    print(f"{'':48}{'p50':>10}{'p99':>10}")
    for title, name in rows:
        values = (f"{figures[name][p]:.2f} ms" if p in figures[name] else "" for p in ("p50_ms", "p99_ms"))
        print(f"{title:48}" + "".join(f"{value:>10}" for value in values))
    print(f"p50 of the overhead at most {LIMIT_MS:g} ms: {'met' if met else 'missed'}")


def _environment() -> dict[str, str]:
    return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "HF_HUB_OFFLINE": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="requests per measurement")
    parser.add_argument("--seconds", type=float, default=60, help="longest time per measurement")
    parser.add_argument("--interval", type=float, default=0.01, help="pause between requests, in seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


if __name__ == "__main__":
    sys.exit(main())
