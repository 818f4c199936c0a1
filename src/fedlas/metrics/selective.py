"""Selective prediction: areas under risk-coverage curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedlas.metrics.calibration_error import EqualMass
from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import nonzero

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.metrics.ranking import CellRuns, Runs
    from fedlas.predictions import Predictions, TopLabel


def risk_coverage_area(count: FloatArray, wrong: FloatArray) -> FloatArray:
    """Return the area under the risk-coverage curve, averaged over the order of ties."""
    from scipy.special import digamma

    # After all groups before it, with `K` samples and `E` errors, the next `j` of a group of `n` samples and `e` errors
    # have `j e / n` errors in expectation. So the risks of the group add up to `sum_{j=1}^n (E + j e / n) / (K + j) = e
    # + (E - K e / n) (H(K + n) - H(K))` with the harmonic numbers `H`.
    before = np.cumsum(count, axis=-1) - count
    errors = np.cumsum(wrong, axis=-1) - wrong
    first, last = (digamma(each) for each in (before + 1.0, before + count + 1.0))
    # of which the difference has fewer digits
    harmonic = np.where(count == 1, 1.0 / (before + 1.0), last - first)
    risks = wrong + (errors - before * wrong / nonzero(count)) * harmonic
    return risks.sum(axis=-1) / count.sum(axis=-1)


def aurc_from_runs(runs: Runs) -> FloatArray:
    """Return AURC: the area under the risk-coverage curve of ``runs``."""
    return risk_coverage_area(runs.count[..., ::-1], runs.wrong[..., ::-1])


def augrc_from_runs(runs: Runs) -> FloatArray:
    """Return AUGRC: the area under the curve of the wrongly accepted share over coverage, ties counting half."""
    # With the error rate `r`, half of `r**2` are the pairs of two wrong samples. Of a wrong and a right one, those
    # count in which the wrong one is the more confident.
    right = runs.count - runs.wrong
    below = np.cumsum(right, axis=-1) - 0.5 * right
    wrong = runs.wrong.sum(axis=-1)
    return ((runs.wrong * below).sum(axis=-1) + 0.5 * wrong**2) / float(runs.num_samples) ** 2


def excess_aurc_from_runs(runs: Runs) -> FloatArray:
    """Return E-AURC: AURC minus its value if every right prediction were more confident than every wrong one."""
    wrong = runs.wrong.sum(axis=-1)
    count = np.stack(np.broadcast_arrays(runs.num_samples - wrong, wrong), axis=-1)
    # Both areas round, so a perfect order may come out a little below 0.
    return np.maximum(0.0, aurc_from_runs(runs) - risk_coverage_area(count, count * [0.0, 1.0]))


def _aurc_error_bound(runs: CellRuns) -> float:
    """Return an upper bound of AURC's discretization error: within a cell all right, or all wrong, come first."""
    right = runs.right[::-1]
    wrong = runs.wrong[::-1]
    none = np.zeros_like(wrong)
    # Each cell becomes two groups: right before wrong gives the least area, wrong before right the largest.
    lowest = risk_coverage_area(
        np.stack((right, wrong), axis=1).ravel(), np.stack((none, wrong), axis=1).ravel()
    )
    highest = risk_coverage_area(
        np.stack((wrong, right), axis=1).ravel(), np.stack((wrong, none), axis=1).ravel()
    )
    value = aurc_from_runs(runs)
    return float(max(value - lowest, highest - value))


def _augrc_error_bound(runs: CellRuns) -> float:
    """Return an upper bound of AUGRC's discretization error: in a cell all right/wrong pairs are ordered alike."""
    return float((0.5 * runs.right * runs.wrong).sum()) / float(runs.num_samples) ** 2


_PAPER = "Geifman, Uziel & El-Yaniv 2019, Bias-reduced uncertainty estimation for deep neural classifiers"


@METRICS.register(
    "aurc",
    order=200,
    title="AURC",
    default=False,
    paper=_PAPER,
    statistic=EqualMass,
    formula=aurc_from_runs,
    takes_replicates=True,
    error=_aurc_error_bound,
)
def aurc(predictions: Predictions | TopLabel) -> float:
    """Area under the risk-coverage curve, ``1 / N * sum_k (errors among the k most confident) / k``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1]``; the error rate if confidence says nothing.

    Note:
        Among equal confidences the order is that of chance: the expectation over all of them, computed exactly. So the
        order of samples does not matter. Only the order of confidences does: temperature scaling changes it but a
        little. Keeps the confidences: ``O(N)`` memory. Streaming takes the confidences of a fine grid's cell as equal.

    Example:
        >>> from fedlas import Predictions
        >>> aurc(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 1, 0]))  # 0, 1/2, 1/3
        0.277...

    Source:
        Geifman et al. 2019 (ICLR); https://arxiv.org/abs/1805.08206
    """
    return float(aurc_from_runs(EqualMass.from_predictions(predictions).table()))


@METRICS.register(
    "e_aurc",
    order=210,
    title="E-AURC",
    default=False,
    paper=_PAPER,
    statistic=EqualMass,
    formula=excess_aurc_from_runs,
    takes_replicates=True,
    error=_aurc_error_bound,
)
def e_aurc(predictions: Predictions | TopLabel) -> float:
    """AURC minus the lowest AURC possible at the same accuracy: the loss from imperfect ordering.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1]``; 0 if every right prediction is more confident than every wrong one.

    Note:
        The least area is computed for the ``N`` samples; the paper has its limit ``r + (1 - r) log(1 - r)`` for many,
        with ``r`` the error rate.

    Example:
        >>> from fedlas import Predictions
        >>> e_aurc(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 0, 1]))
        0.0

    Source:
        Geifman et al. 2019 (ICLR); https://arxiv.org/abs/1805.08206
    """
    return float(excess_aurc_from_runs(EqualMass.from_predictions(predictions).table()))


@METRICS.register(
    "augrc",
    order=220,
    title="AUGRC",
    default=False,
    paper="Traub et al. 2024, Overcoming common flaws in the evaluation of selective classification systems",
    statistic=EqualMass,
    formula=augrc_from_runs,
    takes_replicates=True,
    error=_augrc_error_bound,
)
def augrc(predictions: Predictions | TopLabel) -> float:
    """Mean over all coverages of the share of samples that are wrong and accepted.

    AURC divides the accepted errors by the accepted samples, so that a few confident errors count for many times as
    much as others. AUGRC divides by all samples: every error counts by the coverages at which it is accepted.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.

    Returns:
        A fraction in ``[0, 1/2]``: with the error rate ``r`` it is ``r**2 / 2`` for a perfect order of confidences,
        ``r / 2`` for one that says nothing, and ``r - r**2 / 2`` at worst.

    Note:
        The area by trapezoids, ``(1 - AUROC) * r * (1 - r) + r**2 / 2``, where AUROC is that of confidence for right
        against wrong, ties by half. The paper multiplies it by 1,000. The order of samples does not matter. Keeps the
        confidences: ``O(N)`` memory. Streaming takes the confidences of a fine grid's cell as equal.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 1, 0])
        >>> augrc(p)  # one of two pairs, and 1/2: 1.5 / 9
        0.1666...

    Source:
        Traub et al. 2024 (NeurIPS), with the relation to AUROC; https://arxiv.org/abs/2407.01032
    """
    return float(augrc_from_runs(EqualMass.from_predictions(predictions).table()))
