"""How a number of things is said."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Returns `1 class` or `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
