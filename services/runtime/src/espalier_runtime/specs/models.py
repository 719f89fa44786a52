"""The spec: what is asked, as frozen models with one sentence for each field.

Fields marked `Where` say where and how fast, never what: they are recorded, and left out of request digests.
Knows nothing about files, plugins or stages.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from espalier_sdk.choice import Choice
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    SerializerFunctionWrapHandler,
    Strict,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
# Strict: `true` is no number, `"3"` is text, and 2.0 workers are no whole number.
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
Where = "where"  # marks a field that does not enter request digests


class SpecModel(BaseModel):
    """The base of all parts of a spec: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Objective(SpecModel):
    """What the model shall do, and how good is good enough."""

    task: Choice = Field(description="What is answered.")
    metric: str = Field(description="The value that candidates are compared by, as a metric reports it.")
    at_least: Number | None = Field(default=None, description="The metric must not be below this.")
    at_most: Number | None = Field(default=None, description="The metric must not be above this.")
    cost: Literal["trainable_parameters", "train_seconds", "peak_memory_bytes", "size_bytes"] = Field(
        default="trainable_parameters",
        description="What 'cheapest' means when several candidates are within one standard error of the best.",
    )


class SplitSpec(SpecModel):
    """How the dataset is divided into train, validation and test."""

    by: Literal["hash", "column"] = Field(
        default="hash", description="hash: by the content of the row or its group; column: as a column says."
    )
    test: Number = Field(default=0.2, ge=0, lt=1, description="Share of the test split; 0: validation stands for it.")
    validation: Number = Field(default=0.1, ge=0, lt=1, description="Share of the validation split.")
    group: str | None = Field(default=None, description="Rows with the same value of this column stay together.")
    column: str | None = Field(
        default=None, description="With by: column, the column that says train, validation or test."
    )
    salt: str = Field(default="", description="Another salt gives another split of the same shares.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.by == "column" and self.column is None:
            raise ValueError("by: column needs `column:`, the name of the column that holds the split")
        if self.by == "hash" and self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} + validation {self.validation} leave nothing to train on")
        if self.by == "hash" and self.validation == 0:
            raise ValueError("validation 0 leaves nothing to compare candidates on; 0.1 is usual")
        return self


class DataSpec(SpecModel):
    """Where data comes from, what happens to it, and how it is divided."""

    sources: tuple[Choice, ...] = Field(min_length=1, description="Where documents come from, read in this order.")
    transforms: tuple[Choice, ...] = Field(default=(), description="What happens to them, in this order.")
    split: SplitSpec = Field(default_factory=SplitSpec, description="How they are divided.")
    bad_rows: Number = Field(
        default=0.05, ge=0, le=1, description="Share of rows that may be unreadable before the stage ends in an error."
    )
    as_of: str | None = Field(
        default=None, description="A date or label that stands for the state of a source that cannot tell its own."
    )


class From(SpecModel):
    """A reference to another candidate's model."""

    from_: Name = Field(alias="from", description="The candidate whose model is meant.")
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


def _branch(value: Any) -> str:
    """Tells which of the two a `base` is, so that its errors speak of that one only."""
    return "From" if isinstance(value, From) or (isinstance(value, dict) and "from" in value) else "Choice"


class _AnyOf:
    """Writes a union as `anyOf`, the word that all other unions of the schema use."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        if "oneOf" in found:
            found["anyOf"] = found.pop("oneOf")
        return found


Base = Annotated[Annotated[Choice, Tag("Choice")] | Annotated[From, Tag("From")], Discriminator(_branch), _AnyOf()]


class TrainingSpec(SpecModel):
    """How long and how fast a candidate learns; what would change the weights."""

    epochs: Number = Field(default=3.0, gt=0, le=1000, description="Passes over the train split.")
    max_steps: Whole | None = Field(default=None, ge=1, description="Optimizer steps at most, instead of epochs.")
    batch_size: Whole = Field(default=16, ge=1, description="Examples per optimizer step, over all workers.")
    learning_rate: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Peak learning rate; default: what is usual for the PEFT method, or the strategy.",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(default="linear", description="Shape of the decay.")
    warmup: Number = Field(default=0.1, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    weight_decay: Number = Field(default=0.01, ge=0, description="Decoupled weight decay (AdamW).")
    max_grad_norm: Number = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    max_tokens: Whole = Field(
        default=128, ge=8, le=131072, description="Longest example in tokens; longer ones are cut."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Arithmetic of training (weights stay float32); auto: bfloat16 where the hardware is faster in it.",
    )
    validations: Whole = Field(
        default=4, ge=0, le=1000, description="How often the validation loss is measured, evenly over training."
    )
    early_stopping: Whole | None = Field(
        default=None,
        ge=1,
        description="Ends after so many validations without a lower loss, and keeps the weights of the lowest.",
    )
    train_share: Number = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the train split that is learned from, drawn by `seed`, in as many steps as all of it.",
    )
    seed: Whole = Field(default=0, ge=0, description="Seed of weights, order and dropout.")


class WhereSpec(SpecModel):
    """Where a candidate is trained: workers, their size, how the model is laid over them."""

    pool: Name | None = Field(
        default=None,
        description="Pool of the cluster; default: the first with GPUs where some are asked for, else `cpu`. "
        "On one machine it means nothing.",
    )
    workers: Whole = Field(default=1, ge=1, le=4096, description="Processes that train together.")
    cpus_per_worker: Number | None = Field(
        default=None, gt=0, description="CPUs each; default: an equal share of a node."
    )
    gpus_per_worker: Number = Field(default=0, ge=0, description="GPUs each: one, or a part of one.")
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage; 0 is plain data parallelism.")
    offload: Literal["none", "optimizer", "all"] = Field(
        default="none",
        description="What ZeRO keeps in the memory of the host: the optimizer's state (stage 1 and up), or also the "
        "weights (stage 3).",
    )
    gradient_checkpointing: Flag = Field(
        default=False, description="Computes activations again in the backward pass: less memory, about a third slower."
    )
    compile: Flag = Field(
        default=False,
        description="Compiles the model's blocks on the worker (torch.compile): faster on GPUs, for trainings that are "
        "longer than the half minute that it takes.",
    )
    micro_batch_size: Whole | None = Field(default=None, ge=1, description="Examples in memory at once per worker.")
    checkpoint_steps: Whole = Field(
        default=200,
        ge=1,
        description="Optimizer steps between checkpoints, from which an interrupted training goes on.",
    )
    max_failures: Whole = Field(default=2, ge=0, description="How often lost workers are replaced.")
    from_checkpoint: str | None = Field(
        default=None,
        pattern="^/",
        description="A committed checkpoint of this very training to go on from, checkpoint-STEP by its whole path; "
        "default: the newest that is there.",
    )

    @model_validator(mode="after")
    def _compiled_whole(self) -> Self:
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile: true does not go with zero_stage 3, which gathers weights while a block computes"
            )
        return self


class RangeSpec(SpecModel):
    """The values that a search may give one field: exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})
    choice: tuple[JsonValue, ...] | None = Field(default=None, min_length=1, description="One of these values.")
    uniform: tuple[Number, Number] | None = Field(default=None, description="A number from low to high.")
    log_uniform: tuple[Number, Number] | None = Field(
        default=None, description="A number from low to high, each order of magnitude as likely as the next."
    )
    integer: tuple[Whole, Whole] | None = Field(default=None, description="A whole number from low to high.")
    log_integer: tuple[Whole, Whole] | None = Field(
        default=None, description="A whole number from low to high, each order of magnitude as likely as the next."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        said = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(said) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(type(self).model_fields)}; has {', '.join(said) or 'none'}"
            )
        ends = self.ends
        if self.choice is None and not ends[0] < ends[1]:
            raise ValueError(f"{said[0]} {list(ends)}: low must be below high")
        if said[0].startswith("log_") and ends[0] <= 0:
            raise ValueError(f"{said[0]} {list(ends)}: both must be above 0")
        return self

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    @property
    def ends(self) -> tuple[Any, ...]:
        """Returns low and high, or every choice."""
        return self.choice or self.uniform or self.log_uniform or self.integer or self.log_integer or ()


class TuneSpec(SpecModel):
    """A search for the values with which a candidate does best on validation."""

    space: dict[str, RangeSpec] = Field(
        min_length=1,
        description="What is searched: a field of the candidate, such as `training.learning_rate` or "
        "`peft.config.rank`, and the values that it may have.",
    )
    trials: Whole | None = Field(
        default=None, ge=1, le=10000, description="How many are tried; default: 12, with `grid` all combinations."
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        default="tpe",
        description="tpe: learns from the trials before where good values lie; random: does not; grid: every "
        "combination of choices.",
    )
    scheduler: Literal["none", "asha"] = Field(
        default="none",
        description="asha: of the trials that came as far, two thirds are stopped early, by their validation loss.",
    )
    seeds: Whole = Field(
        default=1,
        ge=1,
        le=100,
        description="Trainings per trial, from `training.seed` on; the mean of their scores counts.",
    )
    seed: Whole = Field(default=0, ge=0, description="Seed of the search itself.")

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError(f"grid tries all {self.count} combinations: remove `trials`, or use another sampler")
        if self.sampler == "grid" and any(one.choice is None for one in self.space.values()):
            raise ValueError("grid needs `choice` for every field: a range has no end of values")
        return self

    @property
    def count(self) -> int:
        """Returns how many trials there are."""
        if self.sampler == "grid":
            return math.prod(len(one.ends) for one in self.space.values())
        return self.trials or 12


class Candidate(SpecModel):
    """One way of building the model."""

    strategy: Choice = Field(description="How the model comes to be and what may change.")
    base: Base | None = Field(default=None, description="Pre-trained weights, or {from: another candidate}.")
    peft: Choice | None = Field(default=None, description="The small part that is trained.")
    learner: Choice = Field(default=Choice(name="supervised"), description="Which signal it is learned from.")
    controls: tuple[Choice, ...] = Field(default=(), description="How far weights may move, and when.")
    data: Name | None = Field(default=None, description="Which of `data` it learns from; default: the only one.")
    task: Choice | None = Field(default=None, description="Another task than the objective's.")
    auxiliaries: dict[Name, From] = Field(default_factory=dict, description="Other candidates' models that help.")
    competes: Flag = Field(default=True, description="False: built for others to use, not compared or served.")
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="How long and how fast it learns.")
    tune: TuneSpec | None = Field(default=None, description="A search for its best values, on validation.")
    learning_curve: tuple[Annotated[Number, Field(gt=0, lt=1)], ...] = Field(
        default=(),
        description="Shares of the train split on which it is trained as well, to see what more data would do.",
    )
    where: WhereSpec = Field(
        default_factory=WhereSpec, description="Where it is trained.", json_schema_extra={Where: True}
    )

    def references(self) -> dict[str, str]:
        """Returns the candidates that this one needs, by the field that names them."""
        found = {f"auxiliaries.{name}.from": other.from_ for name, other in self.auxiliaries.items()}
        if isinstance(self.base, From):
            found["base.from"] = self.base.from_
        return found


class EvaluateSpec(SpecModel):
    """How candidates are measured."""

    metrics: tuple[Choice, ...] = Field(
        default=tuple(Choice(name=name) for name in ("accuracy", "precision", "recall", "f1", "confusion-matrix")),
        min_length=1,
        description="How good is measured; the objective's metric must be among their values.",
    )
    engine: Choice = Field(default=Choice(name="transformers"), description="How a model answers.")
    confidence: Number = Field(default=0.95, gt=0.5, lt=1, description="Confidence of the bootstrap intervals.")
    resamples: Whole = Field(default=1000, ge=100, description="Bootstrap resamples per interval.")
    seed: Whole = Field(default=0, ge=0, description="Seed of the resamples.")


class ServeSpec(SpecModel):
    """Which models are proposed to which endpoint. An endpoint that has a champion keeps it."""

    endpoint: Name = Field(description="The endpoint's name.")
    bootstrap: Name = Field(
        default="chosen", description="`chosen`, `runner-up` or a candidate: an empty endpoint's first."
    )
    challenger: Name | None = Field(default=None, description="`chosen`, `runner-up` or a candidate: tried against it.")
    weights: tuple[Annotated[Whole, Field(ge=1, le=99)], Annotated[Whole, Field(ge=1, le=99)]] = Field(
        default=(50, 50), description="Champion's and challenger's share of enrolled units; they sum to 100."
    )
    coverage: Number = Field(default=1.0, ge=0, le=1, description="Share of units that are enrolled.")
    unit: Literal["user", "conversation", "request"] = Field(default="user", description="Who stays with one variant.")

    @field_validator("weights")
    @classmethod
    def _sum(cls, value: tuple[int, int]) -> tuple[int, int]:
        if sum(value) != 100:
            raise ValueError(f"they sum to {sum(value)}, and must sum to 100")
        return value


class ResourceSpec(SpecModel):
    """Where the pipeline as a whole runs."""

    cpus: Whole | None = Field(default=None, ge=1, description="CPUs of the local Ray; default: all of this machine.")
    memory_gib: Number | None = Field(default=None, gt=0, description="Memory of the local Ray; default: Ray's own.")


class Spec(SpecModel):
    """All that one pipeline is asked to do."""

    name: Name = Field(description="Names the pipeline; runs and artifacts carry it.")
    objective: Objective = Field(description="What the model shall do, and how good is good enough.")
    data: dict[Name, DataSpec] = Field(min_length=1, description="Data sets by name.")
    candidates: dict[Name, Candidate] = Field(min_length=1, description="Ways of building the model, by name.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="How candidates are measured.")
    serve: ServeSpec | None = Field(default=None, description="Which models are proposed to which endpoint.")
    where: ResourceSpec = Field(
        default_factory=ResourceSpec, description="Where the pipeline runs.", json_schema_extra={Where: True}
    )

    def data_name(self, candidate: Candidate) -> str:
        """Returns the name of the data that a candidate learns from."""
        return candidate.data or next(iter(self.data))

    def task_of(self, candidate: Candidate) -> Choice:
        """Returns the task that a candidate learns."""
        return candidate.task or self.objective.task
