"""The whole story on Ray Serve: two variants, an experiment, sticky units, durable exposures, feedback, failures."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from espalier_serving.database import open_database
from espalier_serving.tables import Completion, Exposure, Unit
from espalier_serving.testing.program import Served, wait_for
from sqlalchemy import select


def replica_of(application: str, deployment: str) -> Any:
    """Returns the actor of the only replica of a deployment, or None while there is not just one."""
    import ray  # late: what it reads of the environment must stand there first

    actors = ray.util.list_named_actors(all_namespaces=True)
    names = [one["name"] for one in actors if one["name"].startswith(f"SERVE_REPLICA::{application}#{deployment}#")]
    return ray.get_actor(names[0], namespace="serve") if len(names) == 1 else None


def end(replica: Any) -> None:
    """Ends a replica at once, as a lost node would."""
    import ray

    ray.kill(replica)


def rows(served: Served, table: Any) -> dict[str, Any]:
    database = open_database(served.database)
    with database.reading() as session:
        found = {row.request_id: row for row in session.scalars(select(table))}
    database.close()
    return found


def test_units_are_sticky_and_both_variants_answer(served: Served) -> None:
    seen = {
        number: {served.ask(user=f"user {number}").headers["x-espalier-variant"] for _ in range(2)}
        for number in range(40)
    }
    assert all(len(one) == 1 for one in seen.values())
    shares = [next(iter(one)) for one in seen.values()]
    assert 8 <= shares.count("b") <= 32  # 40 fair draws: outside with a probability below 1e-4


def test_an_answer_has_one_request_id_and_all_headers(served: Served) -> None:
    response = served.ask(["one", "two"], user="user 1")
    assert response.headers.get_list("x-request-id") == [response.json()["id"]]
    assert len(response.json()["predictions"]) == 2
    for name in ("experiment", "variant", "revision", "overhead-ms", "assignment"):
        assert f"x-espalier-{name}" in response.headers
    assert float(response.headers["x-espalier-overhead-ms"]) < 250


def test_each_enrolled_answer_is_in_the_database_when_it_arrives(served: Served) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: served.ask(user=f"user {number % 40}"), range(80)))
    exposures = rows(served, Exposure)
    for answer in answers:
        variant = served.variant(answer.headers["x-espalier-variant"])["id"] if answer is answers[0] else None
        row = exposures[answer.json()["id"]]
        assert row.reason == "enrolled"
        assert variant is None or row.assigned == variant
    wait_for(lambda: {answer.json()["id"] for answer in answers} <= set(rows(served, Completion)))
    database = open_database(served.database)
    with database.reading() as session:
        assert not any(unit.crossed for unit in session.scalars(select(Unit)))
    database.close()


def test_feedback_reaches_the_results(served: Served) -> None:
    experiment = served.client.get("/v1/endpoints/support").json()["experiment"]
    for number in range(20):
        answer = served.ask(user=f"user {number}")
        item = {"request_id": answer.json()["id"], "metric": "solved", "value": number % 2 == 0, "key": f"f{number}"}
        for expected in ("recorded", "duplicate"):
            sent = served.client.post("/v1/feedback", json={"items": [item]})
            assert sent.json() == {"items": [{"status": expected}]}
    arms = served.client.get(f"/v1/experiments/{experiment}/results").json()["arms"]
    assert sum(arm["metrics"]["solved"]["units"] for arm in arms.values()) == 20


def test_when_the_challenger_raises_the_champion_answers(served: Served) -> None:
    answer = served.ask("fail", user=served.unit_of("b"))
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "A"
    assert (answer.headers["x-espalier-variant"], answer.headers["x-espalier-assignment"]) == ("a", "fallback")
    assert rows(served, Exposure)[answer.json()["id"]].assigned == served.variant("b")["id"]
    completion = wait_for(lambda: rows(served, Completion).get(answer.json()["id"]))
    assert (completion.served, completion.finish) == (served.variant("a")["id"], "fallback:variant_failed")


def test_a_challenger_that_is_too_slow_does_not_go_on_for_nobody(served: Served) -> None:
    import ray

    def limit(seconds: float) -> None:
        body = {"task": "classification", "limits": {"timeout_seconds": seconds}}
        assert served.client.put("/v1/endpoints/support", json=body, headers={"if-match": "*"}).status_code == 200
        time.sleep(4)  # until the revision is in force

    limit(1.0)  # the challenger has half of it, and takes two seconds
    try:
        replica = replica_of(f"variant-{served.variant('b')['id']}", "Variant")
        answer = served.ask("slow", user=served.unit_of("b"))
        assert answer.headers["x-espalier-assignment"] == "fallback"
        wait_for(lambda: ray.get(replica.get_num_ongoing_requests.remote()) == 0, seconds=0.8)
    finally:
        limit(30.0)


def test_a_request_whose_replica_dies_is_sent_once_more_to_the_same_variant(served: Served) -> None:
    replica = replica_of(f"variant-{served.variant('b')['id']}", "Variant")
    unit = served.unit_of("b")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(served.ask, "slow", user=unit)
        time.sleep(0.4)
        end(replica)
        answer = waiting.result(timeout=60)
    assert (answer.headers["x-espalier-variant"], answer.headers["x-espalier-assignment"]) == ("b", "enrolled")


def test_a_request_that_kills_each_replica_is_answered_by_the_champion(served: Served) -> None:
    answer = served.ask("die", user=served.unit_of("b"))
    assert (answer.status_code, answer.headers["x-espalier-assignment"]) == (200, "fallback")
    wait_for(lambda: served.ask("x", user=served.unit_of("b")).headers["x-espalier-variant"] == "b")


def test_an_application_that_was_lost_is_built_again_from_its_row(served: Served) -> None:
    from ray import serve

    application = f"variant-{served.variant('b')['id']}"
    before = replica_of(application, "Variant")
    serve.delete(application, _blocking=False)  # blocking never ends: Control starts it again within half a second
    wait_for(lambda: (now := replica_of(application, "Variant")) and now._actor_id != before._actor_id)
    unit = served.unit_of("b")
    wait_for(lambda: served.ask(user=unit).headers["x-espalier-variant"] == "b")


def test_no_challenger_answer_without_its_exposure_when_the_gateway_is_killed(served: Served) -> None:
    seen: list[str] = []
    done = threading.Event()

    def ask(name: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                answer = served.ask(user=f"killed {name} {number}")
            except httpx.TransportError:
                continue
            if answer.headers.get("x-espalier-variant") == "b":
                seen.append(answer.json()["id"])

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(seen) > 20)
    end(replica_of("espalier", "Gateway"))
    before = len(seen)
    wait_for(lambda: len(seen) > before + 20)  # it answers again
    done.set()
    for thread in threads:
        thread.join()
    exposures = rows(served, Exposure)
    assert all(request in exposures for request in seen)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"not json", 400, "not_json"),
        (b'{"model": "support", "input": 5}', 400, "invalid_field"),
        (b'{"model": "nope", "input": "x"}', 404, "model_not_found"),
        (b'{"model": "support", "input": "' + b"x" * 1_100_000 + b'"}', 413, "body_too_long"),
    ],
)
def test_a_wrong_body_has_the_one_error_shape(served: Served, content: bytes, status: int, code: str) -> None:
    response = served.client.post("/v1/classify", content=content)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


def test_without_a_key_nothing_is_answered(served: Served) -> None:
    response = httpx.post(
        f"{served.ready['url']}/v1/classify", json={"model": "support", "input": "x"}, trust_env=False
    )
    assert (response.status_code, response.json()["error"]["code"]) == (401, "missing_key")


def test_a_stopped_experiment_gives_way_to_another_model_which_is_served_without_a_restart(served: Served) -> None:
    experiment = served.client.get("/v1/endpoints/support").json()["experiment"]
    body = {
        "name": "c",
        "model": f"model/c@{'c' * 64}",
        "engine": {"name": "echo", "config": {"label": "C"}},
        "config": {"num_cpus": 0.25},
    }
    assert served.client.post("/v1/endpoints/support/variants", json=body).status_code == 409
    stopped = served.client.post(f"/v1/experiments/{experiment}/stop", headers={"if-match": "*"})
    assert stopped.status_code == 200
    assert served.client.post("/v1/endpoints/support/variants", json=body).status_code == 202
    wait_for(lambda: served.variant("c")["state"] == "ready")
    wait_for(lambda: served.ask(model="support/c").status_code == 200, seconds=10)
    answer = served.ask(model="support/c")
    assert answer.json()["predictions"][0]["label"] == "C"
    assert answer.headers["x-espalier-assignment"] == "override"
    assert set(served.split(20)) == {"a"}


def test_a_model_that_does_not_open_is_failed_with_the_reason_and_hurts_nobody(served: Served) -> None:
    body = {
        "name": "d",
        "model": f"model/d@{'d' * 64}",
        "config": {"num_cpus": 0.25},
        "engine": {"name": "echo", "config": {"refuses_to_load": "the file is damaged"}},
    }
    assert served.client.post("/v1/endpoints/support/variants", json=body).status_code == 202
    found = wait_for(lambda: (one := served.variant("d"))["state"] == "failed" and one, seconds=120)
    assert "the file is damaged" in found["error"]
    assert served.ask().status_code == 200
