"""A class against its protocol: each way to differ is told in words."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from espalier_sdk import PluginConfig
from espalier_sdk.groups import GROUPS, did_you_mean, mismatches
from espalier_sdk.testing.fakes import FakeMetric

METRICS = GROUPS["espalier.metrics"]


def test_a_class_that_fits_has_no_mismatch() -> None:
    assert mismatches(FakeMetric, METRICS) == ()


@pytest.mark.parametrize("member", ["Config", "greater_is_better", "reports", "rows", "values"])
def test_a_missing_member_is_named(member: str) -> None:
    kept = {key: value for key, value in vars(FakeMetric).items() if key != member and not key.startswith("__")}
    assert mismatches(type("Metric", (), kept), METRICS) == (f"{member} is missing",)


def test_another_signature_is_shown_beside_the_wanted_one() -> None:
    class Other(FakeMetric):
        def values(self, predictions: Any, weights: Any = None) -> dict[str, float]:
            return {}

    assert mismatches(Other, METRICS) == ("values(self, predictions, weights=None) must be values(self, predictions)",)


def test_a_renamed_argument_is_another_signature() -> None:
    class Other(FakeMetric):
        def rows(self, table: Any) -> None:
            return None

    assert mismatches(Other, METRICS) == ("rows(self, table) must be rows(self, predictions)",)


def test_a_keyword_that_became_positional_is_another_signature() -> None:
    class Control:
        contract = 1
        Config = PluginConfig
        zero_stages = frozenset({0})

        def boundaries(self, parameters: Any, steps: int) -> list[int]:
            return []

        def rule(self, parameter: Any, *, blocks: int, step: int, steps: int) -> None: ...

    assert mismatches(Control, GROUPS["espalier.training_controls"]) == (
        "boundaries(self, parameters, steps) must be boundaries(self, parameters, *, steps)",
    )


def test_a_value_where_a_method_should_be_is_named() -> None:
    class Other(FakeMetric):
        values: ClassVar[Any] = {"f1": 1.0}

    assert mismatches(Other, METRICS) == ("values is dict, must be a method",)


@pytest.mark.parametrize("config", [dict, object, PluginConfig()], ids=["dict", "object", "an instance"])
def test_a_config_that_is_no_model_class_is_named(config: Any) -> None:
    class Other(FakeMetric):
        Config: ClassVar[Any] = config

    (found,) = mismatches(Other, METRICS)
    assert "must be a pydantic model class" in found


@pytest.mark.parametrize("number", [None, 0, 2, "1"])
def test_another_contract_is_told_alone(number: object) -> None:
    class Other:
        contract = number

    assert mismatches(Other, METRICS) == (f"contract is {number!r}, this version of espalier-sdk speaks contract 1",)


def test_a_transform_is_checked_against_the_protocol_of_its_kind() -> None:
    class Transform:
        contract = 1
        Config = PluginConfig
        kind = "fitted"
        at_serving = True
        splits = frozenset({"train"})

        def apply(self, rows: Any) -> Any: ...

    group = GROUPS["espalier.transforms"]
    found = mismatches(Transform, group)
    assert "State is missing" in found
    assert "apply(self, rows) must be apply(self, rows, *, state)" in found
    Transform.kind = "record"
    assert mismatches(Transform, group) == ()


def test_a_transform_of_no_known_kind_is_refused_with_the_kinds() -> None:
    class Transform:
        contract = 1
        kind = "row"

    assert mismatches(Transform, GROUPS["espalier.transforms"]) == ("kind is 'row', accepted: record, fitted, corpus",)


def test_the_nearest_word_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("clasification", ["classification", "regression"]) == "did you mean 'classification'?"
    assert did_you_mean("zzz", ["classification"]) is None
