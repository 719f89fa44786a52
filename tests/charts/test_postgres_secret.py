from __future__ import annotations

import re


def test_the_addresses_hold_the_password(chart):
    secret = chart().one("Secret", "espalier-postgres")
    data = secret["stringData"]
    assert re.fullmatch(r"[0-9a-f]{48}", data["password"])
    server = f"postgresql+psycopg://espalier:{data['password']}@espalier-postgres:5432"
    assert (data["url"], data["mlflow-url"]) == (f"{server}/espalier", f"{server}/mlflow")
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_a_database_of_the_users_is_named_by_its_own_key(chart, environment):
    objects = chart(ci="existing-postgres")
    assert "espalier-postgres" not in objects.of("Secret")
    found = environment(objects.driver())
    assert found["ESPALIER_DATABASE_URL"] == {"secretKeyRef": {"name": "espalier-database", "key": "uri"}}
    assert found["MLFLOW_TRACKING_URI"] == "https://mlflow.example.com"
