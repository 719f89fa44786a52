"""The plugin protocols: one per kind of choice that a spec can make.

Annotations stay text, so that importing this needs neither torch, ray nor pyarrow; the loader compares
`inspect.signature` (names, kinds, defaults) and never resolves a type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data
    import torch
    from pydantic import BaseModel, JsonValue
    from transformers import PreTrainedTokenizerBase as Tokenizer
    from transformers import Trainer, TrainingArguments

    from espalier_sdk.choice import State as AnyState
    from espalier_sdk.model import (
        Adapter,
        Blueprint,
        Budget,
        Columns,
        Head,
        HeadKind,
        ParameterInfo,
        Parts,
        PeftTraits,
        Placement,
        Rule,
        Split,
        ZeroStage,
    )


class Plugin(Protocol):
    """What every plugin is: a class with a contract number, a `Config`, and a constructor that takes one."""

    contract: ClassVar[int]
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None: ...


class Fitted(Protocol):
    """What learns from the train split: a monoid, so that a for loop, Ray Data or SQL may run it."""

    State: ClassVar[type[Any]]

    def observe(self, rows: pa.Table) -> AnyState: ...
    def combine(self, left: Any, right: Any) -> AnyState: ...
    def finish(self, seen: Any) -> AnyState: ...


class Source(Plugin, Protocol):
    """Where documents come from."""

    def fingerprint(self) -> str | None:
        """Returns what changes when the content does; None where that cannot be known, so that it is read again."""
        ...

    def parts(self) -> Sequence[JsonValue]:
        """Returns independent parts in their lasting order; each is read by one worker."""
        ...

    def read(self, part: JsonValue) -> Iterator[pa.RecordBatch]:
        """Yields rows with the columns ORIGIN, LINE, ERROR and RAW beside the data's own."""
        ...


class BaseModelSource(Plugin, Protocol):
    """Where pre-trained weights come from."""

    def revision(self) -> str:
        """Returns what names these very weights for ever; it enters the request digest."""
        ...

    def fetch(self, revision: str, folder: Path) -> None:
        """Writes a Hugging Face folder (config, tokenizer, safetensors; never pickle)."""
        ...


class RecordTransform(Plugin, Protocol):
    """Changes or drops rows, one at a time, and learns nothing.

    One that changes texts so that their characters move, also has `rewrites_text: bool`, true: places in a text, such
    as spans, no longer fit it. It acts on the columns of its config's `columns`, or without those on all of text.
    """

    kind: ClassVar[Literal["record"]]
    at_serving: ClassVar[bool]

    @property
    def splits(self) -> frozenset[Split]: ...
    def apply(self, rows: pa.Table) -> pa.Table: ...


class FittedTransform(Plugin, Fitted, Protocol):
    """Changes rows by what it learned from the train split."""

    kind: ClassVar[Literal["fitted"]]
    at_serving: ClassVar[bool]

    @property
    def splits(self) -> frozenset[Split]: ...
    def apply(self, rows: pa.Table, *, state: Any) -> pa.Table: ...


class CorpusTransform(Plugin, Protocol):
    """Looks at the whole corpus; acts before the split, and never at serving."""

    kind: ClassVar[Literal["corpus"]]

    def apply(self, documents: ray.data.Dataset) -> ray.data.Dataset: ...


class Task(Plugin, Fitted, Protocol):
    """What is answered: columns, fitted state, encoding, decoding, request and response. Without torch.

    One whose target is no plain column also has `targets(rows)`, which returns what `encode` puts into TARGET:
    baselines learn from it; one that tags words also has `words(rows)`. One that the endpoint can answer, with one
    label for each text, has a true `served`. An export tells what the state says of the outputs: `labels` in
    their order, or of a regression `mean` and `deviation`, where they are deviations from the mean.
    """

    head_kind: ClassVar[HeadKind]  # known before anything is fitted, so that conflicts are found before any work

    def columns(self) -> Columns: ...
    def head(self, state: Any) -> Head: ...
    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table: ...
    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: Any) -> pa.Table: ...
    def request(self, state: Any) -> type[BaseModel]: ...
    def response(self, state: Any) -> type[BaseModel]: ...


class WritingTask(Task, Protocol):
    """A task with a causal-lm head: its answers are written, and texts are scored by their likelihood.

    `encode` gives what is trained on and scored: labels -100 where nothing is learned. One encoded row per row, save
    where a row asks nothing: a long text may be several. One whose rows hold a second answer, which was liked less,
    also has `others(rows)`: the same rows with that answer in place of the first, or None where there is none.
    """

    chat_template: str | None  # written beside a tokenizer that has none; None where nobody speaks in turns

    def texts(self, rows: pa.Table) -> Iterator[str]:
        """Yields what an own tokenizer is trained on."""
        ...

    def questions(self, rows: pa.Table, *, tokenizer: Tokenizer, budget: Budget) -> pa.Table | None:
        """Returns what to write on from, one row per row, with the column QUESTION; None where the rows ask nothing."""
        ...

    def settings(self, *, tokenizer: Tokenizer, budget: Budget) -> Mapping[str, JsonValue]:
        """Returns the settings of `Engine.generate`; question and answer together keep within the budget."""
        ...


class Learner(Plugin, Protocol):
    """Which signal a model is learned from. Training only.

    `heads` are those of the tasks that it goes with, `auxiliaries` the heads of other candidates' models that it asks
    while it trains, by role. One whose model puts out something else than the task asks for, such as a score for an
    answer, also has `head: Head`; one whose trainer has no loss on validation has `measures_loss: bool`, false;
    one that puts several texts into a row has `packs: bool`, true; one that compares rows with each other has
    `whole_split: bool`, true, and is given a split at once, where others get it in blocks. For the memory that is
    foretold, one that reads several sequences for each row of a batch has `sequences: int`, and one whose loss never
    has all logits has `loss_bytes(tokens, vocabulary, *, gpu)`: what it takes at once beside a model's last states.
    """

    heads: ClassVar[frozenset[HeadKind]]
    auxiliaries: ClassVar[Mapping[str, HeadKind]]
    needs_reference: ClassVar[bool]

    def columns(self, task: Task) -> Columns: ...
    def encode(self, rows: pa.Table, *, task: Task, state: Any, tokenizer: Tokenizer, budget: Budget) -> pa.Table: ...
    def trainer(self) -> type[Trainer]:
        """Returns a class; the service adds `create_optimizer`, because DeepSpeed loses one that is handed over."""
        ...

    def arguments(self, common: Mapping[str, Any]) -> TrainingArguments: ...
    def inputs(self, parts: Parts) -> Mapping[str, Any]:
        """Returns further arguments of the trainer: data_collator, reward_funcs, ref_model."""
        ...


class ModelStrategy(Plugin, Protocol):
    """How the model comes to be, and what of it may change.

    One that chooses a model's family itself also has `heads: frozenset[HeadKind]`: what that family can put out. One
    that opens its base in fewer bits also has `quantise: Quantise`, which `build` gets back in the placement.
    """

    base: ClassVar[Literal["required", "forbidden"]]
    peft: ClassVar[Literal["required", "forbidden"]]
    learning_rate: ClassVar[float]  # the usual peak rate, where a spec names none

    def tokenizer(self, texts: Iterable[str], *, base: Path | None, out: Path) -> None: ...
    def blueprint(self, head: Head, *, tokenizer: Path | None, base: Path | None) -> Blueprint:
        """Returns what `build` makes; before there is a tokenizer, with as many tokens as it may have."""
        ...

    def build(self, blueprint: Blueprint, *, base: Path | None, placement: Placement) -> torch.nn.Module: ...
    def trainable(self, parameter: ParameterInfo) -> bool: ...


class PeftMethod(Plugin, Protocol):
    """Which small part is trained. Token-level outputs and labels must align with `input_ids`.

    `inject` gets as many calibration batches as the traits ask for, labels included, on the model's device; none where
    the model lies on the meta device, because shapes alone are asked for. One whose shapes depend on them also has
    `placed(model, *, blueprint)`: what an injected model has, as `parameters` lists it, and no more weights than that.
    """

    def traits(self) -> PeftTraits: ...
    def parameters(self, blueprint: Blueprint) -> tuple[ParameterInfo, ...]:
        """Returns exactly what `inject` adds, before any weight is loaded."""
        ...

    def place(self, placement: Placement) -> Placement: ...
    def inject(
        self,
        model: torch.nn.Module,
        *,
        blueprint: Blueprint,
        placement: Placement,
        calibration: Iterable[Mapping[str, torch.Tensor]],
    ) -> torch.nn.Module: ...
    def after_step(self, model: torch.nn.Module, *, step: int, steps: int) -> None: ...
    def extra_state(self, model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
        """Returns what must survive a resume and `state_dict` misses."""
        ...

    def restore(self, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None: ...
    def save(self, model: torch.nn.Module, folder: Path) -> None: ...
    def load(self, model: torch.nn.Module, folder: Path) -> torch.nn.Module: ...
    def merge(self, model: torch.nn.Module) -> torch.nn.Module:
        """Folds the method into its base; raises NotMergeable where that cannot be done."""
        ...


class TrainingControl(Plugin, Protocol):
    """How far each weight may move, and when. Without torch and without state."""

    zero_stages: ClassVar[frozenset[ZeroStage]]

    def boundaries(self, parameters: Sequence[ParameterInfo], *, steps: int) -> Sequence[int]: ...
    def rule(self, parameter: ParameterInfo, *, blocks: int, step: int, steps: int) -> Rule: ...


class Metric(Plugin, Protocol):
    """How good predictions are. `reports` lists the values that are there whatever the data."""

    greater_is_better: ClassVar[bool]
    reports: ClassVar[tuple[str, ...]]

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns one figure per row for paired tests; None where the metric is no mean over rows."""
        ...

    def values(self, predictions: pa.Table) -> Mapping[str, float]: ...


class Engine(Plugin, Protocol):
    """How a model answers; evaluation and serving both use it."""

    def open(self, model: Path, *, head: Head, adapters: Mapping[str, Adapter], placement: Placement) -> None:
        """Opens a full model, or the base that adapters are loaded on."""
        ...

    async def forward(self, encoded: pa.Table, *, adapter: str | None) -> pa.Table:
        """Answers encoded rows in their order: LOGITS; for a causal-lm head NLL and SCORED_TOKENS over their labels.

        For a masked-lm head TOP_TOKENS and TOP_SCORES at the places of ASKED, and with labels also the other two.
        A vocabulary's logits for each token would not fit a table.
        """
        ...

    def generate(
        self, encoded: pa.Table, *, adapter: str | None, settings: Mapping[str, JsonValue]
    ) -> AsyncIterator[pa.RecordBatch]: ...
