from __future__ import annotations


def test_nobody_is_bound_by_default(chart):
    assert "espalier-submitter" not in chart().of("RoleBinding")


def test_groups_and_accounts_are_bound(chart):
    binding = chart(ci="restricted").one("RoleBinding", "espalier-submitter")
    assert binding["roleRef"]["name"] == "espalier-submitter"
    assert binding["subjects"] == [
        {"kind": "Group", "name": "data-scientists", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "nightly", "namespace": "models"},
    ]
