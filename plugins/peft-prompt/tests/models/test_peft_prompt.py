"""Virtual tokens against their kit, and what the kit does not see: padding, generation, starts, counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_peft_prompt import PrefixTuning, PromptTuning, PTuning
from espalier_sdk import Blueprint, DataError, Head, Placement, SpecError
from espalier_sdk.testing import check_peft_method
from espalier_sdk.testing.tiny import Family, Tiny, batch, tiny, write_base

CLASSES = Head("sequence-classification", outputs=3)
METHODS = {"prompt-tuning": PromptTuning, "p-tuning": PTuning, "prefix-tuning": PrefixTuning}
REFUSED: list[dict[str, Any]] = [{"tokens": 0}, {"tokens": 10_000}, {"hidden_size": 0}]


def method(name: str, **config: Any) -> Any:
    plugin: Any = METHODS[name]
    return plugin(plugin.Config.model_validate({"tokens": 4} | config))


def injected(name: str, made: Tiny, **config: Any) -> Any:
    """Returns a model with virtual tokens that are large enough to matter."""
    import torch

    torch.manual_seed(4)
    model = method(name, **config).inject(made.model, blueprint=made.blueprint, placement=Placement(), calibration=())
    with torch.no_grad():
        model.virtual_tokens.embedding.weight.mul_(20)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("prompt-tuning", {"tokens": 5}),
        ("p-tuning", {"tokens": 5, "hidden_size": 8}),
        ("p-tuning", {"tokens": 3, "hidden_size": 8, "encoder": "lstm"}),
        ("prefix-tuning", {"tokens": 5}),
        ("prefix-tuning", {"tokens": 3, "hidden_size": 8}),
    ],
)
def test_it_passes_its_kit(name: str, config: dict[str, Any]) -> None:
    families: list[Family] = ["gpt2"] if name == "prefix-tuning" else []  # it has one layer for query, key and value
    check_peft_method(name, config=config, refused=REFUSED, refused_families=families)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_padding_does_not_change_a_class(name: str, family: Family) -> None:
    import torch

    model = injected(name, tiny(family, CLASSES))
    rows = batch([7, 4])
    with torch.no_grad():
        together = model(**rows).logits[1]
        alone = model(**{key: value[1:, :4] for key, value in rows.items()}).logits[0]
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_virtual_tokens_change_the_answer_of_every_text(name: str) -> None:
    import torch

    made = tiny("llama", Head("causal-lm"))
    with torch.no_grad():
        before = made.model.eval()(**batch([6, 6])).logits
        after = injected(name, made)(**batch([6, 6])).logits
    assert after.shape == before.shape
    assert float((after - before).abs().amax(dim=(1, 2)).min()) > 1e-3


def generate(model: Any, rows: dict[str, Any], **settings: Any) -> Any:
    return model.generate(**rows, max_new_tokens=5, do_sample=False, eos_token_id=[], pad_token_id=0, **settings)


@pytest.mark.parametrize("name", METHODS)
def test_generation_is_what_forward_would_choose_token_by_token(name: str) -> None:
    import torch

    model = injected(name, tiny("llama", Head("causal-lm")))
    rows = batch([5, 5])
    expected = rows["input_ids"]
    with torch.no_grad():
        for _ in range(5):
            logits = model(input_ids=expected).logits
            expected = torch.cat([expected, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generate(model, rows), expected)


@pytest.mark.parametrize("name", METHODS)
def test_generation_does_not_depend_on_padding_and_may_penalise_repetition(name: str) -> None:
    import torch

    model = injected(name, tiny("llama", Head("causal-lm")))
    rows = batch([7, 4], left=True)
    alone = {key: value[1:, 3:] for key, value in rows.items()}
    for settings in ({}, {"repetition_penalty": 1.3}):
        assert torch.equal(generate(model, rows, **settings)[1, 7:], generate(model, alone, **settings)[0, 4:])


@pytest.mark.parametrize("name", METHODS)
def test_kinds_of_tokens_and_positions_by_place_are_taken_along(name: str) -> None:
    import torch

    model = injected(name, tiny("bert", Head("token-classification", outputs=3)))
    rows = batch([7, 5])
    kinds = torch.zeros_like(rows["input_ids"])
    with torch.no_grad():
        plain = model(**rows).logits
        given = model(rows["input_ids"], rows["attention_mask"], token_type_ids=kinds).logits
        placed = model(**rows, position_ids=torch.arange(7)[None]).logits
    assert torch.equal(plain, given)
    assert torch.allclose(plain, placed, atol=1e-6)


def test_a_span_outside_the_text_counts_for_nothing() -> None:
    import torch

    model = injected("prompt-tuning", tiny("bert", Head("question-answering")))
    rows = batch([7, 7])
    one = {key: value[:1] for key, value in rows.items()}
    with torch.no_grad():
        both = model(**rows, start_positions=torch.tensor([2, 7]), end_positions=torch.tensor([4, 9])).loss
        alone = model(**one, start_positions=torch.tensor([2]), end_positions=torch.tensor([4])).loss
    assert float(both) == pytest.approx(float(alone), abs=1e-6)


def test_a_prompt_starts_as_the_words_of_a_text(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    write_base(tmp_path)
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    blueprint = tiny("bert", CLASSES).blueprint
    one = method("prompt-tuning", text="word3 word7 word9", tokens=5)
    made = one.inject(model, blueprint=blueprint, placement=Placement(), calibration=())
    words = made.get_input_embeddings().weight
    rows = [5 + number for number in (3, 7, 9, 3, 7)]  # five special tokens come first
    assert torch.equal(made.virtual_tokens.embedding.weight, words[rows])


def test_a_text_without_a_tokenizer_to_read_it_is_refused() -> None:
    made = tiny("bert", CLASSES)
    with pytest.raises(SpecError, match="no tokenizer"):
        method("prompt-tuning", text="word3").inject(
            made.model, blueprint=made.blueprint, placement=Placement(), calibration=()
        )


@pytest.mark.parametrize(
    ("name", "family", "config", "expected"),
    [
        ("prompt-tuning", "bert", {}, 4 * 32),
        # the vectors, 32 -> 8 and 8 -> 32
        ("p-tuning", "bert", {"hidden_size": 8}, 4 * 32 + (32 * 8 + 8) + (8 * 32 + 32)),
        # two blocks, keys and values of 32; Llama's have 16
        ("prefix-tuning", "bert", {}, 4 * 2 * 2 * 32),
        ("prefix-tuning", "llama", {}, 4 * 2 * 2 * 16),
        ("prefix-tuning", "llama", {"hidden_size": 8}, 4 * 8 + (8 * 8 + 8) + (8 + 1) * 2 * 2 * 16),
    ],
)
def test_count_of_weights_is_exact(name: str, family: Family, config: dict[str, Any], expected: int) -> None:
    one = method(name, **config)
    assert sum(info.count for info in one.parameters(tiny(family, CLASSES).blueprint)) == expected
    assert one.traits().virtual_tokens == 4


def test_a_model_that_takes_no_keys_from_outside_is_refused_by_prefix_tuning() -> None:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=64, dim=32, n_heads=4, n_layers=2))
    with pytest.raises(SpecError, match="takes no keys and values from outside"):
        method("prefix-tuning").inject(
            model, blueprint=tiny("bert", CLASSES).blueprint, placement=Placement(), calibration=()
        )


@pytest.mark.parametrize("name", METHODS)
def test_a_base_without_the_layers_it_needs_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="the base"):
        method(name).parameters(Blueprint({}, CLASSES, 2, (), ()))


@pytest.mark.parametrize("name", METHODS)
def test_vectors_instead_of_tokens_are_refused(name: str) -> None:
    import torch

    with pytest.raises(ValueError, match="virtual tokens need input_ids"):
        injected(name, tiny("bert", CLASSES))(inputs_embeds=torch.zeros(1, 3, 32))


def test_a_folder_of_another_method_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no prompt\.safetensors"):
        method("p-tuning").load(tiny("bert", CLASSES).model, tmp_path)
    method("p-tuning").save(injected("p-tuning", tiny("bert", CLASSES)), tmp_path)
    with pytest.raises(DataError, match="holds p-tuning"):
        method("prompt-tuning").load(tiny("bert", CLASSES).model, tmp_path)
