"""What a model's own score is worth: the answers that were wrong though it was sure, and what abstaining would bring.

Read from predictions on validation, so that nobody sets a threshold by the test split. Knows no task: predictions
without a score and a text as answer have nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espalier_sdk import ArtifactRef
from espalier_sdk.columns import ID, PREDICTION, SCORE, TARGET

from espalier_pipeline.predictions import predictions_of, texts_of

if TYPE_CHECKING:
    import pyarrow as pa
    from espalier_runtime.store import Store

_SHOWN = 10
_TARGETS = (0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What is left where answers below a score are not given: the share answered, and the share of those right."""

    score: float
    coverage: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Confidence:
    """The curve of thresholds, rising; the lowest ones that reach a round accuracy; the surest wrong answers."""

    curve: tuple[Threshold, ...]
    reached: tuple[tuple[float, Threshold], ...]
    worst: tuple[dict[str, Any], ...]


def confidence(stages: Sequence[Mapping[str, Any]], store: Store, candidate: str, dataset: str) -> Confidence | None:
    """Returns it for a candidate's predictions on validation; None where they carry no scores of labels."""
    import pyarrow.parquet as pq
    from espalier_runtime.tables import read_parts

    path = predictions_of(stages, store, candidate, "validation")
    if path is None or not _has_scores(pq.read_schema(path)):
        return None
    table = pq.read_table(path, columns=[ID, TARGET, PREDICTION, SCORE])
    rows = [row for row in table.to_pylist() if row[TARGET] is not None and row[SCORE] is not None]
    if not rows:
        return None
    curve = thresholds([(row[SCORE], row[TARGET] == row[PREDICTION]) for row in rows])
    lowest = {target: next((one for one in curve if one.accuracy >= target), None) for target in _TARGETS}
    wrong = sorted((row for row in rows if row[TARGET] != row[PREDICTION]), key=lambda row: -row[SCORE])[:_SHOWN]
    texts = texts_of(read_parts(store.open_artifact(ArtifactRef.parse(dataset)).folder / "validation"), wrong)
    reached = tuple((target, one) for target, one in lowest.items() if one)
    return Confidence(tuple(curve), reached, tuple({**row, "text": texts.get(row[ID], "")} for row in wrong))


def sentences(found: Confidence) -> list[str]:
    """Returns what abstaining would bring for each round accuracy, and first those that need none."""
    free = [f"{target:.0%}" for target, one in found.reached if one.coverage == 1]
    said = []
    if free:
        right = f"{found.curve[0].accuracy:.1%} of all answers are right"
        said.append(f"{right}: for {' and '.join(free)} none has to be left out.")
    for target, one in found.reached:
        if one.coverage < 1:
            left_out = f"those below a score of {one.score:.4g} are not given"
            answered = f"{one.coverage:.0%} of the questions are answered"
            # All digits: of sure models, thousands of answers lie within the last of four.
            command = f"espalier predict MODEL FILE --abstain-below {one.score!r}"
            said.append(f"{target:.0%} of the answers are right where {left_out}: {answered} ({command}).")
    return said


def thresholds(answers: Sequence[tuple[float, bool]]) -> list[Threshold]:
    """Returns coverage and accuracy at each score that an answer has, the lowest score first: there all are given.

    The trade-off of selective classification (El-Yaniv and Wiener 2010).
    """
    ordered = sorted(answers, reverse=True)
    found: list[Threshold] = []
    right = 0
    for count, (score, good) in enumerate(ordered, 1):
        right += good
        if count == len(ordered) or ordered[count][0] < score:
            found.append(Threshold(score, count / len(ordered), right / count))
    return found[::-1]


def _has_scores(schema: pa.Schema) -> bool:
    import pyarrow as pa

    if not {ID, TARGET, PREDICTION, SCORE} <= set(schema.names):
        return False
    return all(pa.types.is_string(schema.field(name).type) for name in (TARGET, PREDICTION))
