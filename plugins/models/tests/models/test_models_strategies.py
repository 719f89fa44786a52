"""The strategies against their kit, and what each promises beyond it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from espalier_models import FromScratch, FullFinetune, Peft
from espalier_sdk import DataError, Head, Placement, compose
from espalier_sdk.testing import check_strategy
from espalier_sdk.testing.fakes import FakeLearner
from espalier_sdk.testing.tiny import WORDS, write_base
from pydantic import ValidationError

SMALL = {"layers": 2, "hidden_size": 32, "heads": 4, "vocabulary_size": 200, "max_positions": 32}
FAMILY = {"vocabulary_size": 300}
HEAD = Head("sequence-classification", outputs=3, problem="single-label")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe", "unigram"])
def test_from_scratch_passes_its_kit_with_each_tokenizer(tokenizer: str) -> None:
    refused = [{"layers": 0}, {"hidden_size": 32, "heads": 5}, {"dropout": 1.0}, {"tokenizer": "letters"}]
    blueprint = check_strategy("from-scratch", config=SMALL | {"tokenizer": tokenizer}, refused=refused)
    assert blueprint.blocks == 2
    assert blueprint.new_modules == ()


def test_full_finetune_passes_its_kit() -> None:
    blueprint = check_strategy("full-finetune", refused=[{"layers": 2}])
    assert blueprint.new_modules == ("bert.pooler", "classifier") or blueprint.new_modules == ("classifier",)


def test_peft_passes_its_kit() -> None:
    assert "classifier" in check_strategy("peft", refused=[{"rank": 8}]).new_modules


def test_width_that_no_head_count_divides_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValidationError, match="hidden_size 36 is no multiple of heads 5"):
        FromScratch.Config(hidden_size=36, heads=5)


@pytest.mark.parametrize(("width", "heads"), [(128, 2), (256, 4), (64, 1), (96, 1)])
def test_default_is_one_head_per_64_of_the_width(width: int, heads: int) -> None:
    assert FromScratch.Config(hidden_size=width).head_count == heads


def test_weights_of_a_from_scratch_model_are_those_of_the_formula(tmp_path: Path) -> None:
    strategy = FromScratch(FromScratch.Config(**SMALL))
    strategy.tokenizer([" ".join(WORDS)], base=None, out=tmp_path)
    vocabulary = len(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"])
    count = sum(one.count for one in strategy.blueprint(HEAD, tokenizer=tmp_path, base=None).parameters)
    width, inner, positions, layers = 32, 128, 32, 2
    embeddings = (vocabulary + positions + 2) * width + 2 * width  # words, positions, segments, norm
    block = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width  # Devlin et al. 2019
    assert count == embeddings + layers * block + (width * width + width) + (3 * width + 3)


def test_vocabulary_keeps_its_limit_and_case_folds(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    FromScratch(FromScratch.Config(**SMALL)).tokenizer(["Ünïcode Words " * 3], base=None, out=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) <= 200
    assert tokenizer("UNICODE").input_ids == tokenizer("ünïcode").input_ids


@pytest.mark.parametrize("family", ["roberta", "modernbert", "llama", "qwen3", "gpt2"])
def test_from_scratch_passes_its_kit_with_each_family(family: str) -> None:
    decoder = family in ("llama", "qwen3", "gpt2")
    own = Head("causal-lm") if decoder else Head("masked-lm")
    for head in (own, HEAD, Head("token-classification", outputs=3)):
        blueprint = check_strategy("from-scratch", config=SMALL | FAMILY | {"family": family}, head=head)
        assert blueprint.blocks == 2
        assert {one.depth for one in blueprint.parameters if one.role == "embedding"} == {0}
        turned = {one.name.split(".")[-2] for one in blueprint.parameters if one.transposed}
        assert turned == ({"c_attn", "c_proj", "c_fc"} if family == "gpt2" else set())


@pytest.mark.parametrize(("family", "kind"), [("bert", "causal-lm"), ("llama", "masked-lm"), ("gpt2", "masked-lm")])
def test_a_head_that_a_family_cannot_have_is_refused_with_the_field(family: Any, kind: Any, tmp_path: Path) -> None:
    strategy = FromScratch(FromScratch.Config(family=family, vocabulary_size=300))
    with pytest.raises(DataError, match=rf"strategy\.config\.family: {family} has no head for {kind}"):
        strategy.blueprint(Head(kind), tokenizer=tmp_path, base=None)
    problems = compose(
        strategy=strategy,
        peft=None,
        learner=FakeLearner(heads=frozenset({kind})),  # type: ignore[arg-type]
        head=Head(kind),
        controls=(),
        placement=Placement(),
        has_base=False,
    )
    assert len(problems) == 1
    assert f"the task needs {kind}: choose another `family`" in problems[0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"family": "llama", "hidden_size": 64, "heads": 4, "key_value_heads": 3},
            "heads 4 is no multiple of key_value",
        ),
        ({"family": "gpt2", "key_value_heads": 1}, "gpt2 has none of their own"),
        ({"family": "qwen3", "hidden_size": 20, "heads": 4}, "20 / heads 4 is odd"),
        ({"family": "llama", "tokenizer": "wordpiece"}, "cannot write every text back"),
        ({"family": "llama", "tokenizer": "unigram"}, "cannot write every text back"),
        ({"family": "llama", "vocabulary_size": 261}, "at least 262"),
        ({"family": "mamba"}, "family"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FromScratch.Config(**config)


def test_keys_and_values_are_shared_as_asked(tmp_path: Path) -> None:
    config = FromScratch.Config(family="llama", hidden_size=32, heads=4, key_value_heads=2, vocabulary_size=300)
    strategy = FromScratch(config)
    strategy.tokenizer(["some text"], base=None, out=tmp_path)
    shapes = {
        one.name: one.shape for one in strategy.blueprint(Head("causal-lm"), tokenizer=tmp_path, base=None).parameters
    }
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (32, 32)
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (16, 32)
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (88, 32)  # eight thirds, up to a multiple of eight
    assert "lm_head.weight" not in shapes
    untied = FromScratch(config.model_copy(update={"tied_embeddings": False}))
    names = [one.name for one in untied.blueprint(Head("causal-lm"), tokenizer=tmp_path, base=None).parameters]
    assert "lm_head.weight" in names


def test_a_decoders_tokenizer_writes_every_text_back(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    strategy = FromScratch(FromScratch.Config(family="llama", vocabulary_size=400))
    strategy.tokenizer(["plain words alone " * 4], base=None, out=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Zoë said: “naïve 🙂”\n\tdef f(x): return x", "  two  spaces ", "Plain Words"):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer("<|user|>", add_special_tokens=False).input_ids) == 1
    assert len(tokenizer) <= 400
    assert None not in (tokenizer.pad_token_id, tokenizer.eos_token_id)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("texts", [[], [""]], ids=["no text", "empty"])
def test_a_vocabulary_of_nothing_is_refused(family: Any, texts: list[str], tmp_path: Path) -> None:
    strategy = FromScratch(FromScratch.Config(family=family))
    with pytest.raises(DataError, match="no text to make a vocabulary of"):
        strategy.tokenizer(texts, base=None, out=tmp_path)


def test_an_encoder_is_no_base_for_writing(base: Path) -> None:
    with pytest.raises(DataError, match="bert is an encoder"):
        FullFinetune(FullFinetune.Config()).blueprint(Head("causal-lm"), tokenizer=base, base=base)


def test_a_decoder_from_scratch_is_a_base_with_nothing_new(tmp_path: Path) -> None:
    strategy = FromScratch(FromScratch.Config(**(SMALL | FAMILY | {"family": "llama"})))
    strategy.tokenizer(["some text"], base=None, out=tmp_path)
    blueprint = strategy.blueprint(Head("causal-lm"), tokenizer=tmp_path, base=None)
    built: Any = strategy.build(blueprint, base=None, placement=Placement())
    built.save_pretrained(tmp_path)
    again = FullFinetune(FullFinetune.Config()).blueprint(Head("causal-lm"), tokenizer=tmp_path, base=tmp_path)
    assert again.new_modules == ()
    assert [one.shape for one in again.parameters] == [one.shape for one in blueprint.parameters]


SIDE = Head("sequence-classification", outputs=1, side_width=4, problem="regression")


@pytest.mark.parametrize("name", ["from-scratch", "full-finetune", "peft"])
def test_each_strategy_builds_a_head_that_reads_side_columns(name: str) -> None:
    blueprint = check_strategy(name, config=SMALL if name == "from-scratch" else {}, head=SIDE)
    assert [one.name for one in blueprint.parameters if one.role == "side"] == ["side_columns.weight"]
    assert blueprint.new_modules == (() if name == "from-scratch" else ("side_columns", "side_out", "side_text"))


def test_the_head_of_a_base_with_side_columns_is_where_a_new_one_starts(base: Path, tmp_path: Path) -> None:
    import torch

    strategy = FullFinetune(FullFinetune.Config())
    first: Any = strategy.build(strategy.blueprint(SIDE, tokenizer=base, base=base), base=base, placement=Placement())
    first.save_pretrained(tmp_path)
    blueprint = Peft(Peft.Config()).blueprint(SIDE, tokenizer=base, base=tmp_path)
    assert blueprint.new_modules == ("side_columns", "side_out", "side_text")
    again = strategy.build(blueprint, base=tmp_path, placement=Placement())
    kept = first.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in again.state_dict().items())


def test_side_columns_are_refused_for_a_head_that_cannot_read_them(base: Path) -> None:
    with pytest.raises(DataError, match="takes no side columns"):
        FullFinetune(FullFinetune.Config()).blueprint(Head("token-classification", 3, 2), tokenizer=base, base=base)


def _classifier(base: Path, out: Path, labels: int) -> Path:
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels).save_pretrained(out)
    return out


def test_another_tasks_head_of_another_size_is_new(base: Path, tmp_path: Path) -> None:
    other = _classifier(base, tmp_path / "five", 5)
    strategy = FullFinetune(FullFinetune.Config())
    blueprint = strategy.blueprint(HEAD, tokenizer=base, base=other)
    assert blueprint.new_modules == ("classifier",)
    model: Any = strategy.build(blueprint, base=other, placement=Placement())
    assert model.classifier.out_features == 3


def test_a_head_of_the_same_size_is_trained_from_where_it_is(base: Path, tmp_path: Path) -> None:
    """Its rows may stand for other labels: an adapter on a frozen head could not learn what its own mean."""
    import torch

    same, strategy = _classifier(base, tmp_path / "three", 3), Peft(Peft.Config())
    blueprint = strategy.blueprint(HEAD, tokenizer=base, base=same)
    assert blueprint.new_modules == ("classifier",)
    head = [one for one in blueprint.parameters if one.name.startswith("classifier.")]
    assert {one.role for one in head} == {"head"}
    first, again = (strategy.build(blueprint, base=same, placement=Placement()).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_base_without_safetensors_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(DataError, match="pickle is not opened"):
        FullFinetune(FullFinetune.Config()).blueprint(HEAD, tokenizer=base, base=tmp_path)


def test_base_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no tokenizer"):
        FullFinetune(FullFinetune.Config()).tokenizer([], base=tmp_path, out=tmp_path / "out")


def test_the_kit_catches_a_strategy_whose_weights_do_not_follow_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    built = FromScratch.build

    def build(self: FromScratch, blueprint: Any, *, base: Any, placement: Any) -> Any:
        import torch

        torch.manual_seed(0)
        return built(self, blueprint, base=base, placement=placement)

    monkeypatch.setattr(FromScratch, "build", build)
    with pytest.raises(AssertionError, match="the seed decides nothing"):
        check_strategy("from-scratch", config=SMALL)


def _config(family: str, positions: int) -> Any:
    import transformers

    given = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "pad_token_id": 1}
    given |= {"intermediate_size": 48, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": positions}
    own = {"opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "gptj": {"rotary_dim": 4}}
    return transformers.AutoConfig.for_model(family, **given, **own.get(family, {}))


@pytest.mark.parametrize(("family", "told"), [("bert", 40), ("roberta", 42), ("gpt2", 40), ("opt", 40), ("gptj", 40)])
def test_a_blueprint_says_how_many_tokens_its_table_of_positions_has_rows_for(family: str, told: int) -> None:
    import torch
    from espalier_models.blueprints import blueprint_of
    from espalier_sdk.heads import build_model, with_head

    config = with_head(_config(family, told), HEAD)
    positions = blueprint_of(config, HEAD, base=None).positions
    assert positions == 40  # RoBERTa's tokens begin behind the row of padding, which is 1
    model = build_model(config, HEAD).eval()
    with torch.no_grad():
        model(input_ids=torch.full((1, positions), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, positions + 1), 5))


@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_a_model_that_rotates_has_no_table_of_positions(family: str) -> None:
    from espalier_models.blueprints import blueprint_of
    from espalier_sdk.heads import with_head

    assert blueprint_of(with_head(_config(family, 40), HEAD), HEAD, base=None).positions is None
