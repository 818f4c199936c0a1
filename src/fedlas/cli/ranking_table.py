"""What ``fedlas evaluate --calibrate all`` prints: every calibrator in a row, in one screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fedlas._core.terminal import say, show
from fedlas.predictions import Predictions
from fedlas.present.evaluation import COMPARED
from fedlas.present.noise_text import Known, Measured
from fedlas.present.ranking import SELECTION, lead, ranking_table, signs
from fedlas.present.table import terminal


def show_ranking(
    measured: Measured, stages: Mapping[str, Predictions], *, title: str, noise: Known, details: bool = False
) -> None:
    """Print calibrators by NLL; with ``details`` with intervals, noise floors and p-values."""
    say(lead(measured, noise))
    if details:
        show(terminal(ranking_table(measured, stages, title=title, noise=noise, metrics=COMPARED), details=True))
    else:
        show(terminal(replace(ranking_table(measured, stages, title=title, noise=noise), notes=()), arrows=False))
    say(*filter(None, [signs(measured, stages, noise)]), SELECTION)
