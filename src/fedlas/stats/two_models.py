"""Two models on the same samples: in which metrics one is better than the other, beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics import METRICS
from fedlas.metrics.evaluate import lacking
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import check_measurable
from fedlas.stats.compare import holm
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES
from fedlas.stats.intervals import ALPHA
from fedlas.stats.paired import check_same_samples, paired_bootstraps

COMPARED = ("accuracy", "nll", "brier", "ece")
"""Metrics that are compared where nothing else is asked for."""


@dataclass(frozen=True)
class ModelDifference:
    """A metric of two models on the same samples, and whether the difference is more than chance.

    Attributes:
        metric: Registry name.
        a: The metric of the first model.
        b: The metric of the second.
        low: Lower end of the interval of ``a - b``.
        high: Upper end.
        p_value: Two-sided, of no difference: of accuracy the exact McNemar test (without weights), else of the
            paired bootstrap.
        p: The same after Holm's correction for all metrics that were compared.
        better: ``"a"`` or ``"b"``, whichever is better at level 0.05 after the correction; None if they are not
            distinguishable, or the metric has no better direction.
    """

    metric: str
    a: float
    b: float
    low: float
    high: float
    p_value: float
    p: float
    better: str | None

    @property
    def difference(self) -> float:
        """``a - b``."""
        return self.a - self.b


def compare(
    a: Predictions | TopLabel,
    b: Predictions | TopLabel,
    metrics: Sequence[str] | None = None,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, ModelDifference]:
    """Compare two models on the same samples, metric by metric, with paired tests.

    Args:
        a: Predictions of the first model, or a ``TopLabel``.
        b: Those of the second for the same samples in the same order.
        metrics: Registry names; None for accuracy, NLL, Brier score and ECE, as far as the predictions allow.
        num_bins: Bins of the metrics that have any, at least 1.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: Of the paired bootstrap, at least 39 for level 0.95.
        seed: The same seed draws the same samples.

    Returns:
        Difference by registry name.

    Raises:
        InputError: For different samples, as far as targets tell (a top label has none), an unknown metric or one that
            needs all classes, options out of range, or fewer than 2 samples.

    Note:
        Two models, not two methods: whether another training would give the same order only seeds can tell. Of two
        calibration errors the difference comes out too small where one model is calibrated, see
        :func:`~fedlas.stats.paired_bootstrap`.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> found = compare(Predictions(logits, target), Predictions(3 * logits, target), replicates=199)
        >>> {name: each.better for name, each in found.items()}
        {'accuracy': None, 'nll': 'a', 'brier': 'a', 'ece': 'a'}

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12 (1947), in its exact form.
    """
    both = [check_measurable("compare", each) for each in (a, b)]
    check_same_samples("compare", a, b)
    if metrics is None:
        metrics = [name for name in COMPARED if not any(lacking(METRICS[name], each) for each in both)]
    entries = [METRICS[name] for name in dict.fromkeys(metrics)]
    options: dict[str, Any] = {
        "confidence_level": confidence_level,
        "replicates": replicates,
        "seed": seed,
        "num_bins": num_bins,
    }
    found = paired_bootstraps("compare", a, b, entries, method="auto", **options)
    p_values = {name: each.p_value for name, each in found.items()}
    if "accuracy" in p_values and a.weights is None:
        p_values["accuracy"] = mcnemar(*(each.correct.cpu().numpy() for each in both))
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    made = {}
    for name, each in found.items():
        higher, better = METRICS[name].metadata["higher_is_better"], None
        if corrected[name] <= ALPHA and higher is not None and each.a != each.b:
            better = "a" if (each.a > each.b) is higher else "b"
        ends = (each.interval.low, each.interval.high)
        made[name] = ModelDifference(name, each.a, each.b, *ends, p_values[name], corrected[name], better)
    return made


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Exact two-sided p-value that two models are right equally often ``(N,)``, from the samples where one alone is.

    Example:
        >>> round(mcnemar(np.array([True] * 6), np.array([False] * 6)), 5)
        0.03125
    """
    alone, other = int((a & ~b).sum()), int((b & ~a).sum())
    discordant, fewer = alone + other, min(alone, other)
    # Under the hypothesis each is right in half of them: twice the lower tail of a fair coin, from log-binomials.
    counts = np.arange(1, fewer + 1, dtype=np.float64)
    terms = np.concatenate(([0.0], np.cumsum(np.log(discordant - counts + 1) - np.log(counts))))
    return min(1.0, 2.0 * float(np.exp(terms - discordant * math.log(2.0)).sum()))
