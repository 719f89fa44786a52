"""What a language model is worth: a majority guess, and TF-IDF with a linear model, on the same rows.

Baselines from scikit-learn; they always stand below the candidates.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from espalier_runtime.job import Job
from espalier_sdk import Choice
from espalier_sdk.columns import PREDICTION, SCORE, TARGET

Answer = tuple[str, float]  # label and score


def baselines(job: Job, train: pa.Table, rows: pa.Table) -> Iterator[tuple[str, float, pa.Table]]:
    """Yields name, start time and predictions of each baseline that fits the task's head."""
    choice = Choice.model_validate(job.inputs["dataset"].manifest.what["task"])
    task = job.plugins.load("espalier.tasks", choice)
    if hasattr(task, "words"):
        yield from _of_tags(task, train, rows)
        return
    if task.head_kind != "sequence-classification":
        return
    required = task.columns().required
    texts = [name for name, kind in required.items() if kind == "text"]
    if "labels" in required.values():
        yield from _of_sets(_texts(train, texts), task.targets(train), _texts(rows, texts), task.targets(rows))
        return
    target = next(name for name, kind in required.items() if kind == "label")
    train = train.filter(train.column(target).is_valid())  # a row without a label teaches nothing
    known, wanted = _column(train, target).to_pylist(), _column(rows, target)
    started = time.perf_counter()
    yield "tf-idf-linear", started, _table(wanted, linear(_texts(train, texts), known, _texts(rows, texts)))
    started = time.perf_counter()
    yield "majority", started, _table(wanted, [most_frequent(known)] * len(wanted))


def linear(texts: list[str], labels: list[str], asked: list[str]) -> list[Answer]:
    """Word uni- and bigrams, sublinear TF-IDF, logistic regression with balanced classes.

    Where no text has a word, nothing can be learned from words, and the answer is the most frequent label.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    words = vectorizer.build_analyzer()
    if not any(words(text) for text in texts):
        return [most_frequent(labels)] * len(asked)
    model = make_pipeline(vectorizer, LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"))
    shares = model.fit(texts, labels).predict_proba(asked)
    best = shares.argmax(axis=1)
    return [(str(model.classes_[place]), float(row[place])) for place, row in zip(best, shares, strict=True)]


def most_frequent(labels: list[str]) -> Answer:
    """Returns the most frequent label, the first by name of equals, and its share."""
    counted = Counter(labels)
    label = min(counted, key=lambda one: (-counted[one], one))
    return label, counted[label] / len(labels)


def _of_tags(task: Any, train: pa.Table, rows: pa.Table) -> Iterator[tuple[str, float, pa.Table]]:
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


def _of_sets(
    texts: list[str], known: pa.ChunkedArray, asked: list[str], wanted: pa.ChunkedArray
) -> Iterator[tuple[str, float, pa.Table]]:
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


def _table_of_lists(targets: pa.ChunkedArray, answers: list[list[str]]) -> pa.Table:
    return pa.table({TARGET: targets, PREDICTION: pa.array(answers, pa.list_(pa.string()))})
