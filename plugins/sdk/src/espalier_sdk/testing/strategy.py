"""The kit for model strategies: the blueprint tells exactly what is built, and the seed decides what is random."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from espalier_sdk.errors import EspalierError
from espalier_sdk.model import Blueprint, Head, ParameterInfo, Placement, Role
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import WORDS, batch, check_folder, contents, one_thread, write_base

HEAD = Head("sequence-classification", outputs=3, problem="single-label")
_TEXTS = [" ".join(WORDS[place : place + 6]) for place in range(0, 48, 3)]


@one_thread()
def check_strategy(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    refused: Sequence[Mapping[str, Any]] = (),
    head: Head = HEAD,
) -> Blueprint:
    """Checks a model strategy, on a tiny base where it needs one, and returns the blueprint.

    The tokenizer opens offline, has a padding token, and is the same when it is made again; the blueprint has the
    names and shapes that `build` makes, in order, with depths and roles in range, and new modules whose parameters
    are heads; without a base it is known before a tokenizer is made, and is as large at least; the seed alone decides
    what is random; weights of the base are kept; something is trained, and under `peft: required` adapters and new
    modules only; each config of `refused` is refused.
    """
    plugin = check_plugin("espalier.model_strategies", name)
    assert plugin.base in ("required", "forbidden"), f"{name}: base is {plugin.base!r}"
    assert plugin.peft in ("required", "forbidden"), f"{name}: peft is {plugin.peft!r}"
    assert 0 < plugin.learning_rate < 1, f"{name}: learning_rate is {plugin.learning_rate}"
    strategy = plugin(plugin.Config.model_validate(dict(config or {})))
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        base = place / "base" if plugin.base == "required" else None
        if base is not None:
            write_base(base)
        tokenizer = _check_tokenizer(name, strategy, base, place)
        blueprint: Blueprint = strategy.blueprint(head, tokenizer=tokenizer, base=base)
        _check_blueprint(name, blueprint, head)
        again = strategy.blueprint(head, tokenizer=tokenizer, base=base)
        assert again == blueprint, f"{name}: asked again, the blueprint is another"
        if base is None:
            _check_foretold(name, strategy.blueprint(head, tokenizer=None, base=None), blueprint)
        _check_built(name, strategy, blueprint, base)
        _check_trainable(name, plugin, strategy, blueprint)
        for wrong in refused:
            with pytest.raises((ValidationError, EspalierError)):
                plugin(plugin.Config.model_validate(dict(wrong))).blueprint(head, tokenizer=tokenizer, base=base)
    return blueprint


def _check_tokenizer(name: str, strategy: Any, base: Path | None, place: Path) -> Path:
    from transformers import AutoTokenizer

    first, second = place / "first", place / "second"
    strategy.tokenizer(iter(_TEXTS), base=base, out=first)
    strategy.tokenizer(iter(_TEXTS), base=base, out=second)
    check_folder(name, first, place)
    assert contents(first) == contents(second), f"{name}: the tokenizer is another when it is made again"
    tokenizer = AutoTokenizer.from_pretrained(first, local_files_only=True)
    assert tokenizer.pad_token_id is not None, f"{name}: the tokenizer has no padding token"
    ids = tokenizer(_TEXTS[0])["input_ids"]
    unknown = tokenizer.unk_token_id
    assert ids and set(ids) - {unknown}, f"{name}: the tokenizer knows no word of its own texts"
    return first


def _check_blueprint(name: str, blueprint: Blueprint, head: Head) -> None:
    assert blueprint.head == head, f"{name}: the blueprint's head is {blueprint.head}"
    json.dumps(dict(blueprint.config), allow_nan=False)
    names = [one.name for one in blueprint.parameters]
    assert names and len(set(names)) == len(names), f"{name}: the blueprint repeats a name, or has none"
    for one in blueprint.parameters:
        assert 0 <= one.depth <= blueprint.blocks + 1, f"{name}: {one.name} has depth {one.depth}"
        assert one.role in get_args(Role), f"{name}: {one.name} has role {one.role}"
    depths = {one.depth for one in blueprint.parameters}
    assert set(range(1, blueprint.blocks + 1)) <= depths, f"{name}: a block between 1 and {blueprint.blocks} is empty"
    for module in blueprint.new_modules:
        inside = [one for one in blueprint.parameters if one.name.startswith(f"{module}.")]
        assert inside, f"{name}: new module {module} has no parameter"
        assert all(one.role in ("head", "side", "norm") for one in inside), f"{name}: {module} is new and no head"


def _check_foretold(name: str, early: Blueprint, blueprint: Blueprint) -> None:
    both = list(zip(early.parameters, blueprint.parameters, strict=True))
    assert all(one.name == other.name for one, other in both), f"{name}: without a tokenizer, names are others"
    less = [one.name for one, other in both if one.count < other.count]
    assert not less, f"{name}: without a tokenizer, {', '.join(less)} is smaller than it becomes"


def _check_built(name: str, strategy: Any, blueprint: Blueprint, base: Path | None) -> None:
    import torch

    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(strategy.build(blueprint, base=base, placement=Placement()).eval())
    built = [(key, tuple(value.shape)) for key, value in models[0].named_parameters()]
    assert built == [(one.name, one.shape) for one in blueprint.parameters], f"{name}: build() is not the blueprint's"
    states = [model.state_dict() for model in models]
    equal = [all(torch.equal(states[0][key], state[key]) for key in state) for state in states[1:]]
    assert equal[0], f"{name}: the same seed gives other weights"
    assert not equal[1] or (base is not None and not blueprint.new_modules), f"{name}: the seed decides nothing"
    if base is not None:
        _check_kept(name, states[0], blueprint, base)
    inputs = batch([6, 4], side_width=blueprint.head.side_width)
    inputs["input_ids"] %= models[0].get_input_embeddings().num_embeddings
    with torch.no_grad():
        logits = models[0](**inputs).logits
    if blueprint.head.kind == "sequence-classification":
        assert tuple(logits.shape) == (2, blueprint.head.outputs), f"{name}: outputs have shape {tuple(logits.shape)}"


def _check_kept(name: str, state: Mapping[str, Any], blueprint: Blueprint, base: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(base / "model.safetensors")
    new = tuple(f"{module}." for module in blueprint.new_modules)
    old = [one.name for one in blueprint.parameters if not (new and one.name.startswith(new))]
    assert old, f"{name}: nothing of the base is used"
    for key in old:
        kept = next((weights[tail] for tail in _tails(key) if tail in weights), None)
        assert kept is not None and torch.equal(kept, state[key]), f"{name}: {key} is not the base's"


def _tails(name: str) -> list[str]:
    return [name, name.partition(".")[2]]


def _check_trainable(name: str, plugin: Any, strategy: Any, blueprint: Blueprint) -> None:
    adapter = ParameterInfo("any.adapter.weight", (2, 2), 1, "adapter")
    trained = [one for one in blueprint.parameters if strategy.trainable(one)]
    if plugin.peft == "required":
        assert strategy.trainable(adapter), f"{name}: adapters must be trained"
        new = tuple(f"{module}." for module in blueprint.new_modules)
        wrong = [one.name for one in trained if not (new and one.name.startswith(new))]
        assert not wrong, f"{name}: trains {wrong[0] if wrong else ''} of the base"
        assert len(trained) == sum(one.name.startswith(new) for one in blueprint.parameters) if new else not trained
    else:
        assert trained, f"{name}: trains nothing"
