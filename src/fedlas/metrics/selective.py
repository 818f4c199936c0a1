"""Selective prediction: how wrong a model is on what it is most confident of, over all shares of the samples."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.metrics.base import METRICS, Approximation, Estimator
from fedlas.metrics.binning import EqualMass
from fedlas.metrics.fine_grid import FineGrid
from fedlas.metrics.ranking import Ranking, ranking
from fedlas.predictions import Predictions


def area_of(count: Tensor, wrong: Tensor) -> float:
    """Area under the risk-coverage curve, in expectation over the order within each group of equal confidences.

    After all groups before it, with ``K`` samples and ``E`` errors, the next ``j`` of a group of ``n`` samples and
    ``e`` errors have ``j e / n`` errors in expectation. So the risks of the group add up to ``sum_{j=1}^n
    (E + j e / n) / (K + j) = e + (E - K e / n) (H(K + n) - H(K))`` with the harmonic numbers ``H``.

    Args:
        count: Samples of each group ``(G,)`` float64, by descending confidence.
        wrong: Wrong ones among them ``(G,)``.
    """
    samples, errors = count.cumsum(0) - count, wrong.cumsum(0) - wrong
    harmonic = torch.digamma(samples + count + 1) - torch.digamma(samples + 1)
    harmonic = torch.where(count == 1, 1 / (samples + 1), harmonic)  # which the difference has fewer digits of
    return float((wrong + (errors - samples * wrong / count) * harmonic).sum() / count.sum())


def _area(runs: Ranking) -> float:
    return area_of(runs.count.flip(0), runs.wrong.flip(0))


def _least_area(runs: Ranking) -> float:
    """The area if every right prediction were more confident than every wrong one."""
    count = torch.stack((runs.right.sum(), runs.wrong.sum()))
    wrong = torch.stack((count.new_zeros(()), count[1]))
    return area_of(count[count > 0], wrong[count > 0])


def _excess(runs: Ranking) -> float:
    return max(0.0, _area(runs) - _least_area(runs))


def _error(grid: FineGrid) -> float:
    """Within a cell the right ones may all be the more confident ones, or the wrong ones."""
    runs = grid.ranking()
    right, wrong = runs.right.flip(0), runs.wrong.flip(0)
    bounds = []
    for right_first in (True, False):
        pair = (right, wrong) if right_first else (wrong, right)
        count = torch.stack(pair, 1).flatten()
        errors = torch.stack([group if group is wrong else torch.zeros_like(group) for group in pair], 1).flatten()
        bounds.append(area_of(count[count > 0], errors[count > 0]))
    value = _area(runs)
    return max(value - bounds[0], bounds[1] - value)


def _runs(statistic: EqualMass) -> Ranking:
    return ranking(statistic.confidence, statistic.correct)


_AURC = Estimator("area_under_risk_coverage", EqualMass, lambda samples: _area(_runs(samples)))
_EXCESS = Estimator("excess_area_under_risk_coverage", EqualMass, lambda samples: _excess(_runs(samples)))
_STREAMING_AURC = Approximation(
    Estimator("area_under_risk_coverage", FineGrid, lambda grid: _area(grid.ranking())), _error
)
_STREAMING_EXCESS = Approximation(
    Estimator("excess_area_under_risk_coverage", FineGrid, lambda grid: _excess(grid.ranking())), _error
)
_PAPER = "Geifman, Uziel & El-Yaniv 2019, Bias-reduced uncertainty estimation for deep neural classifiers"


@METRICS.register(
    "aurc",
    title="AURC",
    higher_is_better=False,
    percent=True,
    default=False,
    paper=_PAPER,
    estimator=_AURC,
    streaming=_STREAMING_AURC,
)
def area_under_risk_coverage(predictions: Predictions) -> float:
    """Mean risk over all coverages, ``1 / N * sum_k (errors among the k most confident) / k``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        A fraction in ``[0, 1]``; the error rate if confidence says nothing.

    Note:
        Among equal confidences the order is that of chance: the expectation over all of them, computed exactly. So the
        order of samples does not matter. Only the order of confidences does: temperature scaling changes it but a
        little. Keeps the confidences: ``O(N)`` memory. Streaming takes the confidences of a fine grid's cell as equal.

    Example:
        >>> area_under_risk_coverage(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 1, 0]))  # 0, 1/2, 1/3
        0.277...

    Source:
        Geifman et al. 2019 (ICLR); https://arxiv.org/abs/1805.08206
    """
    return _AURC(predictions)


@METRICS.register(
    "e_aurc",
    title="E-AURC",
    higher_is_better=False,
    percent=True,
    default=False,
    paper=_PAPER,
    estimator=_EXCESS,
    streaming=_STREAMING_EXCESS,
)
def excess_area_under_risk_coverage(predictions: Predictions) -> float:
    """AURC minus the least possible with as many errors: what the order of confidences loses, apart from accuracy.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        A fraction in ``[0, 1]``; 0 if every right prediction is more confident than every wrong one.

    Note:
        The least area is computed for the ``N`` samples; the paper has its limit ``r + (1 - r) log(1 - r)`` for many,
        with ``r`` the error rate.

    Example:
        >>> excess_area_under_risk_coverage(Predictions([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [0, 0, 1]))
        0.0

    Source:
        Geifman et al. 2019 (ICLR); https://arxiv.org/abs/1805.08206
    """
    return _EXCESS(predictions)
