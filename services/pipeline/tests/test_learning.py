"""What a report says about how a model learned."""

from __future__ import annotations

import pytest
from espalier_pipeline import plots
from espalier_pipeline.learning import divergence, overfitting, series, signals


def history(*losses: float) -> list[dict[str, float]]:
    steps = range(10, 10 * len(losses) + 1, 10)
    return [{"step": step, "loss": 1.0} for step in steps] + [
        {"step": step, "eval_loss": loss} for step, loss in zip(steps, losses, strict=True)
    ]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((0.9, 0.5, 0.4), "lowest at the end, 0.4"),
        ((0.9, 0.4, 0.5), "turned at step 20 of 30 and rose by 25%"),
        ((0.9, 0.4, 0.402), "flat since step 20 of 30"),
    ],
)
def test_the_sentence_tells_where_validation_turned_and_by_how_much(losses: tuple[float, ...], said: str) -> None:
    assert said in (overfitting(history(*losses)) or "")


def test_of_an_early_stop_it_tells_which_weights_were_kept() -> None:
    said = overfitting(history(0.9, 0.4, 0.5), early_stopping=True)
    assert said is not None
    assert said.endswith("rose by 25% until the end: early stopping kept the weights of step 20.")


def test_one_measurement_says_nothing() -> None:
    assert overfitting(history(0.5)) is None
    assert series(history(0.5), "eval_loss") == [(10, 0.5)]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        # a classifier at a learning rate of 100 and, first, at 0.01, whose losses were measured
        ((1.1, 1.1, 52, 212, 460, 493, 163, 290, 151, 134, 145), "ended at 145, and began at 1.1: training diverged"),
        ((1.1, 1.1, 1.11, 1.11, 1.1, 0.81, 0.43, 0.48, 0.22, 0.29), None),
        ((1.1, 1.1, 52, 212, 40, 3, 1.2, 0.9, 0.5, 0.4), None),  # it has recovered
        ((0.01, 0.02, 0.01, 0.03, 0.09, 0.05, 0.08), None),  # a base that knew it all, and noise
        ((0.0, -0.1, 0.1, 2.5, 2.5, 2.5), None),  # a policy's, which is no measure
        ((1.1, 300, 300, 300), None),  # too few to tell
    ],
)
def test_a_loss_that_ends_far_above_its_start_is_told(losses: tuple[float, ...], said: str | None) -> None:
    found = divergence([{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)])
    assert found is None if said is None else said in (found or "")


def test_losses_and_phases_are_drawn() -> None:
    depths = [
        {"depth": depth, "trained": 5 * (depth > 0), "lr_scale": 0.5, "anchor": 0.0, "moved": 0.1} for depth in range(3)
    ]
    assert "validation" in (plots.losses({"one": history(0.9, 0.5)}) or "")
    assert "depth" in plots.phases([{"start": 0, "stop": 9, "depths": depths}])


def test_what_a_learner_logs_beside_the_loss_is_drawn_by_its_kind() -> None:
    told = {"learning_rate": 0.1, "rewards/margins": 0.2, "rewards/chosen": 0.1, "kl": 0.3}
    entries = [{"step": step, "loss": 0.7, **told} for step in (1, 2)]
    entries += [{"step": 2, "eval_loss": 0.6, "eval_runtime": 0.1, "eval_rewards/margins": 0.2}]
    assert signals(entries) == {"kl": ["kl"], "rewards": ["rewards/chosen", "rewards/margins"]}
    drawn = plots.learned(entries) or ""
    assert all(word in drawn for word in ("kl", "margins", "chosen"))
    assert plots.learned(history(0.9, 0.5)) is None
