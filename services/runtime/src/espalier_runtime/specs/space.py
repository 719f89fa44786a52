"""The space of a search: which fields of a candidate it may give other values, and a candidate with such values.

Knows nothing about how values are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from espalier_runtime.specs.models import Candidate, RangeSpec, Spec, TuneSpec

# What training alone reads: data, task, base and auxiliaries are made by stages before it.
SEARCHED = ("strategy", "peft", "learner", "controls", "training")


def with_values(candidate: Candidate, values: Mapping[str, Any]) -> Candidate:
    """Returns the candidate that one trial trains: with these values by path, and no search of its own.

    Raises LookupError, whose argument says why, for a path that the candidate does not have, and pydantic's
    ValidationError for values that it does not take.
    """
    plain = candidate.model_dump(mode="json", by_alias=True, exclude={"tune"})
    for path, value in values.items():
        _put(plain, path.split("."), value)
    return Candidate.model_validate(plain)


def with_candidate(spec: Spec, name: str, candidate: Candidate) -> Spec:
    """Returns the spec with another candidate in the place of one."""
    return spec.model_copy(update={"candidates": {**spec.candidates, name: candidate}})


def by_share(candidate: Candidate) -> Candidate:
    """Returns the candidate whose study is a learning curve: the same values, on each share of the train split."""
    shares = (*sorted(set(candidate.learning_curve)), 1.0)
    tune = TuneSpec(space={"training.train_share": RangeSpec(choice=shares)}, sampler="grid")
    return candidate.model_copy(update={"tune": tune})


def ends(candidate: Candidate) -> Iterator[tuple[str, Any]]:
    """Yields the path and value of each end of each range, and of each choice."""
    assert candidate.tune is not None, "a candidate that is tuned"
    for path, one in candidate.tune.space.items():
        yield from ((path, value) for value in one.ends)


def _put(node: Any, parts: list[str], value: Any) -> None:
    if parts[0] not in SEARCHED:
        raise LookupError(f"{parts[0]!r} is not searched: only what training alone reads is ({', '.join(SEARCHED)})")
    if parts == ["training", "seed"]:
        raise LookupError("a seed is repeated by `tune.seeds`, not searched")
    for place, part in enumerate(parts[:-1]):
        node = _child(node, part, parts[: place + 1])
    last = parts[-1]
    if isinstance(node, list):
        _child(node, last, parts)
        node[int(last)] = value
    elif isinstance(node, dict) and (last in node or "config" in parts[:-1]):
        node[last] = value  # an option that a config leaves out is still the plugin's; which it has, the plugin says
    else:
        raise LookupError(_absent(node, last, parts[:-1]))


def _child(node: Any, part: str, above: list[str]) -> Any:
    try:
        found = node[int(part) if isinstance(node, list) else part]
    except (LookupError, TypeError, ValueError):
        raise LookupError(_absent(node, part, above[:-1])) from None
    if found is None:
        raise LookupError(f"the candidate has no {'.'.join(above)}")
    return found


def _absent(node: Any, part: str, above: list[str]) -> str:
    has = (
        ", ".join(map(str, node)) if isinstance(node, dict) else f"{len(node)} items" if isinstance(node, list) else ""
    )
    return f"{'.'.join(above) or 'the candidate'} has no {part!r}" + (f"; it has {has}" if has else "")
