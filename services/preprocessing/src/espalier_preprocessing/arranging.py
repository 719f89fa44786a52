"""Which transforms act when: before the split those that learn nothing and act everywhere, after it the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from espalier_sdk.choice import Choice
from espalier_sdk.model import SPLITS


@dataclass(frozen=True, slots=True)
class Step:
    """A transform of the spec: a name that no other has, the choice, its plugin, and once it is fitted its state."""

    name: str
    choice: Choice
    plugin: Any
    state: Any = None

    @property
    def kind(self) -> str:
        """Returns record, fitted or corpus."""
        return str(self.plugin.kind)

    @property
    def at_serving(self) -> bool:
        """Tells whether serving applies it too."""
        return self.kind != "corpus" and bool(self.plugin.at_serving)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Transforms in the order in which they act."""

    early: tuple[Step, ...]  # record transforms that act on all splits, and corpus transforms
    late: tuple[Step, ...]  # those that learn from the train split, and those that name splits


def arrange(choices: Sequence[Choice], plugins: Sequence[Any]) -> Arrangement:
    """Returns the transforms of a spec in the order in which they act; within each half as the spec has them.

    Two uses of one transform get numbers, `filter` and `filter-2`, so that counts can be told apart.
    """
    early: list[Step] = []
    late: list[Step] = []
    used: dict[str, int] = {}
    for choice, plugin in zip(choices, plugins, strict=True):
        used[choice.name] = used.get(choice.name, 0) + 1
        label = choice.name if used[choice.name] == 1 else f"{choice.name}-{used[choice.name]}"
        step = Step(label, choice, plugin)
        (early if _acts_early(plugin) else late).append(step)
    return Arrangement(tuple(early), tuple(late))


def _acts_early(plugin: Any) -> bool:
    return plugin.kind == "corpus" or (plugin.kind == "record" and bool(plugin.splits == frozenset(SPLITS)))
