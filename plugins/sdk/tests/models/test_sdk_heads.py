"""Heads of every kind, with side columns beside the tokens and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from espalier_sdk.heads import build_model, load_model, with_head
from espalier_sdk.model import Head
from espalier_sdk.testing.tiny import Family, batch, tiny, tiny_config

HEAD = Head("sequence-classification", outputs=1, side_width=3, problem="regression")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_does_not_change_an_answer_and_side_columns_do(family: Family) -> None:
    model = tiny(family, HEAD).model.eval()
    inputs = batch([6, 3], side_width=3)
    with torch.no_grad():
        both = model(**inputs).logits
        alone = model(input_ids=inputs["input_ids"][1:, :3], side=inputs["side"][1:]).logits
        other = model(**{**inputs, "side": inputs["side"] + 1}).logits
    assert torch.allclose(both[1], alone[0], atol=1e-6)
    assert (other - both).abs().min() > 1e-3


def test_text_decides_what_a_side_column_means() -> None:
    """A head that only adds the two could not: its difference would be the same for every text."""
    model = tiny("bert", HEAD).model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("side_"):
                parameter.normal_(generator=torch.Generator().manual_seed(0))
        inputs = batch([6, 6], side_width=3)
        inputs["side"] = torch.ones(2, 3)
        change = model(**inputs).logits - model(**{**inputs, "side": torch.zeros(2, 3)}).logits
    assert abs(float(change[0] - change[1])) > 1e-3


def test_the_loss_of_a_regression_is_the_mean_square() -> None:
    model = tiny("bert", HEAD).model.eval()
    inputs, wanted = batch([4, 5, 2], side_width=3), torch.tensor([0.5, -1.0, 2.0])
    with torch.no_grad():
        found = model(**inputs, labels=wanted)
    assert float(found.loss) == pytest.approx(float(((found.logits[:, 0] - wanted) ** 2).mean()))


def test_a_model_without_its_side_columns_says_what_it_reads() -> None:
    with pytest.raises(ValueError, match=r"reads `side`, \(batch, 3\)"):
        tiny("bert", HEAD).model(**batch([4]))


@pytest.mark.parametrize(
    "kind", ["DistilBertConfig", "RobertaConfig", "ElectraConfig", "GPT2Config", "DebertaV2Config"]
)
def test_other_families_read_side_columns_too(kind: str) -> None:
    import transformers

    small: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
    if kind == "DistilBertConfig":
        small = {names.get(name, name): value for name, value in small.items()}
    config = with_head(getattr(transformers, kind)(**small, pad_token_id=0), HEAD)
    model = build_model(config, HEAD)
    model(**batch([4, 2], side_width=3), labels=torch.zeros(2)).loss.backward()
    idle = [name for name, value in model.named_parameters() if value.grad is None]
    assert not idle


def test_tiny_config_is_left_without_side_columns_where_a_head_has_none() -> None:
    config = with_head(tiny_config("bert"), Head("sequence-classification", outputs=2))
    assert not hasattr(config, "side_width")


def test_a_decoder_without_a_padding_token_classifies_rows_of_different_lengths(tmp_path: Path) -> None:
    """Its classifier reads the last token that is no padding: a row beside a longer one answers as it does alone."""
    head = Head("sequence-classification", outputs=2, problem="single-label")
    config = with_head(tiny_config("llama"), head)
    config.pad_token_id = None
    build_model(config, head).save_pretrained(tmp_path)
    model: Any = load_model(tmp_path, head).eval()
    assert model.config.pad_token_id == config.eos_token_id
    one, other = [7, 8, 9, 10], [11, 12]
    ids = torch.tensor([one, [*other, *[config.eos_token_id] * 2]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.inference_mode():
        both = model(input_ids=ids, attention_mask=mask).logits
        alone = model(input_ids=torch.tensor([other])).logits
    assert torch.allclose(both[1], alone[0], atol=1e-6)
