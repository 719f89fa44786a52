"""The transformers engine: forward passes in batches of like length, and plain `generate`.

Knows nothing about tasks: it gets encoded rows and gives back what the head puts out.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from espalier_sdk import Adapter, DataError, Head, HeadKind, Placement, PluginConfig
from espalier_sdk.columns import ASKED, LABELS, LOGITS, NLL, SCORED_TOKENS, SIDE, TOP_SCORES, TOP_TOKENS
from espalier_sdk.fourbit import load_in_four_bits
from espalier_sdk.heads import load_model
from pydantic import Field, JsonValue

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

_IGNORED_LABEL = -100
_TOP = 10  # tokens that are answered per masked place
_MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


class TransformersConfig(PluginConfig):
    """How much is answered at once."""

    max_batch_tokens: int = Field(default=4096, ge=16, description="Padded tokens in one forward pass at most.")
    max_batch_rows: int = Field(default=64, ge=1, description="Rows in one forward pass at most.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: as torch finds them.")


class TransformersEngine:
    """Opens a Hugging Face folder, or adapters on one, and answers encoded rows in their order."""

    contract: ClassVar[int] = 1
    Config: ClassVar[type[TransformersConfig]] = TransformersConfig

    def __init__(self, config: TransformersConfig) -> None:
        self._config = config
        self._models: dict[str | None, torch.nn.Module] = {}
        self._device = "cpu"
        self._padding = 0
        self._kind: HeadKind | None = None

    def open(self, model: Path, *, head: Head, adapters: Mapping[str, Adapter], placement: Placement) -> None:
        """Loads safetensors weights. One adapter that can be merged is merged: it then costs nothing per answer.

        Beside a base in four bits it stays apart: merged, the base would be whole, and not fit where it was trained.
        """
        import torch

        if self._config.threads:
            torch.set_num_threads(self._config.threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._kind = head.kind
        if not adapters:
            self._keep(None, _load(model, head, placement))
        for name, adapter in adapters.items():
            # The base may carry another task's head: the adapter brings its own.
            base = _load(model, head, placement, ignore_mismatched_sizes=True)
            adapted = adapter.method.load(base, adapter.folder)
            merges = adapter.method.traits().mergeable and placement.quantise == "none"
            self._keep(name, adapter.method.merge(adapted) if merges else adapted)

    async def forward(self, encoded: pa.Table, *, adapter: str | None) -> pa.Table:
        """Returns the logits of each encoded row, in its order; the loop stays free meanwhile.

        One list per row for a sequence head; one per token for the others (for a span: start and end). For a
        causal-lm head the likelihood of the row's labels instead: NLL and SCORED_TOKENS; for a masked-lm head the ten
        likeliest tokens at the places of ASKED, and the likelihood of labels where there are some.
        """
        answer = {"causal-lm": self._score, "masked-lm": self._fill}.get(self._kind or "", self._forward)
        return await asyncio.to_thread(answer, encoded, self._model(adapter))

    async def generate(
        self, encoded: pa.Table, *, adapter: str | None, settings: Mapping[str, JsonValue]
    ) -> AsyncIterator[pa.RecordBatch]:
        """Yields, per batch of like length, the columns `place` and `tokens` (new tokens only)."""
        import pyarrow as pa

        for places in self._batches(encoded):
            tokens = await asyncio.to_thread(self._continue, encoded, places, self._model(adapter), settings)
            yield pa.record_batch(
                {"place": pa.array(places, pa.int64()), "tokens": pa.array(tokens, pa.list_(pa.int32()))}
            )

    def _model(self, adapter: str | None) -> torch.nn.Module:
        if adapter not in self._models:
            known = ", ".join(str(name) for name in self._models) or "nothing"
            raise DataError(f"adapter {adapter} is not open", code="unknown_adapter", given=adapter, accepted=known)
        return self._models[adapter]

    def _keep(self, name: str | None, model: torch.nn.Module) -> None:
        self._models[name] = model.eval().to(self._device)
        config: Any = model.config
        self._padding = config.pad_token_id or 0

    def _forward(self, encoded: pa.Table, model: torch.nn.Module) -> pa.Table:
        import pyarrow as pa
        import torch

        rows: list[Any] = [None] * encoded.num_rows
        with torch.inference_mode():
            for places in self._batches(encoded):
                inputs = self._tensors(encoded, places, left=False)
                logits = _logits(model(**inputs)).float().cpu().numpy()
                lengths = inputs["attention_mask"].sum(dim=1).tolist()
                for place, row, length in zip(places, logits, lengths, strict=True):
                    rows[place] = row if row.ndim == 1 else row[:length]  # a token's answer for tokens only
        kind = pa.list_(pa.float32()) if not rows or rows[0].ndim == 1 else pa.list_(pa.list_(pa.float32()))
        values = [row if row.ndim == 1 else list(row) for row in rows]
        return pa.table({LOGITS: pa.array(values, type=kind)})

    def _score(self, encoded: pa.Table, model: torch.nn.Module) -> pa.Table:
        """Returns NLL and SCORED_TOKENS; the logits of one batch are all that is ever held."""
        import pyarrow as pa
        import torch

        sums, counts = [0.0] * encoded.num_rows, [0] * encoded.num_rows
        labels = encoded.column(LABELS)
        with torch.inference_mode():
            for places in self._batches(encoded):
                logits = model(**self._tensors(encoded, places, left=False)).logits  # (batch, tokens, vocabulary)
                rows = _padded(labels.take(places).to_pylist(), _IGNORED_LABEL, left=False)
                wanted = torch.tensor(rows, dtype=torch.long, device=logits.device)[:, 1:]
                losses = torch.nn.functional.cross_entropy(
                    logits[:, :-1].float().transpose(1, 2), wanted, ignore_index=_IGNORED_LABEL, reduction="none"
                )
                scored = (wanted != _IGNORED_LABEL).sum(dim=1).tolist()
                for place, total, count in zip(places, losses.double().sum(dim=1).tolist(), scored, strict=True):
                    sums[place], counts[place] = total, count
        return pa.table({NLL: pa.array(sums, pa.float64()), SCORED_TOKENS: pa.array(counts, pa.int64())})

    def _fill(self, encoded: pa.Table, model: torch.nn.Module) -> pa.Table:
        """Returns TOP_TOKENS and TOP_SCORES, and with labels NLL and SCORED_TOKENS; only asked places are kept."""
        import pyarrow as pa
        import torch

        asked: list[list[int]] = encoded.column(ASKED).to_pylist()
        labels = encoded.column(LABELS).to_pylist() if LABELS in encoded.column_names else None
        found: list[Any] = [None] * encoded.num_rows
        with torch.inference_mode():
            for places in self._batches(encoded):
                logits = model(**self._tensors(encoded, places, left=False)).logits  # (batch, tokens, vocabulary)
                counts = [len(asked[place]) for place in places]
                rows = torch.arange(len(places)).repeat_interleave(torch.tensor(counts))
                columns = torch.tensor([at for place in places for at in asked[place]], dtype=torch.long)
                odds = logits[rows, columns].float().log_softmax(-1).cpu()  # (asked, vocabulary)
                scores, tokens = odds.exp().topk(min(_TOP, odds.shape[-1]))
                terms = torch.zeros(len(odds))
                if labels is not None:
                    wanted = torch.tensor([labels[place][at] for place in places for at in asked[place]])
                    terms = -odds.gather(1, wanted.long()[:, None])[:, 0]
                for place, *answer in zip(places, *(one.split(counts) for one in (tokens, scores, terms)), strict=True):
                    found[place] = answer
        told = {
            TOP_TOKENS: pa.array([tokens.tolist() for tokens, _, _ in found], pa.list_(pa.list_(pa.int32()))),
            TOP_SCORES: pa.array([scores.tolist() for _, scores, _ in found], pa.list_(pa.list_(pa.float32()))),
        }
        if labels is not None:
            told[NLL] = pa.array([float(terms.double().sum()) for _, _, terms in found], pa.float64())
            told[SCORED_TOKENS] = pa.array([len(terms) for _, _, terms in found], pa.int64())
        return pa.table(told)

    def _continue(
        self, encoded: pa.Table, places: list[int], model: Any, settings: Mapping[str, JsonValue]
    ) -> list[list[int]]:
        import torch

        inputs = self._tensors(encoded, places, left=True)
        with torch.inference_mode():
            output = model.generate(**inputs, pad_token_id=self._padding, **settings)
        ends = _end_tokens(model, settings)
        return [_until(row, ends) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]

    def _batches(self, encoded: pa.Table) -> Iterator[list[int]]:
        """Yields places of rows, longest first, so that a batch pads little and the largest comes first."""
        import pyarrow.compute as pc

        lengths: Sequence[int] = pc.list_value_length(encoded.column("input_ids")).to_pylist()
        order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
        start = 0
        while start < len(order):
            rows = min(
                self._config.max_batch_rows, max(1, self._config.max_batch_tokens // max(1, lengths[order[start]]))
            )
            yield order[start : start + rows]
            start += rows

    def _tensors(self, encoded: pa.Table, places: list[int], *, left: bool) -> dict[str, torch.Tensor]:
        import torch

        tensors = {}
        for name in _MODEL_COLUMNS:
            if name in encoded.column_names:
                rows = encoded.column(name).take(places).to_pylist()
                fill = self._padding if name == "input_ids" else 0
                padded = _padded(rows, fill, left=left)
                tensors[name] = torch.tensor(padded, dtype=torch.long, device=self._device)
        if SIDE in encoded.column_names:
            rows = encoded.column(SIDE).take(places).to_pylist()
            tensors[SIDE] = torch.tensor(rows, dtype=torch.float32, device=self._device)
        return tensors


def _padded(rows: Sequence[list[int]], fill: int, *, left: bool) -> list[list[int]]:
    width = max(len(row) for row in rows)
    if left:
        return [[fill] * (width - len(row)) + row for row in rows]
    return [row + [fill] * (width - len(row)) for row in rows]


def _logits(output: Any) -> torch.Tensor:
    import torch

    if "logits" in output:
        found: torch.Tensor = output.logits
        return found
    return torch.stack((output.start_logits, output.end_logits), dim=-1)  # (batch, tokens, 2)


def _end_tokens(model: Any, settings: Mapping[str, JsonValue]) -> set[int]:
    """Returns the tokens at which generation of a row ends."""
    given: Any = settings.get("eos_token_id", model.generation_config.eos_token_id)
    return set(given) if isinstance(given, list) else set() if given is None else {given}


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Returns the tokens up to the first end, with it: what follows pads a batch whose other rows went on."""
    stop = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:stop]


def _load(folder: Path, head: Head, placement: Placement, **options: Any) -> torch.nn.Module:
    import torch
    import transformers

    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT 0.21 reads it
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise DataError(
            "is no model folder with config.json and *.safetensors",
            file=str(folder),
            remedy="train the candidate again",
        )
    if placement.quantise == "nf4":
        return load_in_four_bits(folder, head, compute=placement.dtype, **options)
    return load_model(folder, head, dtype=getattr(torch, placement.dtype), **options)
