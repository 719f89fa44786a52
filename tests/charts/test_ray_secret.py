from __future__ import annotations

import re


def test_the_token_is_under_the_key_that_kuberay_reads_and_stays(chart):
    secret = chart().one("Secret", "espalier-ray-token")
    assert re.fullmatch(r"[0-9a-f]{64}", secret["stringData"]["auth_token"])
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_token_of_the_users_is_used_instead(chart):
    assert "espalier-ray-token" not in chart({"ray": {"existingTokenSecret": "mine"}}).of("Secret")
