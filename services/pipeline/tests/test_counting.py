"""Numbers of things in words."""

from __future__ import annotations

from espalier_pipeline.counting import counted


def test_one_thing_is_said_in_the_singular() -> None:
    assert [counted(1, "class"), counted(2, "class"), counted(1, "row"), counted(0, "row")] == [
        "1 class",
        "2 classes",
        "1 row",
        "0 rows",
    ]
