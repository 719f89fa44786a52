"""An own tokenizer, trained on texts so that equal texts give equal bytes.

The trainers of `tokenizers` number what they meet in the order of a hash map that is seeded anew in each process.
For BPE that does not show, because its alphabet is sorted first. For WordPiece it does: the continuing characters
(`##a`) get their numbers as words come, and the numbers break ties between merges. So these are numbered here,
before training. Unigram would sum floats in that order: its pieces are learned by SentencePiece in one thread.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Literal

from espalier_sdk import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Algorithm = Literal["wordpiece", "bpe", "unigram"]
ENCODER_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
DECODER_NAMES = {"pad_token": "<|pad|>", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")  # the turns of a chat, one token each
SPECIAL = tuple(ENCODER_NAMES.values())
_UNKNOWN = "[UNK]"
_ALPHABET_LIMIT = 1000  # as BERT's own trainer: rarer characters become [UNK]
_COVERED = 0.98  # of all characters, whatever the alphabet: the least that SentencePiece takes
_BEGIN = "\u2581"  # SentencePiece's mark of where a word begins
_LONGEST = 1 << 24  # bytes; SentencePiece leaves out what is longer


def train_tokenizer(texts: Iterable[str], *, algorithm: Algorithm, size: int, lowercase: bool) -> Tokenizer:
    """Returns a tokenizer of at most `size` tokens that puts [CLS] and [SEP] around a text (Devlin et al. 2019)."""
    from tokenizers import processors

    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        tokenizer = _untrained(lowercase)
        inner, alphabet = _characters(texts, tokenizer, kept)
        _require_some(len(alphabet))
        train = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[algorithm]
        trained = train(tokenizer, kept, inner=inner, alphabet=alphabet, size=size)
    marks = [(token, trained.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks
    )
    return trained


def train_byte_level(texts: Iterable[str], *, size: int, lowercase: bool) -> Tokenizer:
    """Returns a tokenizer of at most `size` tokens over bytes, which writes every text back (Radford et al. 2019).

    It puts the begin token before a text and nothing after it, so that what it encodes can be continued.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    steps: list[Any] = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = (*DECODER_NAMES.values(), *ROLES)
    options = _options(special, sorted(pre_tokenizers.ByteLevel.alphabet()), size)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        written = sum(kept.write(json.dumps(text) + "\n") for text in texts if text)
        _require_some(written)
        tokenizer.train_from_iterator(_read(kept), trainer=trainers.BpeTrainer(**options))
    begin = DECODER_NAMES["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A $B:1",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    return tokenizer


def untaught_tokenizer(special: Iterable[str], *, size: int) -> Tokenizer:
    """Returns a tokenizer of `size` tokens that knows no text: the special ones, and numbers for all others."""
    from tokenizers import Tokenizer, models

    names = [*special, *(f"<{number}>" for number in range(size))][:size]
    return Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=names[0]))


def _require_some(count: int) -> None:
    if not count:
        raise DataError(
            "the train split has no text to make a vocabulary of",
            code="empty_vocabulary",
            remedy="look at the task's text columns, and at what the transforms leave of them",
        )


def _untrained(lowercase: bool) -> Tokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _characters(texts: Iterable[str], tokenizer: Tokenizer, kept: IO[str]) -> tuple[list[str], list[str]]:
    """Returns the characters that continue a word, and all of them, sorted; keeps the texts for the training."""
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    seen: set[str] = set()
    for text in texts:
        kept.write(json.dumps(text) + "\n")
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            if word not in seen:
                seen.add(word)
                counts.update(word)
                inner.update(word[1:])
    common = sorted(counts, key=lambda character: (-counts[character], character))[:_ALPHABET_LIMIT]
    return sorted(inner & set(common)), sorted(common)


def _read(kept: IO[str]) -> Iterator[str]:
    kept.seek(0)
    for line in kept:
        yield json.loads(line)


def _bpe(tokenizer: Tokenizer, kept: IO[str], *, inner: list[str], alphabet: list[str], size: int) -> Tokenizer:
    from tokenizers import decoders, trainers

    tokenizer.decoder = decoders.BPEDecoder()
    tokenizer.train_from_iterator(_read(kept), trainer=trainers.BpeTrainer(**_options(SPECIAL, alphabet, size)))
    return tokenizer


def _wordpiece(tokenizer: Tokenizer, kept: IO[str], *, inner: list[str], alphabet: list[str], size: int) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, trainers

    continuing = tuple(f"##{character}" for character in inner)
    tokenizer.model = models.WordPiece(unk_token=_UNKNOWN)
    options = _options((*SPECIAL, *continuing), alphabet, max(size, len(SPECIAL) + len(continuing) + len(alphabet)))
    tokenizer.train_from_iterator(_read(kept), trainer=trainers.WordPieceTrainer(**options))
    # Numbered as special tokens, they would be matched in texts as such: the model is set up again without that.
    trained = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=_UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.decoder = decoders.WordPiece()
    trained.add_special_tokens(list(SPECIAL))
    return trained


def _unigram(tokenizer: Tokenizer, kept: IO[str], *, inner: list[str], alphabet: list[str], size: int) -> Tokenizer:
    """Returns a tokenizer of pieces with their log probabilities, of which a text gets the likeliest (Kudo 2018)."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    least = len(SPECIAL) + len(_BEGIN) + len(alphabet)
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(tokenizer.normalizer.normalize_str(text) for text in _read(kept)),
        model_writer=model,
        model_type="unigram",
        vocab_size=max(size, least) - len(SPECIAL) + 1,  # its own unknown piece, which is left out below
        hard_vocab_limit=False,
        required_chars="".join(alphabet),
        character_coverage=_COVERED,
        max_sentence_length=_LONGEST,
        normalization_rule_name="identity",
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    pieces = SentencePieceProcessor(model_proto=model.getvalue())
    known = [number for number in range(pieces.get_piece_size()) if not pieces.is_unknown(number)]
    scores = {pieces.id_to_piece(number): pieces.get_score(number) for number in known}
    rarest = min(scores.values())
    scored = [*scores.items(), *((one, rarest) for one in (_BEGIN, *alphabet) if one not in scores)]
    trained = Tokenizer(models.Unigram([*((token, 0.0) for token in SPECIAL), *scored], unk_id=SPECIAL.index(_UNKNOWN)))
    trained.normalizer = tokenizer.normalizer
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trained.decoder = decoders.Metaspace()
    trained.add_special_tokens(list(SPECIAL))
    return trained


def _options(special: tuple[str, ...], alphabet: list[str], size: int) -> dict[str, Any]:
    return {
        "vocab_size": size,
        "special_tokens": list(special),
        "initial_alphabet": alphabet,
        "limit_alphabet": len(alphabet),
        "show_progress": False,
    }
