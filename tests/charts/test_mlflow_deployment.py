from __future__ import annotations

from mlflow.server.security_utils import is_allowed_host_header


def deployment(objects):
    return objects.one("Deployment", "espalier-mlflow")["spec"]


def test_it_keeps_runs_in_a_database_of_its_own_and_files_on_the_claim(chart, environment):
    found = environment(deployment(chart())["template"])
    assert found["MLFLOW_BACKEND_STORE_URI"] == {"secretKeyRef": {"name": "espalier-postgres", "key": "mlflow-url"}}
    assert found["MLFLOW_ARTIFACTS_DESTINATION"] == "/var/espalier/mlflow"


def test_files_go_to_the_object_store_where_there_is_one(chart, environment):
    found = environment(deployment(chart(ci="s3"))["template"])
    assert found["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://models/espalier/prod/mlflow"
    assert found["MLFLOW_S3_ENDPOINT_URL"] == found["AWS_ENDPOINT_URL"] == "https://minio.storage.svc:9000"


def test_mlflow_answers_under_its_services_names_and_no_strangers(chart, environment):
    found = environment(deployment(chart({"mlflow": {"allowedHosts": ["mlflow.example.com"]}}))["template"])
    hosts = found["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    names = ["espalier-mlflow:5000", "espalier-mlflow.models.svc.cluster.local:5000", "localhost:5000"]
    for name in [*names, "mlflow.example.com"]:
        assert is_allowed_host_header(hosts, name), name
    for name in ("evil.example.com", "espalier-mlflow.evil.com"):
        assert not is_allowed_host_header(hosts, name), name


def test_two_servers_never_share_the_database(chart):
    spec = deployment(chart())
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_server_of_the_users_takes_its_place(chart):
    assert not chart(ci="existing-postgres").of("Deployment")


def test_a_secret_of_the_users_names_its_database(chart, environment):
    found = environment(deployment(chart(ci="gitops"))["template"])
    assert found["MLFLOW_BACKEND_STORE_URI"] == {"secretKeyRef": {"name": "espalier-database", "key": "mlflow-url"}}


def test_beside_sqlite_it_is_a_file_on_the_claim(chart, environment):
    found = environment(deployment(chart({"mlflow": {"enabled": True}}, ci="minimal"))["template"])
    assert found["MLFLOW_BACKEND_STORE_URI"] == "sqlite:////var/espalier/mlflow.db"


def test_settings_of_the_user_reach_it(chart, environment):
    values = {"extraEnv": {"HTTPS_PROXY": "http://proxy:3128"}}
    assert environment(deployment(chart(values))["template"])["HTTPS_PROXY"] == "http://proxy:3128"
