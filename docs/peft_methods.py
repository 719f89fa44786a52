"""The table of PEFT methods: what their traits say, and how many weights they train on the bundled base.

Knows no method by name: it lists what is installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

from espalier_runtime.plugins import Plugins
from espalier_sdk import Blueprint, Choice, EspalierError, Head, HeadKind

GROUP = "espalier.peft_methods"
BASE = "minilm"
HEAD = Head("sequence-classification", outputs=2)
COLUMNS = (
    "method",
    "heads",
    "ZeRO stages",
    "merges into the base",
    "mixes in a batch",
    "unchanged at step 0",
    "beside four bits",
    "opens with PEFT",
    "gradient checkpointing",
    "virtual tokens",
    "usual rate",
    "trained weights",
)


def peft_page() -> str:
    """Returns the table, one row per installed method at its default config."""
    plugins = Plugins()
    strategy = plugins.load("espalier.model_strategies", Choice(name="peft"))
    blueprint = _blueprint(plugins, strategy)
    head = sum(one.count for one in blueprint.parameters if strategy.trainable(one))
    base = sum(one.count for one in blueprint.parameters)
    names = sorted(found.name for found in plugins.inventory() if found.group == GROUP)
    rows = [_row(name, plugins.load(GROUP, Choice(name=name)), strategy, blueprint, head=head) for name in names]
    lines = [
        "# PEFT methods\n",
        "Each at its default config; other options may say otherwise (the README of the distribution tells). Trained",
        f"weights are those on `{BASE}` with a classification head of {HEAD.outputs} labels: {base:,} weights in all,",
        f"of which the head's {head:,} are trained with every method and counted here.\n",
        f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _blueprint(plugins: Plugins, strategy: Any) -> Blueprint:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = plugins.load("espalier.base_models", Choice(name=BASE))
        source.fetch(source.revision(), folder)
        found: Blueprint = strategy.blueprint(HEAD, tokenizer=folder, base=folder)
        return found


def _row(name: str, method: Any, strategy: Any, blueprint: Blueprint, *, head: int) -> tuple[str, ...]:
    traits = method.traits()
    try:
        trained = f"{head + sum(one.count for one in method.parameters(blueprint)):,}"
    except EspalierError:
        trained = "refuses this base"
    heads = "all" if traits.heads == set(get_args(HeadKind)) else ", ".join(sorted(traits.heads))
    return (
        f"`{name}`",
        heads,
        ", ".join(str(stage) for stage in sorted(traits.zero_stages)),
        _yes(traits.mergeable),
        _yes(traits.mixes_in_batch),
        _yes(traits.identity_at_start),
        _yes(traits.quantised),
        _yes(traits.opens_with_peft),
        _yes(traits.gradient_checkpointing),
        str(traits.virtual_tokens),
        f"{traits.learning_rate or strategy.learning_rate:g}",
        trained,
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
