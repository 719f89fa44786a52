"""Small typed stand-ins for plugins, and fake distributions that importlib.metadata really finds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from espalier_sdk import Columns, Head, HeadKind, ParameterInfo, PeftTraits, PluginConfig, Rule, ZeroStage


@dataclass
class FakeStrategy:
    """Trains parameters whose role is listed."""

    roles: tuple[str, ...] = ("embedding", "block", "norm", "head", "side", "adapter")
    base: Literal["required", "forbidden"] = "required"
    peft: Literal["required", "forbidden"] = "forbidden"

    def trainable(self, parameter: ParameterInfo) -> bool:
        """Tells whether the role is listed."""
        return parameter.role in self.roles


@dataclass
class FakeControl:
    """Rules by step: from each cut on, another rule for a depth."""

    cuts: tuple[int, ...] = ()
    rules: tuple[Rule, ...] = (Rule(),)
    zero_stages: frozenset[ZeroStage] = frozenset({0, 1, 2, 3})

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]:
        """Returns the cuts."""
        return self.cuts

    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule:
        """Returns the rule of the phase and the depth."""
        passed = sum(cut <= step for cut in self.cuts)
        return self.rules[(passed + parameter.depth) % len(self.rules)]


@dataclass
class FakeLearner:
    """Says which heads it trains, and which it builds where that is another."""

    heads: frozenset[HeadKind] = frozenset({"sequence-classification"})
    auxiliaries: Mapping[str, HeadKind] = field(default_factory=dict)
    needs_reference: bool = False
    head: Head | None = None
    measures_loss: bool = True
    packs: bool = False

    def columns(self, task: Any) -> Columns:
        """Returns none."""
        return Columns(required={})


@dataclass
class FakePeft:
    """Says its traits."""

    zero_stages: frozenset[ZeroStage] = frozenset({0, 1, 2, 3})
    heads: frozenset[HeadKind] = frozenset({"sequence-classification"})
    mergeable: bool = True
    quantised: bool = False
    gradient_checkpointing: bool = True
    virtual_tokens: int = 0

    def traits(self) -> PeftTraits:
        """Returns the traits."""
        return PeftTraits(
            self.zero_stages,
            self.heads,
            identity_at_start=True,
            mergeable=self.mergeable,
            mixes_in_batch=True,
            quantised=self.quantised,
            virtual_tokens=self.virtual_tokens,
            gradient_checkpointing=self.gradient_checkpointing,
        )


class FakeMetric:
    """A metric that fits its protocol."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = ("hits",)

    def __init__(self, config: PluginConfig) -> None: ...

    def rows(self, predictions: Any) -> Sequence[float] | None:
        """Returns nothing."""
        return None

    def values(self, predictions: Any) -> dict[str, float]:
        """Returns no value."""
        return {}


@dataclass
class FakeDistribution:
    """A distribution as an installer leaves it: a package, and a .dist-info folder with entry points."""

    name: str
    source: str
    points: dict[str, dict[str, str]] = field(default_factory=dict)
    version: str = "1.0"

    @property
    def package(self) -> str:
        """Returns the name of its import package."""
        return self.name.replace("-", "_").replace(".", "_").lower()

    def install(self, site: Path) -> Path:
        """Writes it into a folder that stands on sys.path, and returns the package."""
        package = site / self.package
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(textwrap.dedent(self.source), encoding="utf-8")
        info = site / f"{self.package}-{self.version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n")
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in self.points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        return package
