"""What training left of each candidate's base, in words for the report. Told, and never chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told(figures: Mapping[str, Any]) -> str:
    """Returns a sentence on what the service of training measured on its sample of general text."""
    if figures["measure"] == "likelihood":
        before, after = figures["perplexity_before"], figures["perplexity_after"]
        return (
            f"The perplexity of general text went from {before:.3g} to {after:.3g}, {after / before:.2f} times what "
            "the base's was; above 1 it writes such text worse than before."
        )
    agreed, before, after = (figures[name] for name in ("rank_correlation", "cosine_before", "cosine_after"))
    return (
        f"Which general texts are alike agrees with the base at a rank correlation of {agreed:.2f}, where 1 is as "
        f"before and 0 is unrelated; their mean cosine went from {before:.2f} to {after:.2f}."
    )
