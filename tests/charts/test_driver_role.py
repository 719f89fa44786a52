from __future__ import annotations


def test_the_driver_starts_ray_jobs_reads_why_they_wait_and_sees_no_secret(chart):
    rules = chart().one("Role", "espalier-driver")["rules"]
    can = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert can == (
        {("rayjobs", verb) for verb in ("get", "list", "create", "delete")}
        | {(what, verb) for what in ("pods", "events") for verb in ("get", "list")}
        | {("rayclusters", "get"), ("jobs", "get")}
    )
