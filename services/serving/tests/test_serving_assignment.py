"""Assignment: uniform, sticky, monotone in coverage, and nobody moves between arms."""

from __future__ import annotations

from collections import Counter

import pytest
from espalier_serving.assignment import (
    BUCKETS,
    Split,
    arm,
    bucket,
    conversation_of,
    enrolled,
    resolve_unit,
    unit_hash,
)
from hypothesis import given
from hypothesis import strategies as st

units = st.text(min_size=1, max_size=40)
salts = st.text(alphabet="0123456789abcdef", min_size=8, max_size=32)
weights = st.integers(1, 99).map(lambda first: (first, 100 - first))
coverages = st.floats(0, 1)


def test_a_bucket_is_what_it_was_when_the_first_experiment_ran() -> None:
    # Computed once with hashlib: blake2b(b"salt\0enrol\0unit", digest_size=8) as a big-endian number, modulo 10,000.
    # A change would move units between arms in experiments that run.
    assert bucket("salt", "enrol", "unit") == 1100
    assert bucket("salt", "arm", "unit") == 5119


@given(salts, units)
def test_a_bucket_is_one_of_ten_thousand(salt: str, unit: str) -> None:
    assert 0 <= bucket(salt, "enrol", unit) < BUCKETS


@pytest.mark.parametrize("purpose", ["enrol", "arm"])
def test_buckets_are_uniform(purpose: str) -> None:
    # Chi-square with 99 degrees of freedom: 148.2 is its 0.999 quantile.
    counts = Counter(bucket("some salt", purpose, f"unit {number}") // 100 for number in range(50_000))
    assert sum((counts[place] - 500) ** 2 / 500 for place in range(100)) < 148.2


def test_enrolment_and_arm_are_independent() -> None:
    split = Split("some salt", (50, 50), 0.5)
    found = [f"unit {number}" for number in range(20_000)]
    inside = [unit for unit in found if enrolled(split, unit)]
    share = sum(arm(split, unit) == "control" for unit in inside) / len(inside)
    assert abs(len(inside) / len(found) - 0.5) < 0.015  # four standard errors
    assert abs(share - 0.5) < 0.02


@given(salts, weights, coverages, units)
def test_the_same_unit_gets_the_same_place_each_time(
    salt: str, split: tuple[int, int], coverage: float, unit: str
) -> None:
    first, again = Split(salt, split, coverage), Split(salt, split, coverage)
    assert (enrolled(first, unit), arm(first, unit)) == (enrolled(again, unit), arm(again, unit))


@given(salts, weights, coverages, coverages, units)
def test_who_is_enrolled_stays_enrolled_when_coverage_rises(
    salt: str, split: tuple[int, int], one: float, other: float, unit: str
) -> None:
    low, high = sorted((one, other))
    assert not enrolled(Split(salt, split, low), unit) or enrolled(Split(salt, split, high), unit)


@given(salts, weights, coverages, coverages, units)
def test_nobody_moves_between_arms_when_only_coverage_changes(
    salt: str, split: tuple[int, int], one: float, other: float, unit: str
) -> None:
    assert arm(Split(salt, split, one), unit) == arm(Split(salt, split, other), unit)


@given(salts, weights, units)
def test_no_coverage_enrols_nobody_and_full_coverage_everybody(salt: str, split: tuple[int, int], unit: str) -> None:
    assert not enrolled(Split(salt, split, 0.0), unit)
    assert enrolled(Split(salt, split, 1.0), unit)


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_the_arms_have_the_shares_of_the_weights(percent: int) -> None:
    split = Split("another salt", (percent, 100 - percent), 1.0)
    share = sum(arm(split, f"unit {number}") == "control" for number in range(20_000)) / 20_000
    assert abs(share - percent / 100) < 4 * (percent / 100 * (1 - percent / 100) / 20_000) ** 0.5


def test_another_salt_gives_another_split() -> None:
    first, second = Split("salt one", (50, 50), 1.0), Split("salt two", (50, 50), 1.0)
    same = sum(arm(first, f"unit {number}") == arm(second, f"unit {number}") for number in range(10_000))
    assert abs(same / 10_000 - 0.5) < 0.02


def test_a_unit_is_stored_as_a_keyed_hash_that_depends_on_key_and_kind() -> None:
    one = unit_hash(b"k" * 32, "user", "ann@example.org")
    assert len(one) == 32
    assert "ann" not in one
    assert one != unit_hash(b"l" * 32, "user", "ann@example.org")
    assert one != unit_hash(b"k" * 32, "conversation", "ann@example.org")


def test_a_user_is_the_header_then_safety_identifier_then_user() -> None:
    headers = {"x-espalier-unit": " h "}
    assert resolve_unit("user", headers=headers, fields=("s", "u"), request_id="r") == "h"
    assert resolve_unit("user", headers={}, fields=("s", "u"), request_id="r") == "s"
    assert resolve_unit("user", headers={"x-espalier-unit": "  "}, fields=(None, "u"), request_id="r") == "u"
    assert resolve_unit("user", headers={}, fields=(None, ""), request_id="r") is None


def test_a_conversation_is_its_header_then_how_it_began() -> None:
    headers = {"x-espalier-conversation": "c", "x-espalier-unit": "h"}
    assert resolve_unit("conversation", headers=headers, conversation="began", request_id="r") == "c"
    assert resolve_unit("conversation", headers={}, conversation="began", request_id="r") == "began"


def test_a_request_is_its_own_unit() -> None:
    assert resolve_unit("request", headers={"x-espalier-unit": "h"}, request_id="r") == "r"


def test_how_a_conversation_began_depends_on_key_id_system_and_first_message() -> None:
    def began(key: bytes = b"k", key_id: str = "i", system: str = "s", message: str = "m") -> str:
        return conversation_of(key, key_id=key_id, system=system, first_user_message=message)

    others = {began(key=b"l"), began(key_id="j"), began(system="t"), began(message="n"), began(system="sm", message="")}
    assert began() == began()
    assert began() not in others
    assert len(others) == 5
