"""The kit for engines: rows keep their order, batches change nothing, adapters are kept apart, generation is exact."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from espalier_sdk.columns import ASKED, LABELS, LOGITS, NLL, SCORED_TOKENS, SIDE, TOP_SCORES, TOP_TOKENS
from espalier_sdk.errors import EspalierError
from espalier_sdk.model import Adapter, Head, PeftTraits, Placement
from espalier_sdk.testing.plugin import check_plugin
from espalier_sdk.testing.tiny import batch, one_thread, tiny, write_tokenizer

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

_LENGTHS = (5, 3, 9, 1, 7, 9, 4)
_NEW_TOKENS = 6
_HEAD = Head("sequence-classification", outputs=3, problem="single-label")
_TOKEN_HEAD = Head("token-classification", outputs=4)
_SIDE_HEAD = Head("sequence-classification", outputs=1, side_width=3, problem="regression")


@one_thread()
def check_engine(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    configs: Sequence[Mapping[str, Any]] = (),
    tolerance: float = 1e-5,
    generates: bool = True,
) -> None:
    """Checks an engine on tiny models, with `config` and again with each of `configs` (other ways of batching).

    Answers come in the order of the rows and are those of the model on each row alone, within `tolerance`, with and
    without side columns; answers per token have one entry per token of the row, none for padding; no rows give no
    answers; several questions at once do not disturb each other; each adapter answers as itself, merged or not; an
    unknown adapter and a folder without safetensors are refused; greedy generation and likelihoods are those of the
    model on each row alone, and so are the likeliest tokens at masked places.
    """
    plugin = check_plugin("espalier.engines", name)
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        for options in (dict(config or {}), *map(dict, configs)):
            label = f"{name} with {options}"

            def make(options: dict[str, Any] = options) -> Any:
                return plugin(plugin.Config.model_validate(options))

            _check_forward(label, make(), place / "rows", _HEAD, tolerance)
            _check_forward(label, make(), place / "tokens", _TOKEN_HEAD, tolerance)
            _check_forward(label, make(), place / "side", _SIDE_HEAD, tolerance)
            _check_masked(label, make(), place / "masked", tolerance)
            _check_adapters(label, make(), place, tolerance)
            if generates:
                _check_generation(label, make(), place / "decoder", tolerance)
        _check_refusals(name, plugin, place)


def _write(folder: Path, family: Any, head: Head) -> torch.nn.Module:
    model = tiny(family, head).model.eval()
    saved: Any = model
    saved.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def _encoded(inputs: Mapping[str, torch.Tensor]) -> pa.Table:
    import pyarrow as pa

    masks = [[1] * int(mask.sum()) for mask in inputs["attention_mask"]]
    ids = [row[: len(mask)].tolist() for row, mask in zip(inputs["input_ids"], masks, strict=True)]
    table = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "attention_mask": pa.array(masks, pa.list_(pa.int8()))}
    if SIDE in inputs:
        table[SIDE] = pa.array(inputs[SIDE].tolist(), pa.list_(pa.float32()))
    return pa.table(table)


def _alone(model: torch.nn.Module, table: pa.Table) -> list[torch.Tensor]:
    import torch

    read = [name for name in ("input_ids", SIDE) if name in table.column_names]
    with torch.no_grad():
        return [
            model(**{name: torch.tensor([value]) for name, value in row.items()}).logits[0]
            for row in table.select(read).to_pylist()
        ]


def _check_forward(label: str, engine: Any, folder: Path, head: Head, tolerance: float) -> None:
    model = _write(folder, "bert", head)
    engine.open(folder, head=head, adapters={}, placement=Placement())
    table = _encoded(batch(_LENGTHS, side_width=head.side_width))
    wanted = _alone(model, table)
    found = asyncio.run(engine.forward(table, adapter=None))
    _check_answers(label, found, wanted, tolerance)
    backwards = table.take(list(range(table.num_rows))[::-1])
    _check_answers(
        f"{label}, rows reversed", asyncio.run(engine.forward(backwards, adapter=None)), wanted[::-1], tolerance
    )
    assert asyncio.run(engine.forward(table.slice(0, 0), adapter=None)).num_rows == 0, f"{label}: no rows, no answers"

    async def together() -> list[pa.Table]:
        parts = [table.slice(place, 1) for place in range(table.num_rows)]
        return list(await asyncio.gather(*(engine.forward(part, adapter=None) for part in parts)))

    for answer, logits in zip(asyncio.run(together()), wanted, strict=True):
        _check_answers(f"{label}, several at once", answer, [logits], tolerance)


def _check_answers(label: str, found: pa.Table, wanted: Sequence[torch.Tensor], tolerance: float) -> None:
    import torch

    assert LOGITS in found.column_names, f"{label}: forward() must have {LOGITS!r}"
    assert found.num_rows == len(wanted), f"{label}: {found.num_rows} answers for {len(wanted)} rows"
    for place, (row, logits) in enumerate(zip(found.column(LOGITS).to_pylist(), wanted, strict=True)):
        answer = torch.tensor(row)
        assert answer.shape == logits.shape, f"{label}: row {place} has shape {tuple(answer.shape)}"
        distance = float((answer - logits).abs().max())
        assert distance <= tolerance, f"{label}: row {place} differs by {distance:.2g} from the row alone"


def _check_masked(label: str, engine: Any, folder: Path, tolerance: float) -> None:
    """A masked-lm head answers at the places that are asked: the likeliest tokens, and how likely the labels are."""
    import pyarrow as pa
    import torch

    head = Head("masked-lm")
    model = _write(folder, "bert", head)
    engine.open(folder, head=head, adapters={}, placement=Placement())
    table = _encoded(batch(_LENGTHS))
    rows = table.column("input_ids").to_pylist()
    asked = [[place for place in range(len(ids)) if place % 3 == 1] for ids in rows]  # the row of one token: nothing
    labels = [[token if place % 3 == 1 else -100 for place, token in enumerate(ids)] for ids in rows]
    table = table.append_column(ASKED, pa.array(asked, pa.list_(pa.int32())))
    found = asyncio.run(engine.forward(table, adapter=None))
    assert NLL not in found.column_names, f"{label}: without labels nothing is scored"
    labelled = table.append_column(LABELS, pa.array(labels, pa.list_(pa.int64())))
    scored = asyncio.run(engine.forward(labelled, adapter=None))
    assert scored.select(found.column_names).equals(found), f"{label}: labels change the likeliest tokens"
    for place, (row, logits) in enumerate(zip(scored.to_pylist(), _alone(model, table), strict=True)):
        odds = logits[asked[place]].double().softmax(-1)
        scores, tokens = odds.topk(10)
        assert row[TOP_TOKENS] == tokens.tolist(), f"{label}: row {place} has other likeliest tokens"
        distance = (torch.tensor(row[TOP_SCORES]).reshape(scores.shape) - scores).abs().sum()
        assert float(distance) <= 10 * tolerance, f"{label}: the probabilities of row {place} differ"
        wanted = [rows[place][at] for at in asked[place]]
        terms = -odds[range(len(wanted)), wanted].log()
        assert row[SCORED_TOKENS] == len(wanted), f"{label}: row {place} has {len(wanted)} labels to score"
        assert abs(row[NLL] - float(terms.sum())) <= tolerance * max(1, len(wanted)), f"{label}: row {place} is off"
    assert asyncio.run(engine.forward(table.slice(0, 0), adapter=None)).num_rows == 0, f"{label}: no rows, no answers"


class Shift:
    """The kit's own PEFT method: adds a constant, which a file of the adapter's folder holds, to every logit."""

    def __init__(self, *, mergeable: bool) -> None:
        self._mergeable = mergeable

    def traits(self) -> PeftTraits:
        """Returns traits that say whether it can be merged."""
        heads = frozenset({_HEAD.kind})
        return PeftTraits(
            frozenset({0}), heads, identity_at_start=True, mergeable=self._mergeable, mixes_in_batch=False
        )

    def load(self, model: Any, folder: Path) -> Any:
        """Adds the constant to the classifier's bias."""
        model.classifier.bias.data += float((folder / "shift.txt").read_text(encoding="ascii"))
        return model

    def merge(self, model: Any) -> Any:
        """Returns the model: the constant is in it."""
        assert self._mergeable, "an engine merges only what its traits call mergeable"
        return model


def _check_adapters(label: str, engine: Any, place: Path, tolerance: float) -> None:
    folder = place / "rows"
    model = _write(folder, "bert", _HEAD)
    adapters: dict[str, Any] = {}
    for name, shift in (("merged", 1.0), ("apart", -2.0)):
        (place / name).mkdir(exist_ok=True)
        (place / name / "shift.txt").write_text(str(shift), encoding="ascii")
        adapters[name] = Adapter(place / name, Shift(mergeable=name == "merged"))  # type: ignore[arg-type]
    engine.open(folder, head=_HEAD, adapters=adapters, placement=Placement())
    table = _encoded(batch(_LENGTHS))
    for name, shift in (("merged", 1.0), ("apart", -2.0)):
        wanted = [logits + shift for logits in _alone(model, table)]
        _check_answers(f"{label}, adapter {name}", asyncio.run(engine.forward(table, adapter=name)), wanted, tolerance)
    with pytest.raises(EspalierError):
        asyncio.run(engine.forward(table, adapter="none-of-these"))


def _check_generation(label: str, engine: Any, folder: Path, tolerance: float) -> None:
    import torch

    model: Any = _write(folder, "llama", Head("causal-lm"))
    engine.open(folder, head=Head("causal-lm"), adapters={}, placement=Placement())
    table = _encoded(batch(_LENGTHS))
    wanted = []
    for ids in table.column("input_ids").to_pylist():
        with torch.no_grad():
            output = model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=_NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
        wanted.append(output[0, len(ids) :].tolist())
    assert asyncio.run(_generated(engine, table)) == dict(enumerate(wanted)), f"{label}: generation differs"
    _check_likelihood(label, engine, model, table, tolerance)


def _check_likelihood(label: str, engine: Any, model: Any, table: pa.Table, tolerance: float) -> None:
    """A causal-lm head answers with likelihoods: of what is labelled, each token given those before it."""
    import pyarrow as pa
    import torch

    rows = table.column("input_ids").to_pylist()
    labels = [[-100 if place % 3 == 1 else token for place, token in enumerate(ids)] for ids in rows]
    given = table.append_column(LABELS, pa.array(labels, pa.list_(pa.int64())))
    found = asyncio.run(engine.forward(given, adapter=None)).select([NLL, SCORED_TOKENS]).to_pylist()
    assert len(found) == len(rows), f"{label}: {len(found)} likelihoods for {len(rows)} rows"
    for place, (ids, wanted) in enumerate(zip(rows, labels, strict=True)):
        with torch.no_grad():
            odds = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        terms = [-float(odds[at - 1, token]) for at, token in enumerate(wanted) if at and token != -100]
        assert found[place][SCORED_TOKENS] == len(terms), f"{label}: row {place} has {len(terms)} labels to score"
        distance = abs(found[place][NLL] - sum(terms))
        assert distance <= tolerance * max(1, len(terms)), (
            f"{label}: the likelihood of row {place} is {distance:.2g} off"
        )


async def _generated(engine: Any, table: pa.Table) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    settings = {"max_new_tokens": _NEW_TOKENS, "do_sample": False}
    async for part in engine.generate(table, adapter=None, settings=settings):
        for row in part.to_pylist():
            found[row["place"]] = found.get(row["place"], []) + row["tokens"]
    return found


def _check_refusals(name: str, plugin: Any, place: Path) -> None:
    import torch

    folder = place / "pickle"
    model = _write(folder, "bert", _HEAD)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for wrong in (folder, place / "no-such-folder"):
        with pytest.raises(EspalierError):
            plugin(plugin.Config()).open(wrong, head=_HEAD, adapters={}, placement=Placement())
