"""Asks a fresh install: is the gateway ready, and does an endpoint answer, take feedback and assign?

What `helm test` runs. Only the standard library, so that it needs nothing of the image but Python.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

ENDPOINT = os.environ.get("ESPALIER_TEST_ENDPOINT", "demo")
UNIT = "helm-test"
_STEP_SECONDS = 2.0


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Returns status and body of an answer; status 0 where nothing answers."""
    request = urllib.request.Request(
        os.environ["ESPALIER_URL"] + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={
            "authorization": f"Bearer {os.environ.get('ESPALIER_ADMIN_KEY', '')}",
            "content-type": "application/json",
            "x-espalier-unit": UNIT,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            return error.code, json.loads(text)
        except ValueError:
            return error.code, {"text": text}
    except OSError as error:
        return 0, {"text": str(error)}


def until_200(method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float) -> dict[str, Any]:
    """Asks until the answer is 200: a Service, a gateway and a variant each take a while to be there."""
    deadline = time.monotonic() + seconds
    while True:
        status, answer = ask(method, path, body)
        if status == 200:
            return answer
        if time.monotonic() > deadline:
            sys.exit(f"FAIL {method} {path}: status {status} after {seconds:g} s: {answer}")
        time.sleep(_STEP_SECONDS)


def main() -> None:
    """Prints what was asked and answered; ends with a sentence and status 1 where something is wrong."""
    seconds = float(os.environ.get("ESPALIER_TEST_SECONDS", "300"))
    until_200("GET", "/health/ready", seconds=seconds)
    print("ok   the gateway is ready")
    if not os.environ.get("ESPALIER_ADMIN_KEY"):
        print("ok   without demo.enabled there is nothing to ask")
        return
    question = {"model": ENDPOINT, "input": "I was charged twice for one order"}
    answer = until_200("POST", "/v1/classify", question, seconds=seconds)
    prediction = answer["predictions"][0]
    print(f"ok   {ENDPOINT} answers {prediction['label']} ({prediction['score']:.2f})")
    outcome = {"request_id": answer["id"], "metric": "helpful", "value": 1, "key": answer["id"]}
    recorded = until_200("POST", "/v1/feedback", {"model": ENDPOINT, "items": [outcome]}, seconds=30)
    if recorded["items"][0]["status"] not in ("recorded", "duplicate"):
        sys.exit(f"FAIL feedback on {answer['id']}: {recorded}")
    print("ok   feedback is recorded")
    assigned = until_200("GET", f"/v1/assignments?model={ENDPOINT}&unit={UNIT}", seconds=30)
    if not assigned.get("variant"):
        sys.exit(f"FAIL the unit has no variant: {assigned}")
    print(f"ok   unit {UNIT} gets {assigned['variant']} ({assigned['assignment']})")


if __name__ == "__main__":
    main()
