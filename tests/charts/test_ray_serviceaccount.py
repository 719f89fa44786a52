from __future__ import annotations


def test_all_pods_but_the_drivers_share_an_account_without_rights(chart):
    objects = chart()
    assert objects.one("ServiceAccount", "espalier")["automountServiceAccountToken"] is False
    bound = [one["name"] for binding in objects.of("RoleBinding").values() for one in binding["subjects"]]
    assert "espalier" not in bound


def test_an_account_of_the_users_is_used_instead(chart):
    objects = chart({"serviceAccount": {"create": False, "name": "mine"}})
    assert set(objects.of("ServiceAccount")) == {"espalier-driver"}
    head = objects.pools()["cpu"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["serviceAccountName"] == "mine"


def test_without_one_pods_have_the_namespaces(chart):
    head = chart({"serviceAccount": {"create": False}}).pools()["cpu"]["rayClusterSpec"]["headGroupSpec"]
    assert head["template"]["spec"]["serviceAccountName"] == "default"
