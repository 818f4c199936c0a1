"""Prints what an evaluation says about the positive class of predictions of two classes."""

from __future__ import annotations

from collections.abc import Mapping

from fedlas._core.terminal import show
from fedlas.predictions.predictions import AnyPredictions, check_predictions
from fedlas.present.positive_class import Found, benefit_table, bins_table, measures_table
from fedlas.present.table import terminal


def show_positive_class(stages: Mapping[str, AnyPredictions], found: Found, *, details: bool) -> None:
    """Print the main measures, or all with bins and net benefit of the first stage; nothing if there are none."""
    if not found:
        return
    show(terminal(measures_table(found, details=details)))
    if details:
        first = check_predictions("fedlas evaluate", stages[next(iter(found))])
        show(terminal(bins_table(first)))
        show(terminal(benefit_table(first)))
