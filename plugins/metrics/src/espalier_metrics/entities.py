"""The metric `entity-f1`: whole entities found, by type and place, as CoNLL and seqeval's strict IOB2 count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from espalier_sdk.choice import PluginConfig
from espalier_sdk.columns import PREDICTION, TARGET
from espalier_sdk.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CUT_WORDS = "cut_words"  # a column of a task that says how many words the model did not see


class EntityF1Config(PluginConfig):
    """This metric has nothing to choose."""


@dataclass(frozen=True, slots=True)
class _Tags:
    """The tags of all rows, one after the other."""

    begins: np.ndarray  # (words,) bool: B-
    goes_on: np.ndarray  # (words,) bool: an I- of the type of the word before it, in the same row
    kinds: np.ndarray  # (words,) int64, -1 outside


class EntityF1:
    """Precision, recall and F1 of entities: one is right when its type, its first and its last word are.

    Strict IOB2 (Ramshaw and Marcus 1995; the mode of that name in seqeval): an I- that goes on with nothing is no
    entity. `micro_` counts over all entities, `macro_` is the mean over types, `weighted_` that by their number; each
    type that is in a target or a prediction counts. A ratio without a denominator is 0.
    """

    contract: ClassVar[int] = 1
    Config: ClassVar[type[EntityF1Config]] = EntityF1Config
    greater_is_better: ClassVar[bool] = True
    reports: ClassVar[tuple[str, ...]] = tuple(
        f"{average}_entity_{name}"
        for average in ("micro", "macro", "weighted")
        for name in ("precision", "recall", "f1")
    )

    def __init__(self, config: EntityF1Config) -> None:
        self.config = config

    def rows(self, predictions: pa.Table) -> Sequence[float] | None:
        """Returns None: F1 is no mean over rows."""
        return None

    def values(self, predictions: pa.Table) -> Mapping[str, float]:
        """Returns the averages in `reports`, and `entity_f1/<type>`, `entity_precision/<type>`, `entity_recall/<type>`.

        `cut_words`, where the task tells it, is how many words were answered as outside because they were not read.
        """
        import numpy as np

        kinds, targets, answers = _read(predictions)
        size = len(kinds)
        ends = _ends(targets), _ends(answers)
        hit = targets.begins & answers.begins & (targets.kinds == answers.kinds) & (ends[0] == ends[1])
        support = np.bincount(targets.kinds[targets.begins], minlength=size)
        predicted = np.bincount(answers.kinds[answers.begins], minlength=size)
        hits = np.bincount(targets.kinds[hit], minlength=size)
        found: dict[str, float] = {}
        for name, over, under in (
            ("precision", hits, predicted),
            ("recall", hits, support),
            ("f1", 2 * hits, support + predicted),
        ):
            # A type of which there is only a stray I- is in no target and no prediction.
            there = support + predicted > 0
            each = np.divide(over, under, out=np.zeros(size), where=under > 0)
            found[f"micro_entity_{name}"] = _share(over.sum(), under.sum())
            found[f"macro_entity_{name}"] = float(each[there].mean()) if there.any() else 0.0
            found[f"weighted_entity_{name}"] = _share((each * support).sum(), support.sum())
            found |= {f"entity_{name}/{kinds[at]}": float(each[at]) for at in np.flatnonzero(there)}
        if CUT_WORDS in predictions.column_names:
            found[CUT_WORDS] = float(sum(predictions.column(CUT_WORDS).to_pylist()))
        return found


def _read(predictions: pa.Table) -> tuple[list[str], _Tags, _Tags]:
    """Returns the types, and the tags of targets and predictions; DataError where they do not go together."""
    import numpy as np
    import pyarrow as pa

    for name in (TARGET, PREDICTION):
        if name not in predictions.column_names or not pa.types.is_list(predictions.column(name).type):
            raise DataError(
                f"the predictions have no column {name!r} of tags",
                field=name,
                accepted=", ".join(predictions.column_names),
                remedy="measure a task that answers a tag for each word",
            )
    known = predictions.filter(predictions.column(TARGET).is_valid())
    if not known.num_rows:
        raise DataError(
            "no prediction has a target, so nothing can be measured",
            field=TARGET,
            remedy="evaluate on a split whose rows have tags",
        )
    lists = [pa.concat_arrays(known.column(name).chunks) for name in (TARGET, PREDICTION)]
    lengths = np.diff(lists[0].offsets.to_numpy())
    if not np.array_equal(lengths, np.diff(lists[1].offsets.to_numpy())):
        raise DataError("a row has more or fewer tags than words", field=PREDICTION, remedy="answer each word")
    both = pa.concat_arrays([one.flatten().cast(pa.string()) for one in lists]).dictionary_encode()
    names = both.dictionary.to_pylist()
    kinds = sorted({name[2:] for name in names if name[:2] in ("B-", "I-")})
    marks = np.array([name[:2] for name in names] or [""])
    kind_of = np.array([kinds.index(name[2:]) if name[:2] in ("B-", "I-") else -1 for name in names] or [-1])
    codes = both.indices.to_numpy()
    first = np.zeros(int(lengths.sum()), dtype=bool)  # the first word of a row
    first[np.cumsum(lengths)[:-1][lengths[1:] > 0]] = True
    first[:1] = True
    half = len(first)
    return kinds, *(_tags(marks[part], kind_of[part], first) for part in (codes[:half], codes[half:]))


def _tags(marks: np.ndarray, kinds: np.ndarray, first: np.ndarray) -> _Tags:
    import numpy as np

    same = np.zeros(len(kinds), dtype=bool)
    same[1:] = kinds[1:] == kinds[:-1]
    return _Tags(begins=marks == "B-", goes_on=(marks == "I-") & same & ~first, kinds=kinds)


def _ends(tags: _Tags) -> np.ndarray:
    """Returns for each word the place after the run that it is in: a word, and those that go on with it."""
    import numpy as np

    places = np.arange(len(tags.kinds))
    starts = np.flatnonzero(~tags.goes_on)
    stops = np.append(starts[1:], len(places))
    run = np.cumsum(~tags.goes_on) - 1
    ends: np.ndarray = stops[run] if len(places) else places
    return ends


def _share(over: float, under: float) -> float:
    return float(over / under) if under else 0.0
