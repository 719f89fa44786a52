from __future__ import annotations

import re


def test_the_key_has_the_shape_that_the_endpoint_takes_and_stays(chart):
    secret = chart().one("Secret", "espalier-keys")
    assert re.fullmatch(r"esk_[0-9a-f]{12}_[0-9a-f]{48}", secret["stringData"]["admin"])
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_two_installations_have_two_keys(chart):
    first = chart().one("Secret", "espalier-keys")["stringData"]
    assert chart({"demo": {"enabled": False}}).one("Secret", "espalier-keys")["stringData"] != first


def test_a_secret_of_the_users_is_used_instead(chart):
    objects = chart(ci="gitops")
    assert not objects.of("Secret")
    head = objects.one("RayService", "espalier")["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    key = next(one for one in head["initContainers"][0]["env"] if one["name"] == "ESPALIER_ADMIN_KEY")
    assert key["valueFrom"]["secretKeyRef"]["name"] == "espalier-keys"
