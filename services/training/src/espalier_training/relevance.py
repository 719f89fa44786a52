"""`python -m espalier_training.relevance`: which parts of a model carry its decisions, measured on validation rows.

Runs as a child of `espalier relevance`, so that the command line imports no torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from espalier_runtime.card import quantised_as, read_card
from espalier_runtime.main import print_errors, watch_parent
from espalier_runtime.merging import whole_folder
from espalier_runtime.plugins import Plugins
from espalier_runtime.store import OpenArtifact, Store
from espalier_runtime.tables import read_parts
from espalier_sdk import ArtifactRef, Blueprint, Budget, Choice, Head, Placement
from espalier_sdk.columns import LABELS, SIDE
from espalier_sdk.errors import DataError, EspalierError, SpecError
from espalier_sdk.fourbit import dequantised
from espalier_sdk.heads import load_model

from espalier_training.anatomy import Anatomy, Kind, dissect
from espalier_training.attribution import Batch, Relevance, answers, attribute, inputs, remove, shuffle_weights
from espalier_training.decisions import IGNORED
from espalier_training.forgetting import ranks

if TYPE_CHECKING:
    import torch

_SPLIT = "validation"
_BATCH_ROWS = 16
_REMOVED = 0.2  # share of the heads, and of the units
_DRAWS = 3  # random removals that the two others are compared with
_TOP_UNITS = 10  # told per layer


def main() -> int:
    """Prints what was measured as JSON and returns the exit code."""
    parser = argparse.ArgumentParser(description="Which parts of a model carry its decisions.")
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    watch_parent()
    try:
        store = Store.open(arguments.store)
        opened = store.open_artifact(store.resolve(arguments.model))
        data = store.open_artifact(store.resolve(arguments.data) if arguments.data else own_dataset(opened))
        found = relevance(opened, data, store, Plugins(), rows=arguments.rows, seed=arguments.seed)
    except EspalierError as error:
        print_errors(error, as_json=True)
        return error.exit_code
    print(json.dumps(found))
    return 0


def own_dataset(opened: OpenArtifact) -> ArtifactRef:
    """Returns the dataset that a model was trained on; SpecError where its manifest names none."""
    for ref in opened.manifest.inputs:
        if ref.kind == "dataset":
            return ref
    raise SpecError("the model names no dataset of its own", field="--data", remedy="name a dataset/... ref")


def relevance(
    opened: OpenArtifact, data: OpenArtifact, store: Store, plugins: Plugins, *, rows: int, seed: int
) -> dict[str, Any]:
    """Returns shares by layer, head, hidden unit and module, and two checks of them, as JSON.

    Reads a sample of the validation split, drawn by `seed`. `removal` tells what is left of the decisions without the
    fifth of the heads (units) that carries most, least, or was drawn; `shuffled` the rank correlation with the shares
    of the same model with shuffled weights (Adebayo et al. 2018), near 0 where they tell of what was learned.
    Raises SpecError for a head that decides nothing, DataError for blocks that cannot be read and for missing columns.
    """
    card = read_card(opened.folder)
    head = Head(**card["head"])
    if not head.outputs:  # what writes, fills masks or finds spans chooses among tokens
        raise SpecError(
            f"a model for {head.kind} takes no single decision per row that relevance could be measured of",
            field="MODEL",
            given=str(opened.ref),
            accepted="a model for labels, numbers or tags",
        )
    encoded = _encode(opened, data, plugins, rows=rows, seed=seed)
    with tempfile.TemporaryDirectory(prefix="espalier-merged-") as scratch:
        model, blueprint = _open(opened, store, plugins, head, scratch=Path(scratch))
    model.eval()
    batches = batched(encoded, padding=int(getattr(model.config, "pad_token_id", None) or 0))
    anatomy = dissect(model, blueprint, inputs(batches[0]))
    found = attribute(anatomy, batches)
    removal = {kind: _removal(anatomy, kind, found, batches, seed=seed) for kind in ("heads", "units")}
    shuffle_weights(anatomy, seed=seed)
    other = attribute(anatomy, batches)
    return {
        "model": str(opened.ref),
        "dataset": str(data.ref),
        "split": _SPLIT,
        "rows": encoded.num_rows,
        "seed": seed,
        "measure": "gradient x activation",
        **_document(found),
        "removal": removal,
        "shuffled": {kind: rank_correlation(found.of(kind), other.of(kind)) for kind in ("heads", "units")},
    }


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Spearman's correlation of two arrays; 0 where one of them is flat."""
    left, right = ranks(one.ravel()), ranks(other.ravel())
    return float(np.corrcoef(left, right)[0, 1]) if left.std() and right.std() else 0.0


def batched(encoded: pa.Table, *, padding: int) -> list[Batch]:
    """Returns encoded rows as tensors, padded on the right, in batches of like length: the longest first."""
    import torch

    lengths = pc.list_value_length(encoded.column("input_ids")).to_pylist()
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    fills = {"input_ids": padding, "attention_mask": 0, "token_type_ids": 0, LABELS: IGNORED}
    found: list[Batch] = []
    for start in range(0, len(order), _BATCH_ROWS):
        some = encoded.take(order[start : start + _BATCH_ROWS])
        batch = {}
        for name, fill in fills.items():
            if name in some.column_names and (name != LABELS or pa.types.is_list(some.schema.field(name).type)):
                values = some.column(name).to_pylist()
                width = max(len(row) for row in values)
                batch[name] = torch.tensor([[*row, *[fill] * (width - len(row))] for row in values])
        if SIDE in some.column_names:
            batch[SIDE] = torch.tensor(some.column(SIDE).to_pylist(), dtype=torch.float32)
        found.append(batch)
    return found


def _encode(opened: OpenArtifact, data: OpenArtifact, plugins: Plugins, *, rows: int, seed: int) -> pa.Table:
    from transformers import AutoTokenizer

    card = read_card(opened.folder)
    task = plugins.load("espalier.tasks", Choice(**card["task"]))
    if data.ref.kind != "dataset":
        raise SpecError(f"is a {data.ref.kind}", field="--data", given=str(data.ref), accepted="a dataset/... ref")
    table = read_parts(data.folder / _SPLIT)
    if not table.num_rows:
        raise DataError(f"the {_SPLIT} split is empty", file=str(data.folder / _SPLIT), remedy="change data.split")
    missing = [name for name in task.columns().required if name not in table.column_names]
    if missing:
        raise DataError(
            f"{data.ref} has no column {missing[0]!r}, which the model's task reads",
            code="columns",
            field="--data",
            given=str(data.ref),
            accepted=", ".join(table.column_names),
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(table.num_rows)[:rows])
    encoded: pa.Table = task.encode(
        table.take(drawn),
        state=type(task).State.model_validate(card["state"]),
        tokenizer=AutoTokenizer.from_pretrained(opened.folder),
        budget=Budget(**card["budget"]),
    )
    return encoded


def _open(
    opened: OpenArtifact, store: Store, plugins: Plugins, head: Head, *, scratch: Path
) -> tuple[torch.nn.Module, Blueprint]:
    """Returns a model, with its adapter merged or, where it cannot be, applied."""
    card = read_card(opened.folder)
    strategy = plugins.load("espalier.model_strategies", Choice(**card["strategy"]))
    if not card["peft"]:
        base = opened.folder if strategy.base == "required" else None
        return load_model(opened.folder, head), strategy.blueprint(head, tokenizer=opened.folder, base=base)
    base = whole_folder(store, ArtifactRef.parse(card["base"]), plugins, scratch=scratch)
    method = plugins.load("espalier.peft_methods", Choice(**card["peft"]))
    blueprint = strategy.blueprint(head, tokenizer=opened.folder, base=base)
    built = strategy.build(blueprint, base=base, placement=Placement(quantise=quantised_as(card)))
    model = method.load(dequantised(built), opened.folder)
    return method.merge(model) if method.traits().mergeable else model, blueprint


def _removal(anatomy: Anatomy, kind: Kind, found: Relevance, batches: list[Batch], *, seed: int) -> dict[str, Any]:
    shares, before = found.of(kind), answers(anatomy, batches)
    order = np.argsort(-shares, axis=None, kind="stable")
    count = max(1, round(_REMOVED * shares.size))
    drawn = np.random.default_rng(seed)

    def effect(places: np.ndarray) -> dict[str, float | None]:
        chosen = np.zeros(shares.size, dtype=bool)
        chosen[places] = True
        return asdict(remove(anatomy, kind, chosen.reshape(shares.shape), batches, before=before))

    return {
        "removed": count,
        "of": int(shares.size),
        "most": effect(order[:count]),
        "least": effect(order[-count:]),
        "drawn": [effect(drawn.permutation(shares.size)[:count]) for _ in range(_DRAWS)],
    }


def _document(found: Relevance) -> dict[str, Any]:
    layers = []
    for at, share in enumerate(found.layers.tolist()):
        units = found.units[at]
        top = np.argsort(-units, kind="stable")[:_TOP_UNITS]
        layers.append(
            {
                "layer": at + 1,
                "relevance": share,
                "heads": found.heads[at].tolist(),
                "units": float(units.sum()),
                "top_units": [{"unit": int(unit), "relevance": float(units[unit])} for unit in top],
            }
        )
    return {"layers": layers, "modules": [asdict(one) for one in found.modules]}


if __name__ == "__main__":
    sys.exit(main())
