"""The transform `clean`: what it repairs, what it takes out, and what it must leave."""
# Broken and foreign characters are what is tested.
# ruff: noqa: RUF001

from __future__ import annotations

import pyarrow as pa
import pytest
from espalier_sdk.errors import DataError
from espalier_sdk.testing import check_record_transform
from espalier_transforms import Clean, CleanConfig
from espalier_transforms.clean import clean_text, clean_with_tags


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Ã¼ber die GrÃ¶ÃŸe", "über die Größe"),
        ("itâ€™s broken", "it’s broken"),
        ("a <b>bold</b> word &amp; more", "a bold word & more"),
        ("<p>One</p><p>Two<br>three</p>", "One\n\nTwo\nthree"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("x<script>var y = '<b>';</script>z", "x z"),
        ("I put <script> on my page and it broke", "I put on my page and it broke"),
        ("see <!-- a note --> this", "see this"),
        ("no\u200bwidth \ufeffmark\u00ad soft\u0007", "nowidth mark soft"),
        ("a\u00a0b\t c  \n\n\n\n d \r\n e", "a b c\n\nd\ne"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("e\u0301", "é"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_damage_and_dirt_are_taken_out(text: str, clean: str) -> None:
    assert clean_text(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "I <3 you, x<y and z>w",
        "mail <EMAIL> or <name>",
        "https://x.org/?a=1&copy=2&lt=3",
        "“typographic” quotes",
        "👨\u200d👩\u200d👧 family",
        "می\u200cخواهم",
        "plain text, nothing to do",
        "R&D at AT&T",
    ],
)
def test_what_only_looks_like_dirt_stays(text: str) -> None:
    assert clean_text(text) == text


def test_tags_can_be_kept_while_all_else_is_cleaned() -> None:
    assert clean_with_tags("<b>Ã¼</b>  &amp;\u200b") == "<b>ü</b> &amp;"


def test_an_unclosed_flood_of_tags_takes_no_time() -> None:
    assert len(clean_text("<script " * 2000)) > 0


def test_clean_passes_its_kit() -> None:
    rows = pa.table({"text": ["a  b", None, "<i>c</i>"], "n": [1, 2, 3], "more": ["x", "", "y "]})
    check_record_transform(
        "clean",
        {},
        rows,
        expected=[
            {"text": "a b", "n": 1, "more": "x"},
            {"text": None, "n": 2, "more": ""},
            {"text": "c", "n": 3, "more": "y"},
        ],
    )


def test_only_the_chosen_columns_are_cleaned_and_they_must_be_text() -> None:
    rows = pa.table({"text": ["a  b"], "raw": ["c  d"], "n": [1]})
    cleaned = Clean(CleanConfig(columns=("text", "absent"))).apply(rows)
    assert cleaned.to_pylist() == [{"text": "a b", "raw": "c  d", "n": 1}]
    with pytest.raises(DataError, match="column 'n' holds int64"):
        Clean(CleanConfig(columns=("n",))).apply(rows)


def test_the_kit_refuses_a_transform_that_does_not_say_that_it_rewrites_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clean, "rewrites_text", False)
    rows = pa.table({"text": ["a  b", "c"]})
    with pytest.raises(AssertionError, match="changes the length of text in text, and rewrites_text is not true"):
        check_record_transform("clean", {}, rows, expected=[{"text": "a b"}, {"text": "c"}])
