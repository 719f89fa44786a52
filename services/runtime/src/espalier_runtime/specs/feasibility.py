"""What a spec asks for that can never run, found before any work: sizes that do not divide, bases that are none.

Knows nothing about what plugins do; `specs.checking` asks them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from espalier_sdk.choice import Choice
from espalier_sdk.errors import Problem
from espalier_sdk.groups import did_you_mean
from espalier_sdk.model import HeadKind

from espalier_runtime.specs.document import Location, SpecDocument
from espalier_runtime.specs.models import Candidate, Spec

_READ_FILES = ("espalier.sources", "espalier.base_models")
_PATH_KEYS = ("path", "paths")


def config_problems(group: str, choice: Choice, at: Location, document: SpecDocument) -> Iterator[Problem]:
    """Yields numbers that are none, and files where they would not be noticed when their content changes."""
    for place, key, value in _walk(choice.config, at):
        if isinstance(value, float) and not math.isfinite(value):
            yield document.problem(place, f"{value}: must be a finite number", given=str(value), accepted="a number")
        if key in _PATH_KEYS and group not in _READ_FILES:
            yield document.problem(
                place,
                f"{choice.name} names a file: only sources and base models read files, whose content is looked at",
                code="file_plugin",
                given=str(value),
                remedy="write what the file holds into the config, or ship it inside the plugin's distribution",
            )


def candidate_problems(
    spec: Spec, name: str, *, strategy: Any, learner: Any, document: SpecDocument
) -> Iterator[Problem]:
    """Yields what a candidate asks for that can never run; `strategy` is its strategy's config."""
    candidate, at = spec.candidates[name], ("candidates", name)
    yield from _batch_problems(candidate, at, document)
    yield from _auxiliary_problems(candidate, learner.auxiliaries, at, document)
    if candidate.training.early_stopping is not None and not getattr(learner, "measures_loss", True):
        yield document.problem(
            (*at, "training", "early_stopping"),
            f"the learner {candidate.learner.name} has no loss on validation that could end training",
            code="no_loss",
            given=candidate.training.early_stopping,
            remedy="remove it, and say how long with epochs or max_steps",
        )
    longest, wanted = getattr(strategy, "max_positions", None), candidate.training.max_tokens
    if isinstance(longest, int) and longest < wanted:
        yield document.problem(
            (*at, "training", "max_tokens"),
            f"max_tokens {wanted} is more than the model's max_positions {longest}",
            code="too_long",
            given=wanted,
            accepted=f"at most {longest}",
            remedy="raise max_positions in the strategy's config, or lower max_tokens",
        )


def merging_problems(other: str, method: Any, at: Location, document: SpecDocument) -> Iterator[Problem]:
    """Yields that a candidate refers to another one's adapter whose PEFT method cannot be merged into its base."""
    if not method.traits().mergeable:
        yield document.problem(
            at,
            f"candidate {other!r} is an adapter that cannot be merged into its base",
            code="adapter_base",
            given=other,
            remedy="name a whole model, or an adapter that can be merged, such as one of lora",
        )


def answer_problems(
    spec: Spec, kinds: Mapping[str, tuple[HeadKind, HeadKind]], document: SpecDocument
) -> Iterator[Problem]:
    """Yields candidates that compete, though what their models put out is not what the others' do.

    `kinds` are the head that a candidate's task has, and the one that its learner builds.
    """
    competing = {name: kinds[name] for name, one in spec.candidates.items() if one.competes and name in kinds}
    if all(built != asked for asked, built in competing.values()):
        return
    for name, (asked, built) in competing.items():
        if built != asked:
            yield document.problem(
                ("candidates", name),
                f"its learner builds {built}, which answers nothing that could be compared with the other candidates",
                code="competes",
                remedy="add `competes: false`; a spec whose candidates all build this head compares them",
            )


def _batch_problems(candidate: Candidate, at: Location, document: SpecDocument) -> Iterator[Problem]:
    batch, where = candidate.training.batch_size, candidate.where
    per_pass = where.workers * (where.micro_batch_size or max(1, batch // where.workers))
    if batch % per_pass:
        yield document.problem(
            (*at, "training", "batch_size"),
            f"batch_size {batch} is no multiple of workers x micro_batch_size = {per_pass}",
            code="batch_size",
            given=batch,
            accepted=f"a multiple of {per_pass}",
        )


def _auxiliary_problems(
    candidate: Candidate, taken: Mapping[str, Any], at: Location, document: SpecDocument
) -> Iterator[Problem]:
    for role, kind in taken.items():
        if role not in candidate.auxiliaries:
            yield document.problem(
                (*at, "auxiliaries", role),
                f"the learner {candidate.learner.name} needs another candidate's model as {role!r}",
                code="no_auxiliary",
                accepted=f"a candidate that builds {kind}",
                remedy=f"add `auxiliaries: {{{role}: {{from: NAME}}}}`",
            )
    for role in candidate.auxiliaries:
        if role not in taken:
            yield document.problem(
                (*at, "auxiliaries", role),
                f"the learner {candidate.learner.name} takes no auxiliary {role!r}",
                code="unknown_auxiliary",
                given=role,
                accepted=", ".join(taken) or "none",
                remedy=did_you_mean(role, list(taken)) or "remove it, or choose another learner",
            )


def auxiliary_head_problems(
    candidate: Candidate,
    taken: Mapping[str, HeadKind],
    kinds: Mapping[str, tuple[HeadKind, HeadKind]],
    at: Location,
    document: SpecDocument,
) -> Iterator[Problem]:
    """Yields auxiliaries whose models put out something else than the learner asks them for; `kinds` as above."""
    for role, other in candidate.auxiliaries.items():
        wanted, (_, built) = taken.get(role), kinds.get(other.from_, (None, None))
        if wanted and built and wanted != built:
            yield document.problem(
                (*at, "auxiliaries", role, "from"),
                f"candidate {other.from_!r} builds {built}, the learner {candidate.learner.name} asks {wanted}",
                code="auxiliary_head",
                given=other.from_,
                accepted=", ".join(name for name, (_, one) in kinds.items() if one == wanted)
                or f"one that builds {wanted}",
            )


def _walk(node: Any, at: Location) -> Iterator[tuple[Location, str | int, Any]]:
    """Yields place, key and value of everything inside a config."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*at, key), key, value
        yield from _walk(value, (*at, key))
