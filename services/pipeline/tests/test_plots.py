"""Plots of the report."""

from __future__ import annotations

from espalier_pipeline import plots


def test_a_plot_of_many_numbers_draws_some_of_them() -> None:
    many = [float(place) for place in range(5000)]
    assert plots.numbers(many, many).count("<use") < 1100
    assert plots.numbers([1.0, 2.0], [1.5, 2.5]).startswith("<svg")
