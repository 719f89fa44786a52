"""What a language model is worth: a guess that reads no text, and TF-IDF with a linear model, on the same rows.

Baselines from scikit-learn; they always stand below the candidates. Which ones fit is read from the columns of the
task: one that answers a `label`, or one that answers a `value`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from espalier_runtime.job import Job
from espalier_sdk import Choice
from espalier_sdk.columns import PREDICTION, SCORE, TARGET

if TYPE_CHECKING:
    from espalier_sdk import Columns

# Before any clock starts: importing them takes longer than a fit on a few hundred rows.
_IMPORTED = ("scipy.sparse", "sklearn.feature_extraction.text", "sklearn.linear_model", "sklearn.pipeline")

Answer = tuple[str, float]  # label and score
Baseline = tuple[str, float, pa.Table]  # name, start time, predictions


def baselines(job: Job, train: pa.Table, rows: pa.Table) -> Iterator[Baseline]:
    """Yields name, start time and predictions of each baseline that fits the task."""
    for module in _IMPORTED:
        import_module(module)
    choice = Choice.model_validate(job.inputs["dataset"].manifest.what["task"])
    task = job.plugins.load("espalier.tasks", choice)
    if hasattr(task, "words"):
        yield from _of_tags(task, train, rows)
        return
    if task.head_kind != "sequence-classification":
        return
    columns = task.columns()
    for use, measure in (("label", _of_labels), ("value", _of_numbers)):
        for target in _named(columns.required, use):
            yield from measure(columns, target, train, rows)
    if "labels" in columns.required.values():
        texts = _named(columns.required, "text")
        yield from _of_sets(_texts(train, texts), task.targets(train), _texts(rows, texts), task.targets(rows))


def _of_labels(columns: Columns, target: str, train: pa.Table, rows: pa.Table) -> Iterator[Baseline]:
    texts = _named(columns.required, "text")
    train = train.filter(train.column(target).is_valid())  # a row without a label teaches nothing
    known, wanted = _column(train, target).to_pylist(), _column(rows, target)
    started = time.perf_counter()
    yield "tf-idf-linear", started, _table(wanted, linear(_texts(train, texts), known, _texts(rows, texts)))
    started = time.perf_counter()
    yield "majority", started, _table(wanted, [most_frequent(known)] * len(wanted))


def _of_numbers(columns: Columns, target: str, train: pa.Table, rows: pa.Table) -> Iterator[Baseline]:
    texts, vectors = _named(columns.required, "text"), _named(columns.optional, "vector")
    known, wanted = _floats(train, target), _floats(rows, target)
    train, known = train.filter(pa.array(~np.isnan(known))), known[~np.isnan(known)]
    started = time.perf_counter()
    answers = ridge(
        _texts(train, texts), known, _texts(rows, texts), beside=(_vectors(train, vectors), _vectors(rows, vectors))
    )
    yield "tf-idf-ridge", started, _number_table(wanted, answers)
    started = time.perf_counter()
    yield "mean", started, _number_table(wanted, np.full(len(wanted), known.mean()))


def linear(texts: list[str], labels: list[str], asked: list[str]) -> list[Answer]:
    """Word uni- and bigrams, sublinear TF-IDF, logistic regression with balanced classes.

    Where no text has a word, nothing can be learned from words, and the answer is the most frequent label.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = _vectorizer()
    if not _has_words(vectorizer, texts):
        return [most_frequent(labels)] * len(asked)
    model = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"))
    shares = model.fit(texts, labels).predict_proba(asked)
    best = shares.argmax(axis=1)
    return [(str(model.classes_[place]), float(row[place])) for place, row in zip(best, shares, strict=True)]


def ridge(
    texts: list[str], values: np.ndarray, asked: list[str], *, beside: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Word uni- and bigrams, sublinear TF-IDF, side columns beside them, ridge regression (Hoerl and Kennard 1970).

    `beside` holds the side columns of the texts and of those asked, (rows, width); width 0 where there are none.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import Ridge

    known, new = ([csr_matrix(side)] for side in beside)
    vectorizer = _vectorizer()
    if _has_words(vectorizer, texts):
        known, new = [vectorizer.fit_transform(texts), *known], [vectorizer.transform(asked), *new]
    if not sum(part.shape[1] for part in known):
        return np.full(len(asked), values.mean())
    model = Ridge(alpha=1.0, solver="sparse_cg")
    answers: np.ndarray = model.fit(hstack(known).tocsr(), values).predict(hstack(new).tocsr())
    return answers


def most_frequent(labels: list[str]) -> Answer:
    """Returns the most frequent label, the first by name of equals, and its share."""
    counted = Counter(labels)
    label = min(counted, key=lambda one: (-counted[one], one))
    return label, counted[label] / len(labels)


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")


def _has_words(vectorizer: Any, texts: list[str]) -> bool:
    words = vectorizer.build_analyzer()
    return any(words(text) for text in texts)


def _named(columns: dict[str, str], use: str) -> list[str]:
    return [name for name, found in columns.items() if found == use]


def _of_tags(task: Any, train: pa.Table, rows: pa.Table) -> Iterator[Baseline]:
    started = time.perf_counter()
    pairs = zip(task.words(train).to_pylist(), task.targets(train).to_pylist(), strict=True)
    known = [(word, tag) for words, tags in pairs if tags is not None for word, tag in zip(words, tags, strict=True)]
    yield "majority", started, _table_of_lists(task.targets(rows), most_frequent_tags(known, task.words(rows)))


def most_frequent_tags(known: list[tuple[str, str]], asked: pa.ChunkedArray) -> list[list[str]]:
    """Gives each word the tag that it has most often in train, whatever its case; to a new word the most frequent."""
    by_word: dict[str, Counter[str]] = {}
    for word, tag in known:
        by_word.setdefault(word.lower(), Counter())[tag] += 1
    best = {word: most_frequent(list(counted.elements()))[0] for word, counted in by_word.items()}
    other = most_frequent([tag for _, tag in known])[0]
    return [[best.get(word.lower(), other) for word in words] for words in asked.to_pylist()]


def _of_sets(texts: list[str], known: pa.ChunkedArray, asked: list[str], wanted: pa.ChunkedArray) -> Iterator[Baseline]:
    pairs = [(text, labels) for text, labels in zip(texts, known.to_pylist(), strict=True) if labels is not None]
    learned = [text for text, _ in pairs], [labels for _, labels in pairs]
    started = time.perf_counter()
    yield "tf-idf-linear", started, _table_of_lists(wanted, one_versus_rest(*learned, asked))
    started = time.perf_counter()
    yield "majority", started, _table_of_lists(wanted, [most_frequent_set(learned[1])] * len(asked))


def one_versus_rest(texts: list[str], sets: list[list[str]], asked: list[str]) -> list[list[str]]:
    """For each label the linear model of whether a text has it, given from a score of 0.5 on.

    A label that every text of train has, or none, is always given or never.
    """
    labels = sorted({label for held in sets for label in held})
    found: list[list[str]] = [[] for _ in asked]
    for label in labels:
        has = ["yes" if label in held else "no" for held in sets]
        if len(set(has)) > 1:
            answers = linear(texts, has, asked)
        else:
            answers = [most_frequent(has)] * len(asked)
        for place, (answer, _) in enumerate(answers):
            if answer == "yes":
                found[place].append(label)
    return found


def most_frequent_set(sets: list[list[str]]) -> list[str]:
    """Returns the most frequent set of labels, the first by name of equals."""
    counted = Counter(tuple(sorted(held)) for held in sets)
    return list(min(counted, key=lambda one: (-counted[one], one)))


def _texts(table: pa.Table, columns: list[str]) -> list[str]:
    lists = [_column(table, name).to_pylist() for name in columns]
    return [" ".join(value or "" for value in values) for values in zip(*lists, strict=True)]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table.column(name).cast(pa.string())


def _table(targets: pa.ChunkedArray, answers: list[Answer]) -> pa.Table:
    labels, scores = zip(*answers, strict=True)
    return pa.table({TARGET: targets, PREDICTION: pa.array(labels, pa.string()), SCORE: pa.array(scores, pa.float32())})


def _floats(table: pa.Table, name: str) -> np.ndarray:
    """Returns a column of numbers, or of text that holds numbers; NaN where a row has none."""
    values = table.column(name).to_pylist()
    return np.array([np.nan if value is None or not str(value).strip() else float(value) for value in values])


def _vectors(table: pa.Table, names: list[str]) -> np.ndarray:
    parts = [np.array(table.column(name).to_pylist(), dtype=np.float64) for name in names if table.num_rows]
    return np.concatenate(parts, axis=1) if parts else np.zeros((table.num_rows, 0))


def _number_table(targets: np.ndarray, answers: np.ndarray) -> pa.Table:
    return pa.table({TARGET: pa.array(targets, mask=np.isnan(targets)), PREDICTION: pa.array(answers)})


def _table_of_lists(targets: pa.ChunkedArray, answers: list[list[str]]) -> pa.Table:
    return pa.table({TARGET: targets, PREDICTION: pa.array(answers, pa.list_(pa.string()))})
