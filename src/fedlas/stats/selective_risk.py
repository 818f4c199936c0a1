"""Reject option: confidence thresholds with a guaranteed error rate of the accepted samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, as_float_array, check_count, describe
from fedlas._core.defaults import RISKS
from fedlas.metrics.sums import check_weights_supported
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions, require_top_label
from fedlas.predictions.sample_values import cluster_codes
from fedlas.stats.intervals import check_confidence_level
from fedlas.stats.proportion import clopper_pearson

GRID = 200
STARTS = 10
"""Thresholds that are tried, and at how many of them a sequence of tests starts."""
_TOP = 12.0  # log-odds of the highest threshold, a confidence of 0.999994
_BETS = np.linspace(0.05, 1.0, 20)
"""Bets on clusters, as shares of the largest that cannot lose more than all; the best is one minus risk over target."""


@dataclass(frozen=True)
class RiskThreshold:
    """Confidence threshold for a target risk.

    Attributes:
        risk: Target: the largest share of wrong predictions among those accepted, in (0, 1).
        confidence_level: Confidence that it is kept.
        threshold: Accept predictions at least so confident; None if no threshold can be vouched for.
        selected: How many of the samples that is; 0 if None.
        wrong: How many of these are wrong.
        samples: How many there were.
        needed: Samples, or clusters, without one mistake that it takes to vouch for a threshold on its own.
        coverage: Share of the samples that are accepted; of clusters the mean of their shares.
        clusters: Number of clusters; None for independent samples.
    """

    risk: float
    confidence_level: float
    threshold: float | None
    selected: int
    wrong: int
    samples: int
    needed: int
    coverage: float
    clusters: int | None = None


def threshold_grid(num_classes: int) -> NDArray[np.float64]:
    """Return a grid of descending thresholds from nearly 1 to ``1 / C``, evenly spaced in log-odds."""
    # It looks at no data, which the tests need.
    bottom = -math.log(num_classes - 1) if num_classes > 1 else -_TOP
    grid = 1 / (1 + np.exp(-np.linspace(_TOP, bottom, GRID)))
    # It is set exactly, since the exponential may round to a number above the confidence of a uniform prediction.
    grid[-1] = 1 / num_classes
    return grid


def risk_threshold(
    confidence: NDArray[Any],
    correct: NDArray[Any],
    *,
    risk: float,
    num_classes: int,
    confidence_level: float = 0.95,
    clusters: NDArray[Any] | None = None,
) -> RiskThreshold:
    """Return the lowest confidence threshold that keeps the risk of accepted samples at most ``risk``.

    With probability ``confidence_level`` over the draw of the samples, the share of wrong predictions among all that
    have at least this confidence is at most ``risk`` (in the population, not in the sample). For each threshold of a
    fixed grid the hypothesis "its risk is above" has the exact p-value ``P(Binomial(n, risk) <= k)``, where ``k`` of
    ``n`` accepted samples are wrong. Fixed-sequence tests go from high thresholds to lower ones and stop at the first
    failure; ten of them start at evenly spaced thresholds, each with a tenth of ``1 - confidence_level``, since at the
    highest there may be too few samples to show anything.

    With ``clusters`` these are independent and drawn alike, not their samples. The risk is then that of a sample drawn
    at random from a new cluster, given that it is accepted: ``sum_j w_j / sum_j a_j`` over many clusters, where ``a_j``
    is the share of a cluster's samples that is accepted and ``w_j`` the share that is accepted and wrong, so that each
    cluster weighs the same, whatever its size. It is above ``risk`` if and only if ``w_j - risk * a_j``, which lies in
    ``[-risk, 1 - risk]``, has a positive mean. That hypothesis has the p-value 1 over the mean, over 20 fixed bets
    ``c``, of ``prod_j (1 - c * (w_j - risk * a_j) / (1 - risk))``, whose expectation under it is at most 1, for any
    number of clusters. Conformal risk control needs a loss that falls as the threshold rises, as ``w_j`` does and the
    risk of what is accepted does not, and it bounds an expectation; this is the same bound as without clusters.

    Args:
        confidence: ``(N,)`` in ``[0, 1]``; of samples that neither the model nor its calibration has seen.
        correct: ``(N,)`` bool.
        risk: Target, in (0, 1).
        num_classes: ``C``: no confidence is below ``1 / C``.
        confidence_level: In (0, 1).
        clusters: Optional number of each sample's cluster ``(N,)``, such as its question or patient.

    Returns:
        The threshold, or None in its place.

    Raises:
        InputError: If the arrays do not fit, or a number is out of range.

    Note:
        The bound is for one target risk, and for samples drawn like these: after a shift it says nothing.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> confidence = rng.uniform(0.5, 1, 5000)
        >>> chosen = risk_threshold(confidence, rng.random(5000) < confidence, risk=0.1, num_classes=2)
        >>> 0.8 < chosen.threshold < 0.85  # a calibrated model is right 9 times of 10 above 0.8
        True

    Source:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating predictive algorithms to achieve risk
        control" (2021), sections 2.2 (fixed-sequence testing, several starts) and 4 (selective classification);
        https://arxiv.org/abs/2110.01052. Of clusters: Waudby-Smith and Ramdas, "Estimating means of bounded random
        variables by betting" (JRSS B 2024, arXiv 2010.09686), appendix B, average of constant bets. Conformal risk
        control: Angelopoulos, Bates, Fisch, Lei, Schuster (ICLR 2024, arXiv 2208.02814).
    """
    check_confidence_level(risk, name="risk")
    check_confidence_level(confidence_level)
    check_count("num_classes", num_classes)
    scores = as_float_array(confidence)
    right = as_float_array(correct).astype(bool)
    if scores.ndim != 1 or scores.shape != right.shape or not len(scores):
        raise InputError(
            "confidence and correct must both have shape (N,), with at least one sample",
            f"{describe(confidence)} and {describe(correct)}",
            "Pass both from the same predictions.",
        )
    codes = _cluster_codes(clusters, len(scores))
    grid = threshold_grid(num_classes)
    # A float32 confidence of 1 / C may lie below 1 / C: the last threshold accepts all there is.
    grid[-1] = min(grid[-1], scores.min())
    order = np.argsort(-scores, kind="stable")
    selected = np.searchsorted(-scores[order], -grid, side="right")
    # A threshold that accepts nothing has no evidence: its p-value of 1 ends the sequence.
    if codes is None:
        # Errors among the k most confident are counted for every k, so that each threshold costs one look-up.
        wrong = np.concatenate([[0], (~right[order]).cumsum()])[selected]
        from scipy.special import bdtr

        p_values = np.where(selected > 0, bdtr(wrong, np.maximum(selected, 1), risk), 1.0)
    else:
        # Thresholds that accept the same samples have one p-value.
        _, first, number = np.unique(selected, return_index=True, return_inverse=True)
        shares = (_cluster_shares(scores >= each, right, codes) for each in grid[first])
        p_values = np.array([1 / max(_mean_wealth(*each, risk), 1.0) for each in shares])[number]
    # Only the starts share the level: within a sequence every test may spend it all, as the first failure ends it.
    budget = (1 - confidence_level) / STARTS
    last = -1
    for start in np.linspace(0, GRID - 1, STARTS).astype(int):
        failures = np.flatnonzero(p_values[start:] > budget)
        end = start + (failures[0] if len(failures) else GRID - start) - 1
        last = max(last, int(end)) if end >= start else last
    threshold = None if last < 0 else float(grid[last])
    accepted = np.zeros(len(scores), bool) if threshold is None else scores >= threshold
    return RiskThreshold(
        risk,
        confidence_level,
        # The grid's own end is what a user is told, whatever rounding lies below it.
        float(threshold_grid(num_classes)[last]) if threshold is not None else None,
        int(accepted.sum()),
        int((accepted & ~right).sum()),
        len(scores),
        _min_error_free_samples(risk, budget, is_clustered=codes is not None),
        _coverage_and_risk(accepted, right, codes)[0],
        None if codes is None else int(codes.max()) + 1,
    )


def _cluster_codes(clusters: object, samples: int) -> NDArray[np.int64] | None:
    """Return the cluster index of each sample ``(N,)``, or None if every sample is its own cluster."""
    if clusters is None:
        return None
    codes = np.unique(cluster_codes(clusters, samples), return_inverse=True)[1]
    return codes if codes.max() + 1 < samples else None


def _cluster_shares(
    accepted: NDArray[np.bool_], right: NDArray[np.bool_], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of accepted, and of accepted and wrong, samples in each cluster ``(G,)``."""
    sizes = np.bincount(codes)
    return np.bincount(codes, accepted) / sizes, np.bincount(codes, accepted & ~right) / sizes


def _mean_wealth(accepted: NDArray[np.float64], wrong: NDArray[np.float64], risk: float) -> float:
    """Return the mean wealth of bets against a risk of at least ``risk``, over clusters ``(G,)``."""
    odds = (risk * accepted - wrong) / (1 - risk)
    with np.errstate(divide="ignore"):  # a bet of all may lose all
        logs = np.log1p(_BETS[:, None] * odds).sum(axis=1)
    return float(np.exp(np.minimum(logs, 700.0)).mean())


def _min_error_free_samples(risk: float, budget: float, *, is_clustered: bool) -> int:
    """Return how many error-free samples, or clusters, bring the p-value down to ``budget``."""
    # Without a mistake the p-value is (1 - risk) ** n; log1p keeps the digits of a small risk.
    low = math.ceil(math.log(budget) / math.log1p(-risk))
    if not is_clustered:
        return low
    # The mean over bets is at least the largest bet's share of it.
    high = math.ceil(math.log(budget / len(_BETS)) / math.log1p(-risk))
    logs = np.log1p(_BETS * risk / (1 - risk))
    while low < high:
        middle = (low + high) // 2
        enough = np.log(np.exp(middle * (logs - logs[-1])).mean()) + middle * logs[-1] >= -math.log(
            budget
        )
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def _coverage_and_risk(
    accepted: NDArray[np.bool_], right: NDArray[np.bool_], codes: NDArray[np.int64] | None
) -> tuple[float, float | None]:
    """Return the accepted share and the error rate of accepted samples, with equal weight per cluster."""
    if codes is None:
        number = int(accepted.sum())
        return number / len(accepted), int((accepted & ~right).sum()) / number if number else None
    coverage, wrong = (float(each.mean()) for each in _cluster_shares(accepted, right, codes))
    return coverage, wrong / coverage if coverage else None


def _clustered_risk_bound(
    accepted: NDArray[np.bool_],
    right: NDArray[np.bool_],
    codes: NDArray[np.int64],
    confidence_level: float,
) -> float:
    """Return a one-sided upper confidence bound of the risk of accepted samples, by betting over clusters."""
    shares = _cluster_shares(accepted, right, codes)
    low = 0.0
    high = 1.0
    for _ in range(50):  # the wealth grows with the risk that is bet against
        middle = 0.5 * (low + high)
        refuted = _mean_wealth(*shares, middle) >= 1 / (1 - confidence_level)
        low, high = (low, middle) if refuted else (middle, high)
    return high


DEFAULT_RISKS = RISKS
"""Target risks of a card."""


@dataclass(frozen=True)
class RejectOption:
    """A threshold and its effect on test predictions (selective classification, abstention).

    Attributes:
        chosen: The threshold and what it accepted of the validation predictions.
        samples: Test samples.
        accepted: How many of them are at least so confident; 0 without a threshold.
        wrong: How many of these are wrong.
        coverage: Share of the test samples that are accepted; of clusters the mean of their shares.
        risk: Share of wrong predictions among those accepted, each cluster weighing the same; None if none is.
        upper: One-sided upper bound (Clopper-Pearson, of the same level; of clusters by bets) of the risk of what is
            accepted, from the test samples alone. 1 if none is accepted.
    """

    chosen: RiskThreshold
    samples: int
    accepted: int
    wrong: int
    coverage: float
    risk: float | None
    upper: float

    @property
    def threshold(self) -> float | None:
        """Smallest confidence that is accepted, or None if no threshold reaches the target risk."""
        return self.chosen.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as a dict for JSON."""
        chosen = self.chosen
        val = {"accepted": chosen.selected, "wrong": chosen.wrong, "coverage": chosen.coverage}
        row = {
            "risk": chosen.risk,
            "threshold": chosen.threshold,
            "val": val,
            "needed": chosen.needed,
            **({} if chosen.clusters is None else {"clusters": chosen.clusters}),
        }
        if chosen.threshold is None:
            return row
        test = {
            "accepted": self.accepted,
            "wrong": self.wrong,
            "coverage": self.coverage,
            "risk": self.risk,
        }
        return {**row, "test": {**test, "upper": self.upper}}


def reject_option(
    val: AnyPredictions, test: AnyPredictions, *, risk: float, confidence_level: float = 0.95
) -> RejectOption:
    """Choose a threshold for a target risk on ``val`` by :func:`risk_threshold`, and apply it to ``test``.

    Args:
        val: Predictions ``(N, C)``, or top labels ``(N,)``, that neither the model nor, strictly, its calibration has
            seen. If they have clusters, the bound is that of clusters, see :func:`risk_threshold`.
        test: Others of the same model, which have no part in the choice; with clusters if ``val`` has them.
        risk: Target: the largest share of wrong predictions among those accepted, in (0, 1).
        confidence_level: Confidence that the risk is kept, and of the bound from the test samples; in (0, 1).

    Raises:
        InputError: For other than labeled predictions, a number out of range, clusters in one of both, or samples with
            weights, with which no bound holds.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double() * 2
        >>> uniform = torch.rand(4000, generator=torch.Generator().manual_seed(1)).double()
        >>> target = (uniform < logits.softmax(1)[:, 1]).long()
        >>> val, test = Predictions(logits[:2000], target[:2000]), Predictions(logits[2000:], target[2000:])
        >>> option = reject_option(val, test, risk=0.1)
        >>> round(option.threshold, 2), round(option.coverage, 2), round(option.risk, 3), round(option.upper, 3)
        (0.78, 0.67, 0.075, 0.088)
    """
    val = require_top_label(val)
    test = require_top_label(test)
    for part in (val, test):
        check_weights_supported(
            part, takes_weights=False
        )  # a bound of weighted counts is not exact
    if (val.clusters is None) != (test.clusters is None):
        raise InputError(
            "val and test must both have clusters, or neither",
            f"clusters in {'val' if test.clusters is None else 'test'} only",
            "Pass clusters for both: the risk bound holds only for data sampled as val is.",
        )
    confidence, correct, clusters = _to_arrays(val)
    # Without the number of classes the grid ends at 0.001; its last threshold accepts everything in any case.
    classes = val.num_classes if isinstance(val, Predictions) else 1000
    chosen = risk_threshold(
        confidence,
        correct,
        risk=risk,
        num_classes=classes,
        confidence_level=confidence_level,
        clusters=clusters,
    )
    confidence, correct, clusters = _to_arrays(test)
    accepted = (
        np.zeros(len(confidence), dtype=bool)
        if chosen.threshold is None
        else confidence >= chosen.threshold
    )
    number = int(accepted.sum())
    wrong = int((accepted & ~correct).sum())
    # Test samples have no part in the choice, so their bound needs no correction for the thresholds that were tried.
    codes = _cluster_codes(clusters, len(confidence))
    upper = (
        clopper_pearson(wrong, number, confidence_level=confidence_level, sides=1)[1]
        if codes is None
        else _clustered_risk_bound(accepted, correct, codes, confidence_level)
    )
    shares = _coverage_and_risk(accepted, correct, codes)
    return RejectOption(chosen, len(confidence), number, wrong, *shares, upper)


def _to_arrays(
    predictions: AnyPredictions,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64] | None]:
    return (
        predictions.confidence.astype(np.float64),
        predictions.correct,
        predictions.clusters,
    )
