from __future__ import annotations


def test_the_drivers_account_is_its_own_and_carries_a_workload_identity(chart):
    values = {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/store"}}}
    account = chart(values).one("ServiceAccount", "espalier-driver")
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["annotations"] == values["serviceAccount"]["annotations"]
