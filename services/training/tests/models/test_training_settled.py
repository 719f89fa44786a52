"""What a base's tokenizer leaves open is settled before anything is encoded: where an answer ends, and what pads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from espalier_runtime.merging import whole_folder
from espalier_runtime.opening import Budget
from espalier_runtime.plugins import Plugins
from espalier_sdk import Choice, DataError
from espalier_sdk.testing.tiny import tiny_config
from espalier_training.prepare import settled

from .made import train_alone

NAMES = {"unk_token": "<unk>", "eos_token": "<end>"}
TURNS = (
    "{% for message in messages %}<turn>{{ message['role'] }} {{ message['content'] }}<done>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant {% endif %}"
)


def write(folder: Path, template: str | None = None, **names: str) -> None:
    """Writes a tokenizer of words, with turn tokens that no name stands for."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<end>", "<turn>", "<done>", "user", "assistant", "question", "answer", "hi"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in words[:4]])
    make: Any = PreTrainedTokenizerFast
    made = make(tokenizer_object=tokenizer, **(names or NAMES))
    made.chat_template = template
    made.save_pretrained(folder)


def task(name: str, **config: Any) -> Any:
    return Plugins().load("espalier.tasks", Choice(name=name, config=config))


def reopened(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_an_answer_ends_where_the_bases_own_template_ends_it(tmp_path: Path) -> None:
    write(tmp_path, TURNS)
    chats = task("generation", messages="messages")
    settled(tmp_path, chats)
    found = reopened(tmp_path)
    assert found.eos_token == "<done>"
    assert found.chat_template == TURNS
    told = chats.settings(tokenizer=found, budget=Budget(max_tokens=64))
    assert told["eos_token_id"] == found.convert_tokens_to_ids("<done>")


def test_a_template_is_taught_where_there_is_none_and_the_end_token_stays(tmp_path: Path) -> None:
    write(tmp_path)
    chats = task("generation", messages="messages")
    settled(tmp_path, chats)
    found = reopened(tmp_path)
    assert (found.chat_template, found.eos_token) == (chats.chat_template, "<end>")


def test_plain_texts_take_no_part_of_a_template(tmp_path: Path) -> None:
    write(tmp_path, TURNS)
    settled(tmp_path, task("generation", text="text"))
    assert reopened(tmp_path).eos_token == "<end>"


def test_a_template_that_ends_no_answer_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TURNS.replace("<done>", ""))
    with pytest.raises(DataError, match="without a special token") as caught:
        settled(tmp_path, task("generation", messages="messages"))
    assert caught.value.problems[0].field == "chat_template"


def test_the_end_token_pads_where_nothing_else_does(tmp_path: Path) -> None:
    write(tmp_path)
    settled(tmp_path, task("classification", text="text", target="label"))
    found = reopened(tmp_path)
    assert found.pad_token == "<end>"
    assert found.pad([{"input_ids": [8]}, {"input_ids": [8, 8]}])["input_ids"] == [[8, 1], [8, 8]]


def test_a_tokenizer_that_cannot_pad_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, unk_token="<unk>")
    with pytest.raises(DataError, match="no padding token") as caught:
        settled(tmp_path, task("classification", text="text", target="label"))
    assert "tokenizer_config.json" in str(caught.value)


def test_a_tokenizer_that_leaves_nothing_open_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, **NAMES, pad_token="<turn>")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    settled(tmp_path, task("classification", text="text", target="label"))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("way", ["full", "adapted"])
def test_a_tuned_chat_model_stops_with_transformers_alone(tmp_path: Path, way: str) -> None:
    """Its generation settings name the token that an answer ends with, beside the base's own."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    base = tmp_path / "base"
    model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    model.generation_config.eos_token_id = 1
    model.save_pretrained(base)
    write(base, TURNS)
    chats = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    rows = pa.table({"messages": [chats] * 8})
    candidate = {
        "strategy": "full-finetune" if way == "full" else "peft",
        "base": {"name": "folder", "config": {"path": str(base)}},
        "training": {"max_steps": 2, "batch_size": 4, "max_tokens": 16},
        "where": {"cpus_per_worker": 1},
    } | ({} if way == "full" else {"peft": "lora"})
    task = {"name": "generation", "config": {"messages": "messages", "max_new_tokens": 4}}
    made = train_alone(tmp_path, task, {"train": rows, "validation": rows}, {way: candidate})[way]
    folder = whole_folder(made.place.store, made.model, made.place.plugins, scratch=tmp_path / "scratch")
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    assert set(ends) == {1, 3}
    assert reopened(folder).convert_tokens_to_ids("<done>") == 3
