"""Updates beside a base in four bits: what trains there passes its kit, and what needs whole weights says so."""

from __future__ import annotations

from typing import Any

import pytest
from espalier_peft_lora import LoHa, LoKr, Lora
from espalier_sdk.testing import check_beside_four_bits


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("lora", {}),
        ("lora", {"targets": "all-linear", "rank_stabilised": True}),
        ("lora", {"dora": True}),
        ("adalora", {}),
        ("vera", {"rank": 16}),
    ],
)
def test_it_passes_its_kit(name: str, config: dict[str, Any]) -> None:
    check_beside_four_bits(name, config=config)


@pytest.mark.parametrize(
    "method",
    [
        Lora(Lora.Config(start="pissa")),
        Lora(Lora.Config(start="olora")),
        Lora(Lora.Config(placement="relevance")),
        LoHa(LoHa.Config()),
        LoKr(LoKr.Config()),
    ],
)
def test_what_reads_or_multiplies_whole_weights_says_that_it_cannot(method: Any) -> None:
    assert not method.traits().quantised
