"""The unigram tokenizer: the likeliest pieces, places in the text, and equal bytes from every process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from espalier_models import FromScratch
from espalier_sdk import DataError

TEXTS = [
    f"{who} {what} the {noun}, and the {other} {how} it."
    for who in ("Anna", "Bo", "Çelik", "Dana")
    for what in ("washed", "watched", "wished for", "walked")
    for noun in ("window", "winter", "water", "wall")
    for other in ("neighbour", "neighbours", "night")
    for how in ("liked", "disliked")
]
MAKE = """
import json, sys
from espalier_models import FromScratch
strategy = FromScratch(FromScratch.Config(tokenizer="unigram", vocabulary_size=120))
strategy.tokenizer(json.load(sys.stdin), base=None, out=sys.argv[1])
"""


def train(out: Path, texts: list[str] = TEXTS, **config: Any) -> Any:
    from transformers import AutoTokenizer

    made = FromScratch(FromScratch.Config(tokenizer="unigram", **{"vocabulary_size": 120} | config))
    made.tokenizer(texts, base=None, out=out)
    return AutoTokenizer.from_pretrained(out)


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        line = [sys.executable, "-c", MAKE, str(tmp_path / name)]
        subprocess.run(line, input=json.dumps(TEXTS), text=True, check=True, timeout=120)
    written = {(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two", "three")}
    assert len(written) == 1


def test_words_come_back_and_pieces_have_their_places(tmp_path: Path) -> None:
    tokenizer = train(tmp_path)
    text = "Dana watched the neighbours"
    found = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(found["input_ids"], skip_special_tokens=True) == "dana watched the neighbours"
    assert found["input_ids"][0] == tokenizer.cls_token_id
    assert found["input_ids"][-1] == tokenizer.sep_token_id
    covered = {place for start, end in found["offset_mapping"] for place in range(start, end)}
    assert covered == {place for place, letter in enumerate(text) if letter != " "}


def test_frequent_words_are_one_piece_and_the_vocabulary_keeps_its_limit(tmp_path: Path) -> None:
    tokenizer = train(tmp_path)
    assert len(tokenizer) <= 120
    assert tokenizer.tokenize("neighbours") == ["▁neighbour", "s"]
    assert tokenizer.tokenize("☃") == ["▁", "☃"]
    assert tokenizer("☃", add_special_tokens=False)["input_ids"][-1] == tokenizer.unk_token_id


def test_the_alphabet_is_in_even_where_the_limit_is_lower(tmp_path: Path) -> None:
    texts = ["".join(chr(0x4E00 + number) for number in range(start, start + 40)) for start in range(0, 200, 20)]
    tokenizer = train(tmp_path, texts, vocabulary_size=64)
    assert tokenizer.unk_token_id not in tokenizer(texts[3], add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("texts", [["a"], ["a b"], ["word " * 2000], ["x" * 20_000], ["", "one text"]])
def test_little_and_odd_texts_make_a_tokenizer(texts: list[str], tmp_path: Path) -> None:
    tokenizer = train(tmp_path, texts)
    assert tokenizer.unk_token_id not in tokenizer(texts[-1][:10], add_special_tokens=False)["input_ids"]


def test_no_text_is_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to make a vocabulary of"):
        train(tmp_path, ["", " "])
