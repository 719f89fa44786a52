"""The routes over HTTP, without Ray: a gateway's application over a caller with fixed answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from espalier_serving import answering
from espalier_serving.api.app import build_app
from espalier_serving.calling import VariantDied, VariantFailed, VariantTimeout, VariantUnavailable
from espalier_serving.core import Core
from espalier_serving.database import Database
from espalier_serving.deciding import Decision
from espalier_serving.meters import NoMeters
from espalier_serving.tables import Completion, Endpoint, Exposure, Revision, Unit
from espalier_serving.testing import FixedCaller, make_key, ready_endpoint
from sqlalchemy import select, update
from starlette.testclient import TestClient


@dataclass
class Stand:
    """A gateway that answers, with what is behind it."""

    client: TestClient
    core: Core
    caller: FixedCaller
    ids: dict[str, str]
    database: Database

    def classify(self, text: Any = "hello", **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        return self.client.post("/v1/classify", json={"model": "support", "input": text, **more}, headers=headers)

    def unit_of(self, variant: str) -> str:
        """Returns a unit that the experiment gives that variant."""
        for number in range(100):
            unit = f"unit {number}"
            found = self.client.get("/v1/assignments", params={"model": "support", "unit": unit}).json()
            if found["variant"] == variant:
                return unit
        raise AssertionError("no unit has that arm")

    def rows(self, table: Any) -> list[Any]:
        """Returns all rows of a table, once what was queued before has been written."""
        self.client.portal.call(self.core.writer.flushed)  # type: ignore[union-attr]
        with self.database.reading() as session:
            return list(session.scalars(select(table)))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a commit take long: on a busy machine a disk may need more than the 250 ms after which answers degrade."""
    monkeypatch.setattr(answering, "COMMIT_SECONDS", 20.0)


@pytest.fixture
def stand(url: str, database: Database) -> Iterator[Stand]:
    yield from make_stand(url, database)


def make_stand(url: str, database: Database, **options: Any) -> Iterator[Stand]:
    ids = ready_endpoint(database, url, **options)
    caller = FixedCaller({ids["a"]: "A", ids["b"]: "B"})
    core = Core(database=database, caller=caller)
    headers = {"authorization": f"Bearer {make_key(database)}"}
    with TestClient(build_app(core), headers=headers, raise_server_exceptions=False) as client:
        yield Stand(client, core, caller, ids, database)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["request_id"] == response.headers["x-request-id"]
    return error


def test_an_answer_has_the_shape_and_the_headers(stand: Stand) -> None:
    response = stand.classify(user="ann")
    assert response.status_code == 200
    assert set(response.json()) == {"id", "model", "predictions"}
    assert response.json()["id"] == response.headers["x-request-id"]
    assert response.json()["id"][14] == "7"  # the version of the UUID
    assert response.headers["x-espalier-experiment"] == stand.ids["experiment"]
    assert response.headers["x-espalier-variant"] in ("a", "b")
    assert response.headers["x-espalier-assignment"] == "enrolled"
    assert float(response.headers["x-espalier-overhead-ms"]) >= 0
    assert int(response.headers["x-espalier-revision"]) >= 1


def test_a_unit_sees_one_variant_and_both_variants_are_seen(stand: Stand) -> None:
    seen = {
        unit: {stand.classify(user=f"user {unit}").headers["x-espalier-variant"] for _ in range(3)}
        for unit in range(30)
    }
    assert all(len(variants) == 1 for variants in seen.values())
    assert {variant for variants in seen.values() for variant in variants} == {"a", "b"}


def test_the_label_comes_from_the_variant_in_the_header(stand: Stand) -> None:
    for number in range(10):
        response = stand.classify(user=f"user {number}")
        assert response.json()["predictions"][0]["label"].lower() == response.headers["x-espalier-variant"]


def test_an_array_gets_a_prediction_for_each_item(stand: Stand) -> None:
    assert len(stand.classify(["one", {"message": "two"}], user="ann").json()["predictions"]) == 2


def test_every_answer_has_its_exposure_unit_and_completion(stand: Stand) -> None:
    responses = [stand.classify(user=f"user {number % 5}") for number in range(20)]
    exposures = {row.request_id: row for row in stand.rows(Exposure)}
    completions = {row.request_id: row for row in stand.rows(Completion)}
    assert set(exposures) == set(completions) == {response.json()["id"] for response in responses}
    for response in responses:
        exposure, completion = exposures[response.json()["id"]], completions[response.json()["id"]]
        assert exposure.assigned == completion.served == stand.ids[response.headers["x-espalier-variant"]]
        assert (exposure.reason, exposure.revision) == ("enrolled", int(response.headers["x-espalier-revision"]))
        assert completion.status == 200
        assert completion.prediction == [response.json()["predictions"][0]["label"]]
    units = stand.rows(Unit)
    assert len(units) == 5
    assert not any(unit.crossed for unit in units)
    assert {unit.unit_hash for unit in units} == {row.unit_hash for row in exposures.values()}


def test_the_header_names_the_unit_before_the_fields(stand: Stand) -> None:
    a, b = stand.unit_of("a"), stand.unit_of("b")
    response = stand.classify(user=a, safety_identifier=a, headers={"x-espalier-unit": b})
    assert response.headers["x-espalier-variant"] == "b"
    assert stand.classify(user=a, safety_identifier=b).headers["x-espalier-variant"] == "b"


def test_without_a_unit_the_champion_answers_and_is_recorded_so(stand: Stand) -> None:
    response = stand.classify()
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("a", "no_unit")
    assert "x-espalier-experiment" not in response.headers
    assert [(row.reason, row.experiment, row.unit_hash) for row in stand.rows(Exposure)] == [("no_unit", None, None)]
    assert stand.rows(Unit) == []


def test_without_coverage_the_champion_answers_everybody(url: str, database: Database) -> None:
    for stand in make_stand(url, database, coverage=0.0):
        for number in range(10):
            response = stand.classify(user=f"user {number}")
            assert response.headers["x-espalier-variant"] == "a"
            assert response.headers["x-espalier-assignment"] == "unenrolled"


def test_a_conversation_stays_with_its_variant(url: str, database: Database) -> None:
    for stand in make_stand(url, database, unit="conversation"):
        headers = {"x-espalier-conversation": "c1"}
        assert len({stand.classify(str(n), headers=headers).headers["x-espalier-variant"] for n in range(5)}) == 1
        seen = {n: stand.classify(f"text {n}").headers["x-espalier-variant"] for n in range(30)}
        assert set(seen.values()) == {"a", "b"}
        assert stand.classify("text 0").headers["x-espalier-variant"] == seen[0]


def test_with_unit_request_each_request_is_drawn_anew(url: str, database: Database) -> None:
    for stand in make_stand(url, database, unit="request"):
        assert {stand.classify(user="ann").headers["x-espalier-variant"] for _ in range(30)} == {"a", "b"}


def test_assignments_tell_the_same_and_record_nothing(stand: Stand) -> None:
    unit = stand.unit_of("b")
    assert stand.rows(Exposure) == []
    found = stand.client.get("/v1/assignments", params={"model": "support", "unit": unit}).json()
    assert found == {
        "unit": unit,
        "experiment": stand.ids["experiment"],
        "variant": "b",
        "assignment": "enrolled",
        "revision": found["revision"],
    }
    assert stand.classify(user=unit).headers["x-espalier-variant"] == "b"


@pytest.mark.parametrize("error", [VariantFailed("no"), VariantUnavailable("no"), VariantTimeout("no")])
def test_when_the_challenger_fails_the_champion_answers_and_both_are_recorded(stand: Stand, error: Any) -> None:
    stand.caller.errors[stand.ids["b"]] = [error]
    response = stand.classify(user=stand.unit_of("b"))
    assert response.status_code == 200
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("a", "fallback")
    assert [row.assigned for row in stand.rows(Exposure)] == [stand.ids["b"]]
    finish = f"fallback:{error.code}"
    assert [(row.served, row.finish) for row in stand.rows(Completion)] == [(stand.ids["a"], finish)]
    assert stand.caller.calls == [stand.ids["b"], stand.ids["a"]]


def test_a_slow_challenger_leaves_time_for_the_champion(stand: Stand) -> None:
    set_limits(stand, timeout_seconds=0.6)
    stand.caller.delays[stand.ids["b"]] = 5.0
    begun = time.monotonic()
    response = stand.classify(user=stand.unit_of("b"))
    assert response.headers["x-espalier-assignment"] == "fallback"
    assert time.monotonic() - begun < 2.0


def test_when_a_replica_dies_the_same_variant_is_asked_once_more(stand: Stand) -> None:
    stand.caller.errors[stand.ids["b"]] = [VariantDied("gone"), None]
    response = stand.classify(user=stand.unit_of("b"))
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("b", "enrolled")
    assert stand.caller.calls == [stand.ids["b"], stand.ids["b"]]


def test_when_replicas_die_twice_the_champion_answers_and_nobody_is_drawn_again(stand: Stand) -> None:
    stand.caller.errors[stand.ids["b"]] = [VariantDied("gone")]
    response = stand.classify(user=stand.unit_of("b"))
    assert response.headers["x-espalier-assignment"] == "fallback"
    assert stand.caller.calls == [stand.ids["b"], stand.ids["b"], stand.ids["a"]]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (VariantFailed("it raised"), 502, "variant_failed"),
        (VariantUnavailable("not running"), 503, "variant_unavailable"),
        (VariantTimeout("too slow"), 504, "variant_timeout"),
    ],
)
def test_when_the_champion_fails_the_error_says_how(stand: Stand, error: Any, status: int, code: str) -> None:
    stand.caller.errors[stand.ids["a"]] = [error]
    response = stand.classify(user=stand.unit_of("a"))
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("retry-after" in response.headers) == (status == 503)
    assert [row.status for row in stand.rows(Completion)] == [status]


def test_when_both_fail_the_client_gets_the_champions_error(stand: Stand) -> None:
    stand.caller.errors = {stand.ids["a"]: [VariantFailed("a")], stand.ids["b"]: [VariantFailed("b")]}
    response = stand.classify(user=stand.unit_of("b"))
    assert (response.status_code, response.headers["x-espalier-assignment"]) == (502, "fallback")


def test_a_variant_with_all_its_places_taken_answers_429(stand: Stand) -> None:
    set_limits(stand, max_concurrency=1)
    stand.core.answering._attempts._open[stand.ids["a"]] = 1
    response = stand.classify(user=stand.unit_of("a"))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert error_of(response)["type"] == "rate_limit_error"


def test_a_busy_challenger_takes_no_place_of_the_champion(stand: Stand) -> None:
    set_limits(stand, max_concurrency=1)
    stand.core.answering._attempts._open[stand.ids["b"]] = 1
    assert stand.classify(user=stand.unit_of("b")).headers["x-espalier-assignment"] == "fallback"
    assert stand.classify(user=stand.unit_of("a")).headers["x-espalier-assignment"] == "enrolled"


def test_an_exposure_that_cannot_be_written_lets_the_champion_answer(stand: Stand) -> None:
    def refuses(rows: Any) -> None:
        raise OSError("disk full")

    b, a = stand.unit_of("b"), stand.unit_of("a")
    stand.core.writer._write = refuses  # type: ignore[method-assign]
    for unit in (a, b):
        response = stand.classify(user=unit)
        assert response.status_code == 200
        assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("a", "degraded")


def test_an_exposure_that_is_not_on_disk_in_time_lets_the_champion_answer(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "COMMIT_SECONDS", 0.25)
    write = stand.core.writer._write
    stand.core.writer._write = lambda rows: (time.sleep(0.5), write(rows))[1]  # type: ignore[method-assign]
    begun = time.monotonic()
    response = stand.classify(user=stand.unit_of("b"))
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("a", "degraded")
    assert time.monotonic() - begun > 0.2
    assert [row.finish for row in stand.rows(Completion)] == ["degraded"]


def test_a_routing_that_is_too_old_answers_from_the_champion_only(stand: Stand) -> None:
    unit = stand.unit_of("b")
    stand.client.portal.call(stand.core._tasks[0].cancel)  # type: ignore[union-attr]
    stand.core.snapshot = replace(stand.core.snapshot, read_at=stand.core.snapshot.read_at - 11)
    response = stand.classify(user=unit)
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("a", "degraded")
    assert stand.client.get("/health/ready").status_code == 503


def test_an_override_names_the_variant_and_is_no_part_of_the_experiment(stand: Stand) -> None:
    response = stand.client.post("/v1/classify", json={"model": "support/b", "input": "x", "user": "ann"})
    assert (response.headers["x-espalier-variant"], response.headers["x-espalier-assignment"]) == ("b", "override")
    assert [(row.reason, row.experiment) for row in stand.rows(Exposure)] == [("override", None)]


def test_an_override_that_fails_falls_back_to_nobody(stand: Stand) -> None:
    stand.caller.errors[stand.ids["b"]] = [VariantFailed("it raised")]
    response = stand.client.post("/v1/classify", json={"model": "support/b", "input": "x"})
    assert response.status_code == 502


def test_an_override_needs_the_role_operate(stand: Stand) -> None:
    headers = {"authorization": f"Bearer {make_key(stand.database, 'infer')}"}
    body = {"model": "support/b", "input": "x"}
    assert stand.client.post("/v1/classify", json=body, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"{", "not_json", None),
        (b"\xff\xfe", "not_json", None),
        (b"[" * 100_000, "not_json", None),
        (b"[1]", "invalid_body", None),
        (b'{"model": "support"}', "invalid_field", "input"),
        (b'{"input": "x"}', "invalid_field", "model"),
        (b'{"model": 5, "input": "x"}', "invalid_field", "model"),
        (b'{"model": "support", "input": 5}', "invalid_field", "input"),
        (b'{"model": "support", "input": null}', "invalid_field", "input"),
        (b'{"model": "support", "input": []}', "invalid_field", "input"),
        (b'{"model": "support", "input": ["x", 5]}', "invalid_field", "input[1]"),
        (b'{"model": "support", "input": "x", "user": 7}', "invalid_field", "user"),
        (b'{"model": "support", "input": "x", "temperature": 1}', "invalid_field", "temperature"),
    ],
)
def test_a_wrong_body_is_400_and_names_the_place(stand: Stand, content: bytes, code: str, param: str | None) -> None:
    response = stand.client.post("/v1/classify", content=content)
    assert response.status_code == 400
    assert (error_of(response)["code"], error_of(response)["param"]) == (code, param)
    assert error_of(response)["type"] == "invalid_request_error"
    assert stand.rows(Exposure) == []


def test_what_the_task_refuses_is_400_with_its_place(stand: Stand) -> None:
    refused: Any = {"invalid": "Field required", "item": 1, "field": "message"}
    stand.caller.invalid = {stand.ids["a"]: refused, stand.ids["b"]: refused}
    response = stand.classify(["x", {}], user="ann")
    assert response.status_code == 400
    assert error_of(response)["param"] == "input[1].message"


def test_a_body_that_is_too_long_is_413_with_and_without_a_length(stand: Stand) -> None:
    set_limits(stand, max_body_bytes=1000)
    assert stand.classify("x" * 2000).status_code == 413

    def parts() -> Iterator[bytes]:
        yield b'{"model": "support", "input": "'
        yield b"x" * 2000
        yield b'"}'

    response = stand.client.post("/v1/classify", content=parts())
    assert response.status_code == 413
    assert error_of(response)["code"] == "body_too_long"


def test_too_many_items_are_413(stand: Stand) -> None:
    set_limits(stand, max_items=3)
    assert stand.classify(["x"] * 4).status_code == 413
    assert stand.classify(["x"] * 3).status_code == 200


def test_a_unit_that_is_too_long_is_refused(stand: Stand) -> None:
    assert stand.classify(headers={"x-espalier-unit": "x" * 257}).status_code == 400


@pytest.mark.parametrize("unit", ["josé", "Ωμέγα", "ann"])
def test_a_unit_is_the_same_in_the_header_and_in_the_body(stand: Stand, unit: str) -> None:
    stand.classify(user=unit)
    stand.classify(headers={"x-espalier-unit": unit.encode()})
    assert len({row.unit_hash for row in stand.rows(Exposure)}) == 1


def test_a_header_that_is_no_utf8_is_read_as_latin_1(stand: Stand) -> None:
    stand.classify(user="josé")
    stand.classify(headers={"x-espalier-unit": "josé".encode("latin-1")})
    assert len({row.unit_hash for row in stand.rows(Exposure)}) == 1


def test_the_first_input_is_hashed_only_where_it_stands_for_the_conversation(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stand in make_stand(url, database):
        monkeypatch.setattr("espalier_serving.api.inference.conversation_of", lambda *_, **__: pytest.fail("hashed"))
        assert stand.classify(user="ann").status_code == 200


def test_an_answer_with_a_number_that_json_has_not_is_an_error(stand: Stand) -> None:
    wrong: Any = {"predictions": [{"label": "A", "score": float("nan")}]}
    stand.caller.invalid = {stand.ids["a"]: wrong, stand.ids["b"]: wrong}
    assert stand.classify(user="ann").status_code == 500


def test_a_model_that_there_is_not_is_404_with_those_there_are(stand: Stand) -> None:
    response = stand.client.post("/v1/classify", json={"model": "nope", "input": "x"})
    assert response.status_code == 404
    assert "support" in error_of(response)["message"]
    assert stand.client.post("/v1/classify", json={"model": "support/c", "input": "x"}).status_code == 404


def test_an_endpoint_without_champion_is_503(stand: Stand) -> None:
    created = stand.client.put("/v1/endpoints/empty", json={"task": "classification"})
    assert created.status_code == 200
    response = stand.client.post("/v1/classify", json={"model": "empty", "input": "x"})
    assert (response.status_code, error_of(response)["code"]) == (503, "no_champion")


@pytest.mark.parametrize(
    ("header", "code"),
    [(None, "missing_key"), ("Basic x", "missing_key"), ("Bearer ", "missing_key"), ("Bearer esk_1_2", "invalid_key")],
)
def test_without_a_valid_key_everything_is_401(stand: Stand, header: str | None, code: str) -> None:
    stand.client.headers.pop("authorization")
    headers = {"authorization": header} if header else {}
    for method, path in [
        ("POST", "/v1/classify"),
        ("GET", "/v1/models"),
        ("POST", "/v1/feedback"),
        ("GET", "/v1/keys"),
        ("GET", "/v1/endpoints"),
        ("GET", "/v1/experiments"),
        ("GET", "/v1/audit"),
    ]:
        response = stand.client.request(method, path, headers=headers)
        assert (response.status_code, error_of(response)["code"]) == (401, code), path
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("infer", {"/v1/models"}),
        ("feedback", set()),
        ("operate", {"/v1/endpoints", "/v1/experiments"}),
        ("admin", {"/v1/keys", "/v1/audit"}),
    ],
)
def test_a_role_opens_its_own_routes_only(stand: Stand, role: str, allowed: set[str]) -> None:
    headers = {"authorization": f"Bearer {make_key(stand.database, role)}"}
    for path in ("/v1/models", "/v1/endpoints", "/v1/experiments", "/v1/keys", "/v1/audit"):
        response = stand.client.get(path, headers=headers)
        assert response.status_code == (200 if path in allowed else 403), path


def test_a_key_is_made_listed_and_revoked_over_http(stand: Stand) -> None:
    made = stand.client.post("/v1/keys", json={"roles": ["infer"]})
    assert made.status_code == 201
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    assert stand.client.get("/v1/models", headers=headers).status_code == 200
    assert made.json()["key"] not in stand.client.get("/v1/keys").text
    assert stand.client.delete(f"/v1/keys/{made.json()['id']}").status_code == 204
    assert stand.client.get("/v1/models", headers=headers).status_code == 401
    assert stand.client.delete("/v1/keys/000000000000").status_code == 404
    assert stand.client.post("/v1/keys", json={"roles": ["root"]}).status_code == 400


def test_models_are_listed_as_openai_lists_them(stand: Stand) -> None:
    found = stand.client.get("/v1/models").json()
    assert found["object"] == "list"
    assert [(one["id"], one["object"]) for one in found["data"]] == [("support", "model")]


def test_endpoints_tell_their_variants_and_revision(stand: Stand) -> None:
    response = stand.client.get("/v1/endpoints/support")
    assert response.headers["etag"] == f'"{response.json()["revision"]}"'
    assert [one["name"] for one in response.json()["variants"]] == ["a", "b"]
    assert response.json()["champion"] == "a"
    assert response.json()["experiment"] == stand.ids["experiment"]
    assert stand.client.get("/v1/endpoints").json()["data"] == [response.json()]
    assert stand.client.get("/v1/endpoints/nope").status_code == 404


def test_limits_change_with_the_current_revision_only(stand: Stand) -> None:
    etag = stand.client.get("/v1/endpoints/support").headers["etag"]
    body = {"task": "classification", "limits": {"max_items": 2}}
    assert stand.client.put("/v1/endpoints/support", json=body).status_code == 412
    changed = stand.client.put("/v1/endpoints/support", json=body, headers={"if-match": etag})
    assert changed.status_code == 200
    assert changed.json()["limits"]["max_items"] == 2
    again = stand.client.put("/v1/endpoints/support", json=body, headers={"if-match": etag})
    assert (again.status_code, error_of(again)["code"]) == (412, "stale_revision")
    wrong = {"task": "classification", "limits": {"max_items": 0}}
    assert stand.client.put("/v1/endpoints/support", json=wrong, headers={"if-match": "*"}).status_code == 400


def test_a_revision_of_an_endpoint_that_there_is_not_creates_nothing(stand: Stand) -> None:
    body = {"task": "classification"}
    response = stand.client.put("/v1/endpoints/new", json=body, headers={"if-match": "7"})
    assert (response.status_code, error_of(response)["code"]) == (412, "stale_revision")
    assert stand.client.put("/v1/endpoints/new", json=body).status_code == 200


@pytest.mark.parametrize("name", ["nl\n", "Upper", "-a", "a" * 64])
def test_a_name_that_cannot_stand_in_a_header_is_400(stand: Stand, name: str) -> None:
    response = stand.client.put(f"/v1/endpoints/{quote(name)}", json={"task": "classification"})
    assert response.status_code == 400


def test_a_change_is_in_force_three_seconds_later_and_not_before(stand: Stand) -> None:
    body = {"task": "classification", "limits": {"max_items": 2}}
    stand.client.put("/v1/endpoints/support", json=body, headers={"if-match": "*"})
    assert stand.classify(["x"] * 3).status_code == 200
    with stand.database.reading() as session:
        row = session.scalars(select(Revision).order_by(Revision.revision.desc())).first()
        assert row is not None
        assert stand.core.snapshot.current("support", row.active_at).limits.max_items == 2  # type: ignore[union-attr]


def test_a_variant_is_proposed_over_http_and_refused_while_an_experiment_runs(stand: Stand) -> None:
    body = {"name": "c", "model": f"model/x@{'c' * 64}"}
    response = stand.client.post("/v1/endpoints/support/variants", json=body)
    assert (response.status_code, error_of(response)["code"]) == (409, "conflict")
    stopped = stand.client.post(f"/v1/experiments/{stand.ids['experiment']}/stop", headers={"if-match": "*"})
    assert stopped.json()["state"] == "decided"
    made = stand.client.post("/v1/endpoints/support/variants", json=body)
    assert (made.status_code, made.json()["state"], made.json()["changed"]) == (202, "proposed", True)
    assert not stand.client.post("/v1/endpoints/support/variants", json=body).json()["changed"]
    other = {**body, "model": f"model/x@{'d' * 64}"}
    assert stand.client.post("/v1/endpoints/support/variants", json=other).status_code == 409
    assert stand.client.post("/v1/endpoints/support/variants", json={"name": "e", "model": "x"}).status_code == 400
    retired = stand.client.delete("/v1/endpoints/support/variants/c", headers={"if-match": "*"})
    assert (retired.status_code, retired.json()["state"]) == (200, "retired")
    assert stand.client.delete("/v1/endpoints/support/variants/a", headers={"if-match": "*"}).status_code == 409


def test_an_experiment_is_made_started_and_stopped_over_http(url: str, database: Database) -> None:
    for stand in make_stand(url, database, running=False):
        made = stand.client.post("/v1/experiments", json={"endpoint": "support", "treatment": "b", "coverage": 0.5})
        assert made.status_code == 201
        assert (made.json()["state"], made.json()["control"]) == ("draft", "a")
        path = f"/v1/experiments/{made.json()['id']}"
        assert stand.client.post(f"{path}/start").status_code == 412
        started = stand.client.post(f"{path}/start", headers={"if-match": made.headers["etag"]})
        assert started.json()["state"] == "running"
        assert stand.client.post(f"{path}/start", headers={"if-match": "*"}).status_code == 409
        assert stand.client.get(path).json() == started.json()
        assert made.json()["id"] in [one["id"] for one in stand.client.get("/v1/experiments").json()["data"]]
        assert stand.client.post(f"{path}/stop", headers={"if-match": "*"}).json()["verdict"] == "stopped"
        assert stand.client.get("/v1/experiments/none").status_code == 404


def test_an_experiment_with_a_wrong_split_is_400(stand: Stand) -> None:
    body = {"endpoint": "support", "treatment": "b", "weights": [60, 60]}
    response = stand.client.post("/v1/experiments", json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, "weights")


def test_feedback_is_counted_per_arm_in_the_results(stand: Stand) -> None:
    for number in range(20):
        response = stand.classify(user=f"user {number}")
        value = 1.0 if response.headers["x-espalier-variant"] == "b" else 0.25
        item = {"request_id": response.json()["id"], "metric": "solved", "value": value}
        assert stand.client.post("/v1/feedback", json={"items": [item]}).json() == {"items": [{"status": "recorded"}]}
    stand.rows(Completion)
    arms = stand.client.get(f"/v1/experiments/{stand.ids['experiment']}/results").json()["arms"]
    assert arms["control"]["variant"] == "a"
    assert arms["control"]["units"] + arms["treatment"]["units"] == 20
    assert arms["control"]["requests"] == arms["control"]["answered"] == arms["control"]["units"]
    assert arms["control"]["metrics"]["solved"] == {"units": arms["control"]["units"], "mean": 0.25}
    assert arms["treatment"]["metrics"]["solved"]["mean"] == 1.0


def test_feedback_right_after_an_answer_that_nobody_waited_for_finds_it(stand: Stand) -> None:
    for _ in range(5):
        item = {"request_id": stand.classify().json()["id"], "metric": "solved", "value": 1}
        assert stand.client.post("/v1/feedback", json={"items": [item]}).json() == {"items": [{"status": "recorded"}]}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"metric": "m", "value": 1}, "items[0]"),
        ({"request_id": "r", "unit": "u", "experiment": "e", "metric": "m", "value": 1}, "items[0]"),
        ({"unit": "u", "metric": "m", "value": 1}, "items[0]"),
        ({"request_id": "r", "metric": "", "value": 1}, "items[0].metric"),
        ({"request_id": "r", "metric": "m", "value": 1, "observed_at": "2026-01-01T00:00:00"}, "items[0].observed_at"),
        ({"request_id": "r", "metric": "m", "value": 1, "more": 1}, "items[0].more"),
        ({"request_id": "r", "metric": "m"}, "items[0].value"),
        ({"request_id": "r", "metric": "m", "value": 10**400}, "items[0].value"),
        (
            {"request_id": "r", "metric": "m", "value": 1, "observed_at": "0001-01-01T00:00:00+14:00"},
            "items[0].observed_at",
        ),
        ({"request_id": "r", "metric": "m", "value": 1, "observed_at": 5}, "items[0].observed_at"),
        ({"request_id": "r", "metric": "m", "value": 1, "observed_at": "5"}, "items[0].observed_at"),
    ],
)
def test_wrong_feedback_is_400_with_its_place(stand: Stand, item: dict[str, Any], param: str) -> None:
    response = stand.client.post("/v1/feedback", json={"items": [item]})
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_feedback_of_a_model_that_there_is_not_is_404(stand: Stand) -> None:
    item = {"request_id": stand.classify().json()["id"], "metric": "m", "value": 1}
    assert stand.client.post("/v1/feedback", json={"model": "nope", "items": [item]}).status_code == 404
    answer = stand.client.post("/v1/feedback", json={"model": "support", "items": [item]})
    assert answer.json() == {"items": [{"status": "recorded"}]}


def test_more_than_a_thousand_outcomes_are_refused(stand: Stand) -> None:
    item = {"request_id": "r", "metric": "m", "value": 1}
    assert stand.client.post("/v1/feedback", json={"items": [item] * 1001}).status_code == 400
    answer = stand.client.post("/v1/feedback", json={"items": [item] * 1000}).json()
    assert answer["items"] == [{"status": "unknown"}] * 1000


def test_the_audit_log_has_each_change_with_old_and_new(stand: Stand) -> None:
    stand.client.post(f"/v1/experiments/{stand.ids['experiment']}/stop", headers={"if-match": "*"})
    newest = stand.client.get("/v1/audit").json()["data"][0]
    assert (newest["action"], newest["old"]["state"], newest["new"]["state"]) == (
        "experiment.decided",
        "running",
        "decided",
    )
    older = stand.client.get("/v1/audit", params={"before": newest["id"], "limit": 1}).json()["data"]
    assert [one["id"] for one in older] == [newest["id"] - 1]
    for limit in ("x", "²", "0", "-1", "9" * 5000):
        assert stand.client.get("/v1/audit", params={"limit": limit}).status_code == 400


def test_what_there_is_not_and_what_is_not_allowed_have_the_same_shape(stand: Stand) -> None:
    assert error_of(stand.client.get("/nothing"))["code"] == "route_not_found"
    assert error_of(stand.client.get("/v1/classify"))["code"] == "method_not_allowed"


def test_an_unforeseen_error_is_500_without_a_traceback(stand: Stand) -> None:
    stand.caller.labels.clear()  # the fake raises KeyError, which no variant error is
    response = stand.classify(user=stand.unit_of("a"))
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal"
    assert "Traceback" not in response.text and "KeyError" not in response.text
    assert [(row.served, row.status, row.finish) for row in stand.rows(Completion)] == [(None, 500, "error")]


class CountedErrors(NoMeters):
    """Keeps what is counted about errors."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str, str, str]] = []
        self.codes: list[int] = []

    def variant_error(self, *, endpoint: str, experiment: str, variant: str, code: str) -> None:
        self.errors.append((endpoint, experiment, variant, code))

    def request(self, *, code: int, **_: Any) -> None:
        self.codes.append(code)


def test_a_challengers_errors_are_counted_each_and_logged_once_a_minute(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    meters = stand.core.answering._meters = CountedErrors()
    stand.caller.errors[stand.ids["b"]] = [VariantTimeout("too slow")]
    for _ in range(3):
        stand.classify(user=stand.unit_of("b"))
    assert meters.errors == [("support", stand.ids["experiment"], "b", "variant_timeout")] * 3
    assert [one.getMessage() for one in caplog.records if "support/b" in one.getMessage()] == [
        "support/b gave no answer, variant_timeout: too slow"
    ]


def test_a_client_that_goes_away_is_recorded_and_counted(url: str, database: Database) -> None:
    ids = ready_endpoint(database, url)
    caller = FixedCaller({ids["a"]: "A", ids["b"]: "B"})
    caller.delays = {ids["a"]: 30.0, ids["b"]: 30.0}
    meters = CountedErrors()

    async def work() -> None:
        core = Core(database=database, caller=caller, meters=meters)
        await core.start()
        routing = core.snapshot.current("support")
        assert routing is not None
        decision = Decision(ids["a"], "unenrolled")
        ask = answering.Ask("r1", routing, ids["a"], decision, ["x"], "k", time.perf_counter())
        asked = asyncio.create_task(core.answering.answer(ask))
        await asyncio.sleep(0.05)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await core.stop()

    asyncio.run(work())
    assert meters.codes == [499]
    with database.reading() as session:
        assert session.get_one(Completion, "r1").status == 499


def test_a_database_that_is_locked_leaves_inference_to_the_champion(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "COMMIT_SECONDS", 0.25)
    stand.classify(user="ann")
    stand.database.engine.dispose()
    with stand.database.engine.execution_options(espalier_write=True).begin():  # holds SQLite's only write lock
        response = stand.classify(user=stand.unit_of("b"))
    assert (response.status_code, response.headers["x-espalier-assignment"]) == (200, "degraded")


def set_limits(stand: Stand, **limits: Any) -> None:
    with stand.database.writing() as session:
        routing = session.scalars(select(Revision).order_by(Revision.revision.desc())).first()
        assert routing is not None
        routing.routing = {**routing.routing, "limits": {**routing.routing["limits"], **limits}}
        session.execute(update(Endpoint).values(limits=routing.routing["limits"]))
    stand.core.refresh()
