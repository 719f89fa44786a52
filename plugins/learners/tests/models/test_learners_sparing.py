"""Logits of the tokens that count alone: the same loss and gradients for every family of language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from espalier_learners.sparing import sparing

SIZES = {"vocab_size": 50, "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0}
SIZES |= {"num_key_value_heads": 2, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
DECODERS = ("llama", "qwen3", "gpt2", "gemma2", "gpt_neox", "mixtral", "bloom", "opt")
ENCODERS = ("bert", "roberta", "modernbert", "distilbert")


def language_model(family: str, seed: int = 0) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    torch.manual_seed(seed)
    made: Any = AutoModelForCausalLM if family in DECODERS else AutoModelForMaskedLM
    return made.from_config(AutoConfig.for_model(family, **SIZES), attn_implementation="eager").eval()


def batch() -> dict[str, Any]:
    """Two rows of nine tokens; the second is padded, and three or two tokens of each are learned."""
    import torch

    ids = torch.randint(5, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    labels = torch.full_like(ids, -100)
    labels[0, 5:8], labels[1, 4:6] = ids[0, 5:8], ids[1, 4:6]
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def trainer(trainer_class: Any, model: Any, folder: Path) -> Any:
    from transformers import TrainingArguments

    return trainer_class(model=model, args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[]))


def learned(trainer_class: Any, model: Any, folder: Path, **more: Any) -> tuple[float, dict[str, Any], list[Any]]:
    """Returns the loss, the gradients, and the shapes of what the head was given."""
    from transformers import Trainer

    seen: list[Any] = []
    head = model.get_output_embeddings()
    watched = head.register_forward_hook(lambda _, arguments, output: seen.append(tuple(arguments[0].shape)))
    model.zero_grad()
    loss = trainer(trainer_class(Trainer), model, folder).compute_loss(model, batch(), **more)
    loss.backward()
    watched.remove()
    return loss.item(), {name: value.grad for name, value in model.named_parameters()}, seen


@pytest.mark.parametrize("items", [None, 7])
@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_loss_and_gradients_are_those_of_all_logits(family: str, items: int | None, tmp_path: Path) -> None:
    import torch

    more = {} if items is None else {"num_items_in_batch": torch.tensor(items)}
    model = language_model(family)
    loss, gradients, seen = learned(lambda plain: plain, model, tmp_path, **more)
    assert seen == [(2, 9, 32)]
    found, same, seen = learned(sparing, model, tmp_path, **more)
    assert seen == [(1, 5 + (family in DECODERS), 32)]  # a decoder's loss shifts labels: one place more
    assert found == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_virtual_tokens_that_a_hook_puts_before_the_text_are_counted(tmp_path: Path) -> None:
    """A method of prompts lengthens ids, mask and labels in a hook of the model."""
    from torch.nn import functional

    model = language_model("llama")

    def lengthen(_: Any, arguments: Any, given: dict[str, Any]) -> Any:
        fills = {"input_ids": 7, "attention_mask": 1, "labels": -100}
        return arguments, given | {
            name: functional.pad(given[name], (3, 0), value=fill) for name, fill in fills.items()
        }

    model.register_forward_pre_hook(lengthen, with_kwargs=True)
    loss, _, seen = learned(lambda plain: plain, model, tmp_path)
    assert seen == [(2, 12, 32)]
    found, _, seen = learned(sparing, model, tmp_path)
    assert seen == [(1, 6, 32)]
    assert found == pytest.approx(loss, rel=1e-6)


def test_a_model_that_peft_wraps_is_seen_through(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(language_model("llama"), LoraConfig(task_type="CAUSAL_LM", r=2)).eval()
    loss, gradients, seen = learned(lambda plain: plain, model, tmp_path)
    assert seen == [(2, 9, 32)]
    found, same, seen = learned(sparing, model, tmp_path)
    assert seen == [(1, 6, 32)]
    assert found == pytest.approx(loss, rel=1e-6)
    assert any(gradient is not None and gradient.any() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (same[name] is None) == (gradient is None)
        if gradient is not None:
            assert same[name].allclose(gradient, rtol=1e-4, atol=1e-7), name


def test_a_model_that_labels_whole_texts_is_left_as_it_is(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **SIZES)).eval()
    asked = batch() | {"labels": torch.tensor([0, 1])}
    losses = [trainer(one, model, tmp_path).compute_loss(model, dict(asked)) for one in (Trainer, sparing(Trainer))]
    assert losses[0].item() == losses[1].item()


def test_nothing_is_left_on_the_model(tmp_path: Path) -> None:
    from transformers import Trainer

    model = language_model("llama")
    trainer(sparing(Trainer), model, tmp_path).compute_loss(model, batch())
    assert not model._forward_pre_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert model(**batch()).logits.shape == (2, 9, 50)


@pytest.mark.parametrize("wider", [0, 4, 20])
def test_the_loss_of_a_span_is_that_of_each_text_alone_however_wide_it_was_padded(wider: int, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForQuestionAnswering, Trainer

    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", **SIZES)
    model = AutoModelForQuestionAnswering.from_config(config, attn_implementation="eager").eval()
    given, lengths, spans = batch(), (9, 6), ((5, 7), (4, 5))
    alone = [
        model(given["input_ids"][row : row + 1, :length], start_positions=torch.tensor([first]),
              end_positions=torch.tensor([last])).loss
        for row, (length, (first, last)) in enumerate(zip(lengths, spans, strict=True))
    ]  # fmt: skip
    inputs = {name: torch.nn.functional.pad(given[name], (0, wider)) for name in ("input_ids", "attention_mask")}
    inputs |= dict(zip(("start_positions", "end_positions"), torch.tensor(spans).T, strict=True))
    loss = trainer(sparing(Trainer), model, tmp_path).compute_loss(model, inputs)
    assert loss.item() == pytest.approx(sum(alone).item() / 2, rel=1e-5)
