from __future__ import annotations


def test_users_submit_and_watch_and_see_no_secret(chart):
    rules = chart().one("Role", "espalier-submitter")["rules"]
    can = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
    assert can == {
        "jobs": {"create", "get", "list", "watch", "delete"},
        "configmaps": {"get", "list"},
        "pods": {"get", "list", "watch"},
        "pods/log": {"get"},
        "pods/exec": {"create", "get"},
        "events": {"list"},
        "rayjobs": {"get", "list"},
    }
