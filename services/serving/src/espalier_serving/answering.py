"""Answering one request: assign, record, call, fall back. Knows nothing about HTTP or Ray.

The exposure is queued before the variant is called; who may get a challenger's answer waits for its commit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from espalier_serving.calling import Attempts, Caller, Reply, VariantError, VariantTimeout
from espalier_serving.deciding import Decision, Reason
from espalier_serving.exposures import CompletionRow, ExposureRow, Writer, confirmed
from espalier_serving.ids import now
from espalier_serving.meters import Meters
from espalier_serving.routing import Routing

COMMIT_SECONDS = 0.25  # an exposure that is not on disk by then lets the champion answer
CHALLENGER_SHARE = 0.5  # of the time for an answer; the rest is the champion's, should the challenger fail
_CANCELLED = 499  # the client went away; nginx's number
_UNFORESEEN = 500
_TELL_AGAIN_SECONDS = 60.0  # how long a variant's next error of the same kind is only counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that has been checked and assigned."""

    request_id: str
    routing: Routing
    champion: str
    decision: Decision
    items: Sequence[Any]
    key_id: str
    started: float  # time.perf_counter when the gateway began with it


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a variant's reply, or the error of the one that should have answered."""

    reply: Reply | None
    error: VariantError | None
    served: str | None
    assignment: Reason
    seconds: float
    overhead: float
    cause: str = ""  # the code of the challenger's error, where the champion answered for it

    @property
    def status(self) -> int:
        """Returns the HTTP status."""
        if self.error is not None:
            return self.error.status
        return 400 if self.reply is not None and "invalid" in self.reply else 200


@dataclass(slots=True)
class _Wait:
    """How long the gateway waited for variants, one after the other."""

    seconds: float = 0.0


class Answering:
    """Answers requests through a caller, with every exposure on disk that must be."""

    def __init__(self, *, caller: Caller, writer: Writer, meters: Meters) -> None:
        self._attempts = Attempts(caller)
        self._writer = writer
        self._meters = meters
        self._told: dict[tuple[str, str], float] = {}  # when the log last told of an error, by variant and code

    async def answer(self, ask: Ask) -> Answer:
        """Returns the answer to a request; never a challenger's without its exposure on disk."""
        wait = _Wait()
        try:
            answer = await self._answer(ask, wait)
        except asyncio.CancelledError:
            self._unanswered(ask, wait, status=_CANCELLED, finish="cancelled")
            raise
        except Exception:
            self._unanswered(ask, wait, status=_UNFORESEEN, finish="error")
            raise
        seconds = time.perf_counter() - ask.started
        answer = replace(answer, seconds=seconds, overhead=max(0.0, seconds - wait.seconds))
        self._complete(ask, answer)
        return answer

    async def _answer(self, ask: Ask, wait: _Wait) -> Answer:
        decision, limits = ask.decision, ask.routing.limits
        exposure = _exposure(ask)
        self._meters.exposure(decision.reason)
        if decision.reason not in ("enrolled", "override"):
            self._writer.append(exposure)
            return await self._by(ask.champion, ask, wait, decision.reason, limits.timeout_seconds)
        until = time.monotonic() + COMMIT_SECONDS
        commit = self._writer.commit(exposure)
        challenger = decision.assigned != ask.champion
        share = CHALLENGER_SHARE if challenger and decision.reason == "enrolled" else 1.0
        call = asyncio.ensure_future(
            self._by(decision.assigned, ask, wait, decision.reason, share * limits.timeout_seconds)
        )
        try:
            durable = await confirmed(commit, until=until)
            if durable or not challenger:
                answer = await call
                return await self._checked(ask, answer, wait, durable=durable)
        finally:
            call.cancel()
        return await self._by(ask.champion, ask, wait, "degraded", limits.timeout_seconds)

    async def _checked(self, ask: Ask, answer: Answer, wait: _Wait, *, durable: bool) -> Answer:
        if not durable:
            return replace(answer, assignment="degraded")
        challenger = ask.decision.assigned != ask.champion
        if answer.error is None or not challenger or ask.decision.reason == "override":
            return answer
        left = ask.routing.limits.timeout_seconds - (time.perf_counter() - ask.started)
        by_champion = await self._by(ask.champion, ask, wait, "fallback", max(left, 0.0))
        return replace(by_champion, cause=answer.error.code)

    async def _by(self, variant: str, ask: Ask, wait: _Wait, assignment: Reason, seconds: float) -> Answer:
        begun = time.perf_counter()
        reply: Reply | None = None
        error: VariantError | None = None
        try:
            cap = ask.routing.limits.max_concurrency
            reply = await self._attempts.call(variant, ask.items, seconds=seconds, cap=cap)
        except VariantError as failure:
            error = failure
            self._note(ask, variant, failure)
        finally:
            wait.seconds += time.perf_counter() - begun
        return Answer(reply, error, variant if error is None else None, assignment, 0.0, 0.0)

    def _note(self, ask: Ask, variant: str, error: VariantError) -> None:
        routing, name = ask.routing, ask.routing.name_of(variant)
        experiment = ask.decision.experiment or ""
        self._meters.variant_error(endpoint=routing.endpoint, experiment=experiment, variant=name, code=error.code)
        moment = time.monotonic()
        if moment - self._told.get((variant, error.code), float("-inf")) > _TELL_AGAIN_SECONDS:
            self._told[variant, error.code] = moment
            logger.warning("%s/%s gave no answer, %s: %s", routing.endpoint, name, error.code, error)

    def _unanswered(self, ask: Ask, wait: _Wait, *, status: int, finish: str) -> None:
        seconds = time.perf_counter() - ask.started
        self._writer.append(CompletionRow(ask.request_id, None, status, 1000 * seconds, finish))
        self._count(ask, None, status, seconds=seconds, overhead=max(0.0, seconds - wait.seconds))

    def _count(self, ask: Ask, served: str | None, status: int, *, seconds: float, overhead: float) -> None:
        self._meters.request(
            endpoint=ask.routing.endpoint,
            experiment=ask.decision.experiment or "",
            variant=ask.routing.name_of(served) if served else "",
            code=status,
            seconds=seconds,
            overhead=overhead,
        )

    def _complete(self, ask: Ask, answer: Answer) -> None:
        predictions = (answer.reply or {}).get("predictions") or []
        scores = [one["score"] for one in predictions if isinstance(one.get("score"), int | float)]
        self._writer.append(
            CompletionRow(
                request_id=ask.request_id,
                served=answer.served,
                status=answer.status,
                total_ms=1000 * answer.seconds,
                finish=_finish(answer),
                prediction=[_prediction(one) for one in predictions] or None,
                score=sum(scores) / len(scores) if scores else None,
            )
        )
        self._count(ask, answer.served, answer.status, seconds=answer.seconds, overhead=answer.overhead)


def _exposure(ask: Ask) -> ExposureRow:
    return ExposureRow(
        request_id=ask.request_id,
        at=now(),
        endpoint=ask.routing.endpoint,
        revision=ask.routing.revision,
        assigned=ask.decision.assigned,
        reason=ask.decision.reason,
        key_id=ask.key_id,
        experiment=ask.decision.experiment,
        unit_hash=ask.decision.unit_hash,
        window_seconds=ask.decision.window_seconds,
    )


def _finish(answer: Answer) -> str:
    if answer.error is not None:
        return "timeout" if isinstance(answer.error, VariantTimeout) else "error"
    if answer.status != 200:
        return "invalid"
    if answer.cause:
        return f"fallback:{answer.cause}"
    return "degraded" if answer.assignment == "degraded" else "stop"


def _prediction(one: dict[str, Any]) -> Any:
    return one.get("label", one.get("value", one.get("answer")))
