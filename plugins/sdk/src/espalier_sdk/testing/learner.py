"""The kit for learners: columns, encoding, a trainer class that the service can drive, and a loss that falls."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from espalier_sdk.choice import PluginConfig, State
from espalier_sdk.columns import ENCODED_ROW, LABELS, RESERVED_PREFIX, SCORED_BYTES, TARGET
from espalier_sdk.model import Budget, Columns, Head, HeadKind, Parts
from espalier_sdk.planning import built_head
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import WORDS, Family, one_thread, tiny, write_tokenizer

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

_OWNED = ("model", "args", "train_dataset", "eval_dataset", "optimizers", "callbacks", "processing_class")
_NOT_TRAINED = (ENCODED_ROW, SCORED_BYTES, TARGET)
_POSITIONS = "position_ids"
_STEPS = 24


@one_thread()
def check_learner(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    rows: pa.Table | None = None,
    task: Any = None,
) -> None:
    """Checks a learner by training a tiny encoder, or a decoder where the task writes, for a few steps.

    Without `rows` and `task`, the kit's own texts of two kinds are learned. The columns that the learner needs are
    in the rows; encoding is deterministic; one that `packs` makes rows of several texts, and no other does; the trainer
    is a class of transformers' family; the arguments keep what the service says; the inputs leave alone what the
    service owns; the loss is finite and falls, and is measured on validation. One that measures none there
    (`measures_loss` is false) logs `reward`, which rises. `sequences` is what a row is in a training pass, and with
    `loss_bytes` no pass has all logits. The reference and the models of other roles, tiny ones with
    one output each, are as they were.
    """
    import pyarrow as pa

    plugin = check_plugin("espalier.learners", name)
    assert plugin.heads and plugin.heads <= set(get_args(HeadKind)), f"{name}: heads is {plugin.heads}"
    assert set(plugin.auxiliaries.values()) <= set(get_args(HeadKind)), f"{name}: auxiliaries {plugin.auxiliaries}"
    taken = sorted({"dataset", "base"} & set(plugin.auxiliaries))
    assert not taken, f"{name}: auxiliaries has the role {', '.join(taken)}, which is an input of every training"
    assert isinstance(plugin.needs_reference, bool), f"{name}: needs_reference must be a bool"
    learner = plugin(plugin.Config.model_validate(dict(config or {})))
    task = task or TwoKinds(PluginConfig())
    rows = rows if rows is not None else pa.Table.from_pylist(TwoKinds.rows())
    columns = learner.columns(task)
    assert isinstance(columns, Columns), f"{name}: columns() must be Columns"
    absent = [column for column in columns.required if column not in rows.column_names]
    assert not absent, f"{name}: needs {', '.join(absent)}, which the rows lack"
    with tempfile.TemporaryDirectory() as folder:
        _check_training(name, learner, task, rows, Path(folder))


def _check_training(name: str, learner: Any, task: Any, rows: pa.Table, place: Path) -> None:
    import torch
    from transformers import AutoTokenizer, Trainer, TrainingArguments

    write_tokenizer(place / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(place / "tokenizer", local_files_only=True)
    tokenizer.eos_token = tokenizer.sep_token  # as tokenizers of models that write have one
    state = task.finish(task.observe(rows))
    options = {"task": task, "state": state, "tokenizer": tokenizer, "budget": Budget(max_tokens=16)}
    encoded = learner.encode(rows, **options)
    assert encoded.equals(learner.encode(rows, **options)), f"{name}: encoding again gives other rows"
    begun = [sum(place == 0 for place in places) for places in encoded.to_pydict().get(_POSITIONS, [])]
    packs = getattr(learner, "packs", False)
    assert packs == (max(begun, default=1) > 1), (
        f"{name}: packs is {packs}, and a row has {max(begun, default=1)} texts"
    )
    kind = learner.trainer()
    assert isinstance(kind, type) and issubclass(kind, Trainer), f"{name}: trainer() must be a Trainer class"
    common = _common(place / "out")
    arguments = learner.arguments(common)
    assert isinstance(arguments, TrainingArguments), f"{name}: arguments() must be TrainingArguments"
    changed = [key for key, value in common.items() if key != "report_to" and getattr(arguments, key) != value]
    assert not changed, f"{name}: arguments() changes {', '.join(changed)}, which the service decides"
    family: Family = "llama" if task.head_kind == "causal-lm" else "bert"
    model = tiny(family, built_head(learner, task.head(state))).model
    reference = copy.deepcopy(model).requires_grad_(False) if learner.needs_reference else None
    asked = {
        role: tiny(family, Head(kind, outputs=1), seed=place).model.requires_grad_(False).eval()
        for place, (role, kind) in enumerate(learner.auxiliaries.items(), 1)
    }
    others = {**asked, **({"the reference": reference} if reference else {})}
    before = {who: copy.deepcopy(one.state_dict()) for who, one in others.items()}
    auxiliaries = {role: (one, tokenizer) for role, one in asked.items()}
    inputs = dict(learner.inputs(Parts(model, tokenizer, reference, auxiliaries)))
    owned = [key for key in inputs if key in _OWNED]
    assert not owned, f"{name}: inputs() holds {', '.join(owned)}, which the service gives"
    trained = [key for key in encoded.column_names if key not in _NOT_TRAINED and not key.startswith(RESERVED_PREFIX)]
    examples = [{key: row[key] for key in trained} for row in encoded.to_pylist()]
    torch.manual_seed(0)
    given = {"train_dataset": examples, "eval_dataset": examples, "processing_class": tokenizer}
    trainer = kind(model=model, args=arguments, **given, **inputs)
    with _passes(model) as (sequences, logits):
        trainer.train()
    most, told = -(-max(sequences) // common["per_device_train_batch_size"]), getattr(learner, "sequences", 1)
    assert most == told, f"{name}: sequences is {told}, and a row of a batch is {most} in a training pass"
    if (pieces := getattr(learner, "loss_bytes", None)) is not None:
        assert not logits, f"{name}: loss_bytes() stands for a loss without all logits, and training passes have them"
        assert pieces(64, 1000, gpu=False) > 0 and pieces(64, 1000, gpu=True) > 0, f"{name}: loss_bytes() is nothing"
    for who, one in others.items():
        changed = [key for key, value in one.state_dict().items() if not value.equal(before[who][key])]
        assert not changed, f"{name}: training changes {who}: {', '.join(changed)}"
    _check_learned(name, trainer, measures_loss=getattr(learner, "measures_loss", True))


@contextmanager
def _passes(model: Any) -> Iterator[tuple[list[int], list[bool]]]:
    """Lists the sequences of each pass that a backward pass follows, and which of them end in a head's own logits."""
    import torch

    sequences: list[int] = []
    logits: list[bool] = []

    def read(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            sequences.append(len(given[0]))

    def put_out(*_: Any) -> None:
        if torch.is_grad_enabled():
            logits.append(True)

    hooks = [model.get_input_embeddings().register_forward_pre_hook(read)]
    if (head := model.get_output_embeddings()) is not None:
        hooks.append(head.register_forward_hook(put_out))
    try:
        yield sequences, logits
    finally:
        for hook in hooks:
            hook.remove()


def _check_learned(name: str, trainer: Any, *, measures_loss: bool) -> None:
    measured = trainer.evaluate()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses and all(loss == loss and abs(loss) < 1e6 for loss in losses), f"{name}: the loss is {losses}"
    assert ("eval_loss" in measured) == measures_loss, (
        f"{name}: measures_loss is {measures_loss}, and validation gives {', '.join(measured)}"
    )
    if measures_loss:
        first, last = _ends(losses)
        assert last < first, f"{name}: over {_STEPS} steps the loss goes from {first:.3f} to {last:.3f}"
        return
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards, f"{name}: measures no loss and logs no `reward`, so nobody sees whether it learns"
    first, last = _ends(rewards)
    assert last > first, f"{name}: over {_STEPS} steps the reward goes from {first:.3f} to {last:.3f}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Returns the means of the first and of the last third."""
    third = max(1, len(values) // 3)
    return sum(values[:third]) / third, sum(values[-third:]) / third


def _common(out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": _STEPS,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "seed": 0,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "prediction_loss_only": True,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


class _TwoKindsState(State):
    """Nothing is learned."""


class TwoKinds:
    """The kit's own task: texts of one half of the words, and texts of the other."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[PluginConfig]] = PluginConfig
    State: ClassVar[type[_TwoKindsState]] = _TwoKindsState
    head_kind: ClassVar[HeadKind] = "sequence-classification"

    def __init__(self, config: PluginConfig) -> None:
        self._config = config

    @staticmethod
    def rows() -> list[dict[str, Any]]:
        """Returns 16 rows."""
        half = len(WORDS) // 2
        return [
            {"text": " ".join(WORDS[start + side * half : start + side * half + 5]), "label": side}
            for start in range(8)
            for side in (0, 1)
        ]

    def columns(self) -> Columns:
        """Returns text and label."""
        return Columns(required={"text": "text", "label": "label"})

    def observe(self, rows: pa.Table) -> _TwoKindsState:
        """Sees nothing."""
        return _TwoKindsState()

    def combine(self, left: Any, right: Any) -> _TwoKindsState:
        """Combines nothing."""
        return _TwoKindsState()

    def finish(self, seen: Any) -> _TwoKindsState:
        """Learns nothing."""
        return _TwoKindsState()

    def head(self, state: Any) -> Head:
        """Returns a head of two outputs."""
        return Head("sequence-classification", outputs=2, problem="single-label")

    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Any, budget: Budget) -> pa.Table:
        """Returns tokens and labels."""
        import pyarrow as pa

        tokens = tokenizer(rows.column("text").to_pylist(), truncation=True, max_length=budget.max_tokens)
        labels = rows.column("label")
        return pa.table(
            {
                ENCODED_ROW: pa.array(range(rows.num_rows), pa.int64()),
                "input_ids": pa.array(tokens["input_ids"], pa.list_(pa.int32())),
                "attention_mask": pa.array(tokens["attention_mask"], pa.list_(pa.int8())),
                LABELS: labels,
                TARGET: labels,
            }
        )
