from __future__ import annotations


def test_the_first_start_makes_mlflows_database(chart):
    assert chart().one("ConfigMap", "espalier-postgres")["data"] == {"mlflow.sql": "CREATE DATABASE mlflow;\n"}


def test_without_postgres_there_is_none(chart):
    assert "espalier-postgres" not in chart(ci="minimal").of("ConfigMap")
