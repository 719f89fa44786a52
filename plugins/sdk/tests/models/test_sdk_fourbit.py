"""Which layers of a base are kept in four bits; that it is computed is shown by the kit of PEFT methods."""

from __future__ import annotations

from pathlib import Path

import pytest
from espalier_sdk import Head, SpecError, fourbit
from espalier_sdk.fourbit import dequantised, four_bit_layers, load_in_four_bits
from espalier_sdk.testing.tiny import BLOCKS, Family, tiny, write_base

CAUSAL = Head("causal-lm")


@pytest.mark.parametrize(
    ("family", "head", "per_block"),
    [
        ("bert", Head("masked-lm"), 6),
        ("bert", Head("sequence-classification", outputs=2, side_width=3), 6),
        ("llama", CAUSAL, 7),
    ],
)
def test_linear_layers_of_blocks_are_and_heads_poolers_and_embeddings_are_not(
    family: Family, head: Head, per_block: int
) -> None:
    made = tiny(family, head)
    layers = four_bit_layers(made.model)
    assert len(layers) == BLOCKS * per_block
    within = {one.name for one in made.blueprint.parameters if one.role == "block" and 0 < one.depth <= BLOCKS}
    assert {f"{name}.weight" for name in layers} == {name for name in within if name.endswith(".weight")}


def test_only_those_are_kept_in_four_bits_and_made_whole_again_as_codes_say(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: make setup-four-bits")
    import torch

    write_base(tmp_path, "llama")
    whole = tiny("llama", CAUSAL).model
    torch.manual_seed(0)
    model = load_in_four_bits(tmp_path, CAUSAL)
    codes = {name for name, value in model.named_parameters() if value.dtype == torch.uint8}
    assert codes == {f"{name}.weight" for name in four_bit_layers(whole)}
    ids = torch.tensor([[2, 9, 11]])
    with torch.no_grad():
        before = model.eval()(input_ids=ids).logits
        plain = dequantised(model)
        after = plain(input_ids=ids).logits
    assert {value.dtype for value in plain.parameters()} == {torch.float32}
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    assert dequantised(plain) is plain


def test_a_base_whose_blocks_have_no_linear_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's are transposed, and of a class of their own."""
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=1, n_head=4)).save_pretrained(tmp_path)
    monkeypatch.setattr(fourbit, "find_spec", lambda name: object())
    with pytest.raises(SpecError, match="no linear layers in blocks"):
        load_in_four_bits(tmp_path, CAUSAL)
