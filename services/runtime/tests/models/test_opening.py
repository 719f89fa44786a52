"""Opening a model: what its card says is what answers, with the transforms that it carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from espalier_runtime.opening import CARD, OpenedModel, open_model, read_card
from espalier_runtime.store import Store
from espalier_sdk import ArtifactRef, Budget, DataError, Head, PluginConfig, PluginError, PluginNeed, State
from espalier_sdk.columns import (
    ENCODED_ROW,
    LOGITS,
    NLL,
    OTHER_RATING,
    PREDICTION,
    QUESTION,
    RATING,
    SCORED_TOKENS,
    WRITTEN,
)
from espalier_sdk.testing.learner import TwoKinds
from espalier_sdk.testing.tiny import write_tokenizer
from transformers import AutoTokenizer


class KindTask(TwoKinds):
    """Decodes the larger of two figures."""

    def encode(self, rows: pa.Table, *, state: Any, tokenizer: Any, budget: Any) -> pa.Table:
        return super().encode(rows.append_column("label", pa.nulls(rows.num_rows, pa.int64())), state=state,
                              tokenizer=tokenizer, budget=budget)  # fmt: skip

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: Any) -> pa.Table:
        answers = [row.index(max(row)) for row in outputs.column(LOGITS).to_pylist()]
        return pa.table({ENCODED_ROW: encoded.column(ENCODED_ROW), PREDICTION: answers})


class FakeEngine:
    """Answers 1 for rows whose first word lies in the second half of the vocabulary."""

    opened: ClassVar[list[tuple[Path, Head, list[str]]]] = []

    def open(self, model: Path, *, head: Head, adapters: dict[str, Any], placement: Any) -> None:
        self.opened.append((model, head, list(adapters)))
        self.adapters = set(adapters) or {None}

    async def forward(self, encoded: pa.Table, *, adapter: str | None) -> pa.Table:
        assert adapter in self.adapters
        return pa.table(
            {LOGITS: [[0.0, 1.0 if ids[1] >= 34 else -1.0] for ids in encoded.column("input_ids").to_pylist()]}
        )


class Lower:
    """A record transform."""

    kind = "record"

    def apply(self, rows: pa.Table) -> pa.Table:
        return rows.set_column(0, "text", pc.utf8_lower(rows.column("text")))


class Fill:
    """A fitted transform."""

    kind = "fitted"

    class State(State):
        word: str

    def apply(self, rows: pa.Table, *, state: Any) -> pa.Table:
        return rows.set_column(0, "text", pc.fill_null(rows.column("text"), state.word))


class Drop:
    """A record transform that drops empty rows."""

    kind = "record"

    def apply(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.not_equal(rows.column("text"), ""))


class Invent:
    """A record transform that adds the task's answer and a column of its own."""

    kind = "record"

    def apply(self, rows: pa.Table) -> pa.Table:
        return rows.append_column("label", pa.array([1] * len(rows))).append_column("own", pa.array([1] * len(rows)))


class FakePlugins:
    """Plugins by name."""

    known: ClassVar[dict[str, Any]] = {
        "kinds": KindTask,
        "transformers": FakeEngine,
        "lower": Lower,
        "fill": Fill,
        "drop": Drop,
        "invent": Invent,
        "shift": object,
    }

    def find(self, group: str, name: str) -> None:
        if name not in self.known:
            raise PluginError(f"there is no {name}", code="unknown_plugin")

    def load_class(self, group: str, name: str) -> Any:
        self.find(group, name)
        return self.known[name]

    def load(self, group: str, choice: Any) -> Any:
        made = self.load_class(group, choice.name)
        return made(PluginConfig()) if made is KindTask else made()


def _card(**changes: Any) -> dict[str, Any]:
    card: dict[str, Any] = {
        "task": {"name": "kinds", "config": {}},
        "state": {},
        "transforms": [
            {"name": "lower", "config": {}, "state": None},
            {"name": "fill", "config": {}, "state": {"word": "word0"}},
            {"name": "drop", "config": {}, "state": None},
        ],
        "strategy": {"name": "full-finetune", "config": {}},
        "peft": None,
        "head": {"kind": "sequence-classification", "outputs": 2, "side_width": 0, "problem": "single-label"},
        "budget": {"max_tokens": 8, "padding_side": "right"},
        "base": None,
    }
    return card | changes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    FakeEngine.opened.clear()
    return Store.open(str(tmp_path / "store"))


def _publish(store: Store, card: dict[str, Any] | None, **fields: Any) -> ArtifactRef:
    attempt = store.begin("ab" * 32)
    write_tokenizer(attempt.folder)
    if card is not None:
        (attempt.folder / CARD).write_text(json.dumps(card))
    return attempt.publish(**{"kind": "model", "name": "one"} | fields).ref()


def _open(store: Store, ref: ArtifactRef) -> Any:
    return open_model(store, ref, FakePlugins())  # type: ignore[arg-type]


def test_a_model_answers_raw_rows_in_their_order_through_its_transforms(store: Store) -> None:
    model = _open(store, _publish(store, _card()))
    rows = pa.table({"text": ["word40 word1", None, "WORD50", "word2"]})
    assert model.predict(rows).column(PREDICTION).to_pylist() == [1, 0, 1, 0]
    assert FakeEngine.opened == [(store.open_artifact(model.ref).folder, Head(**_card()["head"]), [])]


def test_rows_that_were_transformed_already_are_not_transformed_again(store: Store) -> None:
    model = _open(store, _publish(store, _card()))
    assert model.predict(pa.table({"text": ["WORD50"]}), transformed=True).column(PREDICTION).to_pylist() == [0]


def test_a_row_that_a_transform_drops_is_told_not_lost(store: Store) -> None:
    model = _open(store, _publish(store, _card()))
    with pytest.raises(DataError, match="drop drops 1 of 2 rows") as error:
        model.predict(pa.table({"text": ["", "word1"]}))
    assert error.value.problems[0].code == "row_dropped"


def test_an_answer_that_a_transform_fills_in_is_left_out(store: Store) -> None:
    model = _open(store, _publish(store, _card(transforms=[{"name": "invent", "config": {}, "state": None}])))
    assert model.transform(pa.table({"text": ["word1"]})).column_names == ["text", "own"]


def test_an_adapter_is_opened_on_its_base(store: Store) -> None:
    base = _publish(store, None, name="base-minilm")
    ref = _publish(store, _card(peft={"name": "shift", "config": {}}, base=str(base)))
    model = _open(store, ref)
    assert model.predict(pa.table({"text": ["word50"]})).column(PREDICTION).to_pylist() == [1]
    ((folder, _, adapters),) = FakeEngine.opened
    assert folder == store.open_artifact(base).folder
    assert adapters == [model.adapter]


def test_a_plugin_that_the_model_requires_and_is_not_here_is_named(store: Store) -> None:
    needs = (PluginNeed(group="espalier.tasks", name="gone"),)
    with pytest.raises(PluginError, match="there is no gone"):
        _open(store, _publish(store, _card(), requires=needs))


def test_an_artifact_that_is_no_model_of_espalier_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"it has no espalier\.json"):
        _open(store, _publish(store, None))


def test_a_byte_flipped_in_the_card_is_found_before_it_is_read(store: Store) -> None:
    ref = _publish(store, _card())
    path = store.open_artifact(ref).folder / CARD
    path.write_text(path.read_text().replace("kinds", "kindz"))
    with pytest.raises(DataError, match=r"espalier\.json differs"):
        _open(store, ref)
    assert read_card(path.parent)["task"]["name"] == "kindz"


class Writer(KindTask):
    """Asks for a word where the rows have no answer, and has its texts scored where they have one."""

    head_kind = "causal-lm"

    def encode(self, rows: pa.Table, **options: Any) -> pa.Table:
        encoded = super().encode(rows.select(["text"]), **options)
        return encoded if "answer" in rows.column_names else encoded.drop_columns(["labels", "target"])

    def questions(self, rows: pa.Table, *, tokenizer: Any, budget: Any) -> pa.Table:
        ids = tokenizer(rows.column("text").to_pylist())["input_ids"]
        return pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), QUESTION: rows.column("text")})

    def settings(self, *, tokenizer: Any, budget: Any) -> dict[str, Any]:
        return {"max_new_tokens": 2}

    def others(self, rows: pa.Table) -> pa.Table | None:
        if "other" not in rows.column_names:
            return None
        return rows.set_column(rows.column_names.index("text"), "text", rows.column("other"))

    def decode(self, outputs: pa.Table, encoded: pa.Table, *, state: Any) -> pa.Table:
        return (
            outputs.append_column(PREDICTION, outputs.column(WRITTEN)) if WRITTEN in outputs.column_names else outputs
        )


class WritingEngine(FakeEngine):
    """Repeats the last word of each row, the last row first; a likelihood is the square of the number of tokens."""

    async def forward(self, encoded: pa.Table, *, adapter: str | None) -> pa.Table:
        assert "labels" in encoded.column_names
        counts = [len(ids) for ids in encoded.column("input_ids").to_pylist()]
        return pa.table({NLL: [float(one * one) for one in counts], SCORED_TOKENS: counts})

    async def generate(self, encoded: pa.Table, *, adapter: str | None, settings: dict[str, Any]) -> Any:
        for place in reversed(range(encoded.num_rows)):
            word = encoded.column("input_ids")[place].as_py()[-2]
            yield pa.record_batch({"place": [place], "tokens": [[word] * settings["max_new_tokens"] + [3]]})


class JudgingEngine(FakeEngine):
    """Gives each row its number of tokens."""

    async def forward(self, encoded: pa.Table, *, adapter: str | None) -> pa.Table:
        return pa.table({LOGITS: [[float(len(ids))] for ids in encoded.column("input_ids").to_pylist()]})


def writer(folder: Path, head: Head) -> OpenedModel:
    write_tokenizer(folder)
    return OpenedModel(
        ref=ArtifactRef.parse(f"model/writer@{0:064}"),
        head=head,
        task=Writer(PluginConfig()),
        state=None,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        budget=Budget(max_tokens=16),
        transforms=(),
        engine=WritingEngine() if head.kind == "causal-lm" else JudgingEngine(),
        adapter=None,
    )


@pytest.mark.parametrize("answered", [True, False])
def test_a_task_that_writes_gets_text_for_each_row_and_likelihoods_where_answers_are_given(
    tmp_path: Path, answered: bool
) -> None:
    opened = writer(tmp_path, Head("causal-lm"))
    rows = pa.table({"text": ["word1 word2", "word3"]})
    found = opened.predict(rows.append_column("answer", pa.array(["a", "b"])) if answered else rows).to_pydict()
    assert found[PREDICTION] == ["word2 word2", "word3 word3"]
    assert found[QUESTION] == ["word1 word2", "word3"]
    assert found.get(SCORED_TOKENS) == ([4, 3] if answered else None)


def test_the_other_answer_of_a_row_is_rated_beside_its_own_by_the_mean_likelihood_of_a_token(tmp_path: Path) -> None:
    rows = pa.table({"text": ["word1 word2", "word3"], "answer": ["a", "b"], "other": ["word1", "word2 word3 word4"]})
    opened = writer(tmp_path, Head("causal-lm"))
    found = opened.predict(rows)
    assert found.column(RATING).to_pylist() == [-4.0, -3.0]  # words, and the tokens of begin and end
    assert found.column(OTHER_RATING).to_pylist() == [-3.0, -5.0]
    assert not {RATING, OTHER_RATING} & set(opened.predict(rows.drop_columns(["other"])).column_names)


def test_a_reward_model_rates_answers_and_writes_none(tmp_path: Path) -> None:
    opened = writer(tmp_path, Head("sequence-classification", outputs=1))
    rows = pa.table({"text": ["word1 word2", "word3"], "answer": ["a", "b"]})
    assert opened.predict(rows).to_pydict() == {"row": [0, 1], RATING: [4.0, 3.0]}
    both = opened.predict(rows.append_column("other", pa.array(["word1", "word2 word3"])))
    assert both.column(OTHER_RATING).to_pylist() == [3.0, 4.0]
    with pytest.raises(DataError, match="says how good an answer is, and the rows hold none"):
        opened.predict(rows.select(["text"]))
