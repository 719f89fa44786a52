"""The client against a server of the endpoint's shapes, through httpx's own transport."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from espalier_pipeline.client import Client
from espalier_pipeline.command import run
from espalier_sdk.errors import ClusterError, DataError, Refused, SpecError


def client_of(handler) -> Client:
    return Client("http://endpoint", "esk_1_2", http=httpx.Client(transport=httpx.MockTransport(handler)))


def test_a_question_carries_key_and_unit_and_the_answer_its_headers() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "r1", "predictions": []}, headers={"x-espalier-variant": "a"})

    told = client_of(answer).ask("support", "where is it", unit="u1")
    assert seen[0].headers["authorization"] == "Bearer esk_1_2"
    assert json.loads(seen[0].content) == {"model": "support", "input": "where is it", "user": "u1"}
    assert told["headers"]["x-espalier-variant"] == "a"


def test_a_unit_outside_ascii_is_asked_for_as_it_is() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "r1", "predictions": []})

    client_of(answer).ask("support", "where is it", unit="josé")
    assert json.loads(seen[0].content)["user"] == "josé"


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
        ("https://ai.example", True),
    ],
)
def test_a_proxy_of_the_environment_is_not_asked_for_loopback(url: str, trusted: bool) -> None:
    assert Client(url, "esk_1_2")._http.trust_env == trusted


@pytest.mark.parametrize(
    ("status", "family"), [(400, SpecError), (404, SpecError), (409, Refused), (412, Refused), (503, ClusterError)]
)
def test_an_error_answer_becomes_the_family_of_its_status(status: int, family: type) -> None:
    body = {"error": {"message": "no such endpoint", "code": "unknown", "param": "model"}}
    with pytest.raises(family, match=r"^model: no such endpoint$"):
        client_of(lambda request: httpx.Response(status, json=body)).ask("x", "y")


def test_a_server_that_is_not_there_is_named_with_the_remedy() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ClusterError, match=r"http://endpoint does not answer.*espalier serve"):
        client_of(refuse).endpoints()


def test_without_a_server_here_the_file_that_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    for name in ("ESPALIER_URL", "ESPALIER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClusterError, match=r"endpoint\.json.*no endpoint is known"):
        Client.find(tmp_path)


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"url": "x"}', b"{", b"\xff"])
def test_a_file_without_address_or_key_is_named(tmp_path: Path, monkeypatch, content: bytes) -> None:
    for name in ("ESPALIER_URL", "ESPALIER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "endpoint.json").write_bytes(content)
    with pytest.raises(ClusterError, match=r"endpoint\.json.*no endpoint is known"):
        Client.find(tmp_path)


def test_feedback_is_sent_a_thousand_items_at_a_time_and_counted(tmp_path: Path) -> None:
    sizes: list[int] = []

    def take(request: httpx.Request) -> httpx.Response:
        items = json.loads(request.content)["items"]
        assert json.loads(request.content)["model"] == "support"
        sizes.append(len(items))
        return httpx.Response(200, json={"items": [{"status": "recorded"} for _ in items]})

    path = tmp_path / "feedback.jsonl"
    path.write_text("".join(json.dumps({"request_id": str(n), "value": 1}) + "\n" for n in range(1001)))
    assert client_of(take).feedback_file("support", path) == {"recorded": 1001}
    assert sizes == [1000, 1]


def test_a_broken_line_of_a_feedback_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"request_id": "1"}\n{broken\n')
    with pytest.raises(DataError, match=r"feedback\.jsonl:2"):
        client_of(lambda request: pytest.fail("something was sent")).feedback_file("support", path)


@pytest.mark.parametrize("content", [b"{broken", b"[1]", '{"unit": "josé"}'.encode("latin-1")])
def test_nothing_of_a_file_with_a_broken_line_is_sent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "feedback.jsonl"
    path.write_bytes(b'{"request_id": "1"}\n' * 1499 + content)
    with pytest.raises(DataError, match=r"feedback\.jsonl:1500"):
        client_of(lambda request: pytest.fail("something was sent")).feedback_file("support", path)


def test_an_action_on_an_experiment_carries_the_revision_that_was_just_read() -> None:
    actions: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/experiments":
            return httpx.Response(200, json={"data": [{"id": "e1", "endpoint": "s", "state": "draft"}]})
        if request.url.path == "/v1/endpoints/s":
            return httpx.Response(200, json={"revision": 7})
        actions.append(request)
        return httpx.Response(200, json={"id": "e1", "state": "running"})

    assert client_of(answer).start_experiment("s")["state"] == "running"
    assert actions[0].url.path == "/v1/experiments/e1/start"
    assert actions[0].headers["if-match"] == "7"


def test_revoking_a_key_says_so_as_one_document(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        return httpx.Response(204)

    monkeypatch.setattr(Client, "find", lambda home: client_of(answer))
    assert run(["keys", "revoke", "k1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "k1", "revoked": True}
    assert seen == ["DELETE /v1/keys/k1"]


def test_the_status_of_an_experiment_is_a_table_whose_means_say_that_they_are_per_unit(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"crossed": 0, "answered": 51, "not_served": 0}
    full = {
        "variant": "full",
        "units": 23,
        "requests": 51,
        **counts,
        "metrics": {"right": {"units": 20, "mean": 0.71875}},
    }
    lora = {"variant": "lora", "units": 17, "requests": 49, **counts, "metrics": {}}
    experiment = {"id": "e1", "endpoint": "s", "state": "running", "weights": [50, 50], "coverage": 1.0, "unit": "user"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/experiments":
            return httpx.Response(200, json={"data": [experiment]})
        return httpx.Response(200, json={"arms": {"control": full, "treatment": lora}})

    monkeypatch.setattr(Client, "find", lambda home: client_of(answer))
    assert run(["experiment", "status", "s"]) == 0
    printed = capsys.readouterr().out
    assert "{" not in printed
    assert "right per unit" in printed
    line = next(line for line in printed.splitlines() if line.startswith("control"))
    assert line.split() == ["control", "full", "23", "0", "51", "51", "0", "0.719", "of", "20"]
    assert run(["experiment", "status", "s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["arms"]["control"]["units"] == 23


def test_after_feedback_the_next_command_asks_the_same_home(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "find", lambda home: client_of(lambda request: httpx.Response(200, json={"items": []})))
    (tmp_path / "none.jsonl").write_text("")
    assert run(["feedback", "support", str(tmp_path / "none.jsonl"), "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"experiment status support --home {tmp_path}")


def test_a_message_that_begins_with_its_field_is_said_once() -> None:
    error = {"message": "input[0]: there is no text to read", "code": "no_text", "param": "input[0]"}
    with pytest.raises(SpecError) as raised:
        client_of(lambda request: httpx.Response(400, json={"error": error})).ask("support", " ")
    assert str(raised.value) == "input[0]: there is no text to read"


def test_an_answer_of_another_shape_tells_its_status() -> None:
    with pytest.raises(ClusterError, match="the endpoint answered 502: bad gateway"):
        client_of(lambda request: httpx.Response(502, text="bad gateway")).endpoints()


def test_an_item_that_the_endpoint_refuses_is_named_by_its_line(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        items = json.loads(request.content)["items"]
        wrong = next((at for at, item in enumerate(items) if "value" not in item), None)
        if wrong is None:
            return httpx.Response(200, json={"items": [{"status": "recorded"} for _ in items]})
        field = f"items[{wrong}].value"
        error = {"message": f"{field}: is missing", "code": "invalid_field", "param": field}
        return httpx.Response(400, json={"error": error})

    path = tmp_path / "feedback.jsonl"
    good = json.dumps({"request_id": "a", "metric": "m", "value": 1})
    path.write_text(f'{good}\n\n{{"request_id": "b", "metric": "m"}}\n')
    with pytest.raises(DataError) as raised:
        client_of(answer).feedback_file("support", path)
    assert str(raised.value) == f"{path}:3: value: is missing"
    path.write_text(f"{good}\n" * 1000 + '{"request_id": "b", "metric": "m"}\n')
    with pytest.raises(DataError, match=r"jsonl:1001: value: is missing \(the 1000 items before line 1001 were taken"):
        client_of(answer).feedback_file("support", path)
