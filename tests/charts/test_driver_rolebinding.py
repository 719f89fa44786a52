from __future__ import annotations


def test_it_binds_the_drivers_role_to_the_drivers_account(chart):
    binding = chart().one("RoleBinding", "espalier-driver")
    assert binding["roleRef"]["name"] == "espalier-driver"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "espalier-driver", "namespace": "models"}]
