"""The search of a study: which values the next trial has, by Optuna, from what became of those before it.

Knows nothing about Ray or about training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from espalier_runtime.specs.models import RangeSpec, TuneSpec

from espalier_training.ledger import Ledger, Record

if TYPE_CHECKING:
    import optuna

_SIGNIFICANT = 4  # digits of a sampled number: what is shown can be written down, and is the value that was tried
_FEW = 10  # complete trials below which no importance is told


class Search:
    """Asks Optuna for values and tells it what came of them; what the ledger knows already is not asked again.

    The sampler begins anew with each trial, seeded by the trial's number, so that a study that was interrupted asks
    for the same values as an unbroken one.
    """

    def __init__(self, tune: TuneSpec, ledger: Ledger, *, greater_is_better: bool) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._tune, self._ledger, self._sign = tune, ledger, 1.0 if greater_is_better else -1.0
        self._ranges = dict(sorted(tune.space.items()))
        self._space = {path: _distribution(one) for path, one in self._ranges.items()}
        self._grid = list(itertools.product(*(range(len(one.ends)) for one in self._ranges.values())))
        self._study = optuna.create_study(direction="maximize")
        self._asked: dict[int, optuna.Trial] = {}
        self._waiting = [number for number in range(tune.count) if self._open(number)]
        for number in range(tune.count):
            if not self._open(number):
                self._study.add_trial(self._frozen(ledger.records[number]))

    @property
    def total(self) -> int:
        """Returns how many trials the study has."""
        return self._tune.count

    @property
    def left(self) -> int:
        """Returns how many trials are still to be asked for."""
        return len(self._waiting)

    @property
    def records(self) -> list[Record]:
        """Returns what became of the trials so far, by number."""
        known = self._ledger.records
        return [known[number] for number in range(self._tune.count) if number in known]

    def best(self) -> Record | None:
        """Returns the complete trial with the best score, the first of equals."""
        complete = [one for one in self.records if one.state == "complete"]
        return max(complete, key=lambda one: (self._sign * (one.score or 0.0), -one.number), default=None)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Returns number and values of the next trial, and notes that it has begun."""
        number = self._waiting.pop(0)
        self._study.sampler = self._sampler(number)
        begun = self._ledger.records.get(number)
        if begun is not None:
            self._study.enqueue_trial(begun.point)
        elif self._tune.sampler == "grid":
            self._study.enqueue_trial(dict(zip(self._ranges, self._grid[number], strict=True)))
        trial = self._asked[number] = self._study.ask(self._space)
        self._ledger.write(Record(number=number, point=dict(trial.params)))
        return number, self.values(trial.params)

    def hear(self, number: int, validation: int, loss: float) -> None:
        """Notes a validation loss on the way; one that is no number is left to training, which ends by it."""
        record = self._ledger.records[number]
        if validation > len(record.losses) and math.isfinite(loss):
            self._ledger.update(number, losses=(*record.losses, loss))

    def tell(self, number: int, **outcome: Any) -> None:
        """Notes how a trial ended: the fields of its record."""
        from optuna.trial import TrialState

        self._ledger.update(number, **outcome)
        record, trial = self._ledger.records[number], self._asked.pop(number)
        for place, loss in enumerate(record.losses, 1):
            trial.report(-loss, place)
        if record.state == "complete":
            self._study.tell(trial, self._sign * (record.score or 0.0))
        else:  # refused and failed ones too: as the worst of all, so that tpe keeps away from there
            self._study.tell(trial, state=TrialState.PRUNED)

    def forget(self, number: int) -> None:
        """Has a trial made again that was complete, because its model is gone."""
        self._ledger.write(Record(number=number, point=self._ledger.records[number].point))
        self._waiting.insert(0, number)

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values by path of a point in the sampler's space."""
        return {path: _value(self._ranges[path], raw) for path, raw in point.items()}

    def importance(self) -> dict[str, float] | None:
        """Returns each path's share in what tells the best trials from the rest; None where there are too few.

        PED-ANOVA (Watanabe, Bansal and Hutter 2023).
        """
        import optuna

        complete = [one for one in self._study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        if len(complete) < _FEW or len(self._space) < 2 or len({one.value for one in complete}) < 2:
            return None
        found = optuna.importance.get_param_importances(self._study)
        return {path: round(float(share), 4) for path, share in found.items()}

    def _open(self, number: int) -> bool:
        record = self._ledger.records.get(number)
        return record is None or record.state == "running"

    def _sampler(self, number: int) -> Any:
        import optuna

        seed = int(np.random.SeedSequence([self._tune.seed, number]).generate_state(1)[0])
        if self._tune.sampler == "tpe":
            # Optuna's defaults are for hundreds of trials: ten at random first, the best tenth taken for good. In 12
            # trials of a parabola over four decades, those here come twice as near to its top: 0.47 decades to 0.90.
            begin = min(10, max(3, self._tune.count // 3))
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=begin, gamma=_good)
        return optuna.samplers.RandomSampler(seed=seed)

    def _frozen(self, record: Record) -> Any:
        from optuna.trial import TrialState, create_trial

        complete = record.state == "complete"
        return create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=self._sign * (record.score or 0.0) if complete else None,
            params=record.point,
            distributions=self._space,
            intermediate_values={place: -loss for place, loss in enumerate(record.losses, 1)},
        )


def _good(trials: int) -> int:
    """Returns how many of the trials tpe takes for good ones: a quarter."""
    return math.ceil(trials / 4)


def _distribution(one: RangeSpec) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.choice is not None:
        return CategoricalDistribution(tuple(range(len(one.choice))))
    low, high = one.ends
    if one.integer or one.log_integer:
        return IntDistribution(low, high, log=one.log_integer is not None)
    return FloatDistribution(low, high, log=one.log_uniform is not None)


def _value(one: RangeSpec, raw: Any) -> Any:
    if one.choice is not None:
        return one.choice[raw]
    if isinstance(raw, int):
        return raw
    low, high = one.ends
    return min(max(float(f"{raw:.{_SIGNIFICANT}g}"), low), high)
