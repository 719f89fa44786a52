"""Asks an endpoint at a steady rate; prints each second how long it has, how many answers came and how many failed.

    python load.py URL MODEL INPUT REQUESTS_PER_SECOND      (the input as JSON; the key is in ESPALIER_KEY)

Runs in a pod: each request is a connection of its own, so that the Service decides which cluster answers. Ends when it
is told to. Only the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request

_ASKERS = 10


def main() -> None:
    """Asks until the process is ended."""
    url, model, asked, rate = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
    answered, failed = [0] * _ASKERS, [0] * _ASKERS

    def asker(place: int) -> None:
        due = time.monotonic()
        while True:
            request = urllib.request.Request(
                f"{url}/v1/classify",
                data=json.dumps({"model": model, "input": asked}).encode(),
                headers={
                    "authorization": f"Bearer {os.environ['ESPALIER_KEY']}",
                    "content-type": "application/json",
                    "x-espalier-unit": f"load-{place}-{answered[place] % 20}",
                },
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
                answered[place] += 1
            except OSError as error:  # also an answer that is none: HTTPError
                failed[place] += 1
                print(f"{time.strftime('%T')} {error}", flush=True)
            due = max(due + _ASKERS / rate, time.monotonic() - 1.0)  # what was missed is not made up for
            time.sleep(max(0.0, due - time.monotonic()))

    for place in range(_ASKERS):
        threading.Thread(target=asker, args=(place,), daemon=True).start()
    begun = time.monotonic()
    while True:
        time.sleep(1.0)
        seconds = time.monotonic() - begun
        print(json.dumps({"seconds": seconds, "answered": sum(answered), "failed": sum(failed)}), flush=True)


if __name__ == "__main__":
    main()
