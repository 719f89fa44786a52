"""The fill-mask task: its kit, which tokens are asked for, gaps that are filled, and what is refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from espalier_sdk.columns import (
    ASKED,
    LABELS,
    NLL,
    PREDICTION,
    RIGHT_TOKENS,
    SCORED_TOKENS,
    TARGET,
    TOP_SCORES,
    TOP_TEXTS,
    TOP_TOKENS,
    WORDS,
)
from espalier_sdk.errors import DataError
from espalier_sdk.model import Budget, Head
from espalier_sdk.testing import check_task
from espalier_tasks import FillMask, FillMaskConfig
from espalier_tasks.fill_mask import FillMaskState
from espalier_tasks.gaps import FillMaskResponse, written
from pydantic import ValidationError

STATE = FillMaskState(rows=3)
TEXTS = ["abcab cab de", "", "eabcd " * 9, "a ? x"]  # x is unknown


def table(texts: list[str | None] = TEXTS, column: str = "body") -> pa.Table:
    return pa.table({column: pa.array(texts, pa.string())})


def make(**config: Any) -> FillMask:
    return FillMask(FillMaskConfig(text="body", **config))


def encode(task: FillMask, rows: pa.Table, tokenizer: Any, max_tokens: int = 16) -> pa.Table:
    return task.encode(rows, state=STATE, tokenizer=tokenizer, budget=Budget(max_tokens))


def engine(encoded: pa.Table, head: Head) -> pa.Table:
    """Stands for an opened model that guesses the first label of each row everywhere, with 0.5, and then token 7."""
    assert head.kind == "masked-lm"
    asked = encoded.column(ASKED).to_pylist()
    first = [next((one for one in row if one != -100), 9) for row in encoded.column(LABELS).to_pylist()]
    return pa.table(
        {
            TOP_TOKENS: [[[token, 7] for _ in places] for token, places in zip(first, asked, strict=True)],
            TOP_SCORES: [[[0.5, 0.25] for _ in places] for places in asked],
            NLL: [float(len(places)) for places in asked],
            SCORED_TOKENS: [len(places) for places in asked],
        }
    )


def test_fill_mask_passes_its_kit(pieces: Any) -> None:
    check_task(
        "fill-mask",
        {"text": "body"},
        table(),
        tokenizer=pieces,
        answer=engine,
        question={"masked": "a [MASK] b"},
        refused=[{"masked": "a b"}, {"masked": ""}, {"masked": 3}, {}, {"body": "a [MASK]"}],
    )


def test_a_share_of_the_tokens_is_asked_for_and_never_a_special_or_unknown_one(pieces: Any) -> None:
    text = "abcab x [SEP] cab de " * 4
    for share, count in ((0.001, 1), (0.15, 3), (0.5, 10)):  # 20 known tokens: abc ##ab cab de a, four times
        [row] = encode(make(share=share), table([text + "a a a a"]), pieces, max_tokens=64).to_pylist()
        assert len(row[ASKED]) == count
        assert [row["input_ids"][place] for place in row[ASKED]] == [pieces.mask_token_id] * count
        asked = [one for one in row[LABELS] if one != -100]
        assert len(asked) == count
        assert not set(asked) & set(pieces.all_special_ids)
        assert all(row[WORDS][place] >= 0 for place in row[ASKED])
        whole = [token if label == -100 else label for token, label in zip(row["input_ids"], row[LABELS], strict=True)]
        assert whole == pieces(text + "a a a a")["input_ids"]


def test_other_texts_are_asked_at_other_places(pieces: Any) -> None:
    texts = [f"{'abc ' * at}de{' abc' * (15 - at)}" for at in range(16)]
    rows = encode(make(), table(texts), pieces, max_tokens=32).to_pylist()
    assert len({tuple(row[ASKED]) for row in rows}) > 10
    assert len({place for row in rows for place in row[ASKED]}) > 12  # of 16


def test_each_token_of_a_long_text_is_in_one_window(pieces: Any) -> None:
    text = "abcab cab de " * 9
    rows = encode(make(), table([text]), pieces, max_tokens=10).to_pylist()
    assert len(rows) == 5  # 36 tokens, 8 in a window
    back = [
        token if label == -100 else label
        for row in rows
        for token, label in zip(row["input_ids"][1:-1], row[LABELS][1:-1], strict=True)
    ]
    assert back == pieces(text)["input_ids"][1:-1]
    assert [row[TARGET] for row in rows] == [text, None, None, None, None]
    assert rows[0][WORDS][1:4] == [0, 0, 1]  # abc ##ab, cab


def test_windows_of_a_text_are_added_up(pieces: Any) -> None:
    task = make()
    encoded = encode(task, table(["abcab cab de " * 9, "de"]), pieces, max_tokens=10)
    decoded = task.decode(engine(encoded, Head("masked-lm")), encoded, state=STATE).to_pylist()
    counts = [len(places) for places in encoded.column(ASKED).to_pylist()]
    assert [row[SCORED_TOKENS] for row in decoded] == [sum(counts[:-1]), 1]
    assert [row[NLL] for row in decoded] == [sum(counts[:-1]), 1.0]
    assert decoded[0][RIGHT_TOKENS] >= 5  # each window's first is right
    assert [row[PREDICTION] for row in decoded] == [None, None]
    assert decoded[1][TARGET] == "de"


def test_gaps_are_filled_with_the_likeliest_tokens_across_windows(pieces: Any) -> None:
    task = make(top=2)
    rows = table(["[MASK] cab, [MASK]" + " abc" * 8 + " [MASK]!", "a [MASK]."], "masked")
    encoded = encode(task, rows, pieces, max_tokens=8)
    assert LABELS not in encoded.column_names
    asked = [len(places) for places in encoded.column(ASKED).to_pylist()]
    assert sum(asked) == 4
    texts = pa.list_(pa.list_(pa.string()))
    words = iter([["x", "y", "z"], ["##q", "r", "s"], ["t", "u", "v"], ["w", "a", "b"]])
    outputs = pa.table(
        {
            TOP_TEXTS: pa.array([[next(words) for _ in range(count)] for count in asked], texts),
            TOP_SCORES: [[[0.5, 0.25, 0.1]] * count for count in asked],
        }
    )
    decoded = task.decode(outputs, encoded, state=STATE)
    assert decoded.column(PREDICTION).to_pylist() == ["x cab,q" + " abc" * 8 + " t!", "a w."]
    answer = FillMaskResponse.model_validate(decoded.to_pylist()[0])
    assert [[fill.text for fill in gap] for gap in answer.fills] == [["x", "y"], ["##q", "r"], ["t", "u"]]
    assert answer.fills[0][1].score == 0.25


def test_a_piece_is_joined_to_the_word_before_and_a_hash_sign_is_none() -> None:
    fills = [[{"text": "##ing"}], [{"text": "##"}]]
    assert written("play [MASK] [MASK] ", fills) == "playing ## "


def test_a_question_may_spell_the_mask_as_the_tokenizer_does(pieces: Any) -> None:
    own = type(pieces)(
        tokenizer_object=pieces.backend_tokenizer, pad_token="[PAD]", unk_token="[UNK]", mask_token="<mask>"
    )
    for text in ("a <mask> b", "a [MASK] b"):
        [row] = encode(make(), table([text], "masked"), own).to_pylist()
        assert [row["input_ids"][place] for place in row[ASKED]] == [own.mask_token_id]


def test_a_text_without_a_gap_is_refused_with_its_row(pieces: Any) -> None:
    rows = table(["a [MASK]", "a b"], "masked")
    with pytest.raises(DataError, match="row 1: nothing is asked") as refused:
        encode(make(), rows, pieces)
    assert "[MASK]" in str(refused.value.problems[0].remedy)


def test_a_tokenizer_without_a_mask_is_refused(pieces: Any) -> None:
    bare = type(pieces)(tokenizer_object=pieces.backend_tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    with pytest.raises(DataError, match="no mask token"):
        encode(make(), table(), bare)


@pytest.mark.parametrize("config", [{"share": 0.0}, {"share": 0.9}, {"top": 0}, {"top": 11}, {"masked": "body"}])
def test_options_out_of_range_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**config)
