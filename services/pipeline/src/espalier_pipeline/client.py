"""A client of the endpoint's routes, for `ask`, `feedback`, `experiment` and `keys`.

Finds url and key in ESPALIER_URL and ESPALIER_API_KEY, else in the file that `serve` leaves.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from espalier_sdk.errors import ClusterError, DataError, EspalierError, Refused, SpecError

from espalier_pipeline.places import Places

_TIMEOUT_SECONDS = 60.0
_ITEMS = 1000
_ONE_OBJECT = "one JSON object per line"


class Client:
    """Speaks to one endpoint server."""

    def __init__(self, url: str, key: str, *, http: httpx.Client | None = None) -> None:
        # A proxy of the environment cannot reach this machine's own loopback.
        self._http = http or httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=not _on_loopback(url))
        self._url, self._key = url.rstrip("/"), key

    @classmethod
    def find(cls, home: Path | None = None) -> Client:
        """Returns the client of the server that runs here; ClusterError where none left its address."""
        url, key = os.environ.get("ESPALIER_URL"), os.environ.get("ESPALIER_API_KEY")
        path = Places.of(home=home).endpoint_file
        if not (url and key):
            try:
                left = json.loads(path.read_text(encoding="utf-8"))
                url, key = url or left["url"], key or left["key"]
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ClusterError(
                    "no endpoint is known",
                    code="no_endpoint",
                    file=str(path),
                    remedy="start `espalier serve`, or set ESPALIER_URL and ESPALIER_API_KEY",
                ) from error
        return cls(str(url), str(key))

    def ask(self, endpoint: str, asked: Any, *, unit: str | None = None) -> dict[str, Any]:
        """Asks one question; returns the answer with its `x-espalier-*` headers under `headers`."""
        body = {"model": endpoint, "input": asked, **({"user": unit} if unit else {})}
        response = self._send("POST", "/v1/classify", json=body)
        told = {name: value for name, value in response.headers.items() if name.startswith("x-")}
        return {**response.json(), "headers": told}

    def assignment(self, endpoint: str, unit: str) -> dict[str, Any]:
        """Returns which variant a unit has; nothing is recorded."""
        found: dict[str, Any] = self._send("GET", "/v1/assignments", params={"model": endpoint, "unit": unit}).json()
        return found

    def feedback(self, items: Sequence[Mapping[str, Any]], *, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Sends up to 1,000 items; returns the status of each in order, `unknown` for those of another endpoint."""
        body = {"items": list(items), **({"model": endpoint} if endpoint else {})}
        found: list[dict[str, Any]] = self._send("POST", "/v1/feedback", json=body).json()["items"]
        return found

    def feedback_file(self, endpoint: str, path: Path) -> dict[str, int]:
        """Sends a file of JSON lines, once all of it is read; returns how many items had which status."""
        items = _items(path)
        counted: Counter[str] = Counter()
        for start in range(0, len(items), _ITEMS):
            part = items[start : start + _ITEMS]
            try:
                told = self.feedback([item for _, item in part], endpoint=endpoint)
            except SpecError as error:
                raise _of_line(error, path, [line for line, _ in part], sent=start) from error
            counted.update(item["status"] for item in told)
        return dict(counted)

    def experiment(self, endpoint: str) -> dict[str, Any]:
        """Returns the latest experiment of an endpoint; SpecError where it has none."""
        found = [one for one in self._list("/v1/experiments") if one["endpoint"] == endpoint]
        if not found:
            raise SpecError(
                f"endpoint {endpoint!r} has no experiment",
                code="no_experiment",
                given=endpoint,
                remedy="name a challenger under `serve`, run the spec, and serve it",
            )
        live = [one for one in found if one["state"] in ("running", "paused")]
        drafts = [one for one in found if one["state"] == "draft"]
        return (live or drafts or found)[-1]

    def start_experiment(self, endpoint: str) -> dict[str, Any]:
        """Starts the draft experiment of an endpoint."""
        return self._act(self.experiment(endpoint), "start")

    def stop_experiment(self, endpoint: str) -> dict[str, Any]:
        """Stops the running experiment of an endpoint."""
        return self._act(self.experiment(endpoint), "stop")

    def results(self, experiment: str) -> dict[str, Any]:
        """Returns counts and means per arm."""
        found: dict[str, Any] = self._send("GET", f"/v1/experiments/{experiment}/results").json()
        return found

    def endpoints(self) -> list[dict[str, Any]]:
        """Returns every endpoint with its variants."""
        return self._list("/v1/endpoints")

    def create_key(self, roles: Sequence[str]) -> dict[str, Any]:
        """Makes a key; only this answer holds its secret."""
        made: dict[str, Any] = self._send("POST", "/v1/keys", json={"roles": list(roles)}).json()
        return made

    def keys(self) -> list[dict[str, Any]]:
        """Returns every key without its secret."""
        return self._list("/v1/keys")

    def revoke_key(self, key: str) -> None:
        """Revokes a key."""
        self._send("DELETE", f"/v1/keys/{key}")

    def _act(self, experiment: Mapping[str, Any], action: str) -> dict[str, Any]:
        """Acts on the endpoint as it was just read; 412 where somebody changed it in between."""
        revision = self._send("GET", f"/v1/endpoints/{experiment['endpoint']}").json()["revision"]
        headers = {"if-match": str(revision)}
        response = self._send("POST", f"/v1/experiments/{experiment['id']}/{action}", headers=headers)
        acted: dict[str, Any] = response.json()
        return acted

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._send("GET", path).json()["data"]
        return found

    def _send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Response:
        sent = {"authorization": f"Bearer {self._key}", **(headers or {})}
        try:
            response = self._http.request(method, f"{self._url}{path}", headers=sent, **body)
        except httpx.HTTPError as error:
            raise ClusterError(
                f"{self._url} does not answer: {type(error).__name__}",
                code="unreachable",
                given=self._url,
                remedy="start `espalier serve`, or check ESPALIER_URL",
            ) from error
        if response.is_success:
            return response
        raise _error(response)


def _error(response: httpx.Response) -> EspalierError:
    """Returns the family's error for an answer of the endpoint's error shape."""
    try:
        told = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        message = f"the endpoint answered {response.status_code}: {response.text[:200]}"
        told = {"message": message, "code": str(response.status_code), "param": None}
    families: dict[int, type[EspalierError]] = {
        400: SpecError,
        404: SpecError,
        413: SpecError,
        409: Refused,
        412: Refused,
    }
    family = families.get(response.status_code, ClusterError)
    return family(str(told["message"]), code=told.get("code") or "endpoint", field=told.get("param"))


def _on_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _of_line(error: SpecError, path: Path, lines: Sequence[int], *, sent: int) -> EspalierError:
    """Returns what the endpoint says of `items[N]` as an error of the line that the item stands in."""
    problem = error.problems[0]
    place = re.match(r"items\[(\d+)\]\.?", problem.field or "")
    if place is None:
        return error
    line = lines[int(place[1])]
    return DataError(
        problem.message.removeprefix(f"{problem.field}: "),
        code=problem.code,
        file=str(path),
        line=line,
        field=str(problem.field)[place.end() :] or None,
        remedy=f"the {sent} items before line {lines[0]} were taken: send the rest alone" if sent else None,
    )


def _items(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Returns each item of a file with its line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError("is no UTF-8", file=str(path), line=line, remedy="save it as UTF-8") from error
    lines = enumerate(text.split("\n"), start=1)
    return [(number, _item(line, path=path, number=number)) for number, line in lines if line.strip()]


def _item(line: str, *, path: Path, number: int) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise DataError(f"is no JSON: {error}", file=str(path), line=number, remedy=_ONE_OBJECT) from error
    if not isinstance(item, dict):
        raise DataError("is no JSON object", file=str(path), line=number, remedy=_ONE_OBJECT)
    return item
