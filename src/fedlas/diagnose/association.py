"""Association of two numbers per sample: Pearson, Spearman and AUROC, each with an interval.

Source:
    Spearman: The Proof and Measurement of Association between Two Things, Am. J. Psychology 15 (1904).
    Hanley, McNeil: The Meaning and Use of the Area under a ROC Curve, Radiology 143 (1982).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from fedlas._core.check import check_choice
from fedlas.diagnose.jackknife import jackknife
from fedlas.diagnose.ranked import RankedScores, centered, is_boolean, pair_of
from fedlas.stats.auroc import auroc
from fedlas.stats.intervals import Interval, check_bootstrap, check_level, interval_from
from fedlas.stats.rows import Floats

Method = Literal["bootstrap", "jackknife"]
_CELLS = 2_000_000  # weights of one chunk of replicates: 16 MB


@dataclass(frozen=True)
class Associations:
    """How closely a score follows a value of each sample.

    Attributes:
        pearson: Linear correlation in ``[-1, 1]``.
        spearman: Correlation of the ranks, ties at their middle rank.
        auroc: Probability that a sample whose value is true scores above one whose value is false, ties counting half;
            None for values that are not boolean.
    """

    pearson: Interval
    spearman: Interval
    auroc: Interval | None


def associations(
    score: Tensor | Floats,
    value: Tensor | Floats,
    *,
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    method: Method = "bootstrap",
) -> Associations:
    """Pearson and Spearman correlation of ``score`` and ``value``, and the score's AUROC if the value is boolean.

    Args:
        score: ``(N,)``, finite.
        value: ``(N,)``, finite, or boolean.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Bootstrap replicates, each of ``N`` samples drawn with replacement.
        seed: The same seed draws the same samples, so intervals of several scores are paired.
        method: ``"bootstrap"``, or ``"jackknife"`` (the infinitesimal jackknife), which draws nothing and costs about
            as much as one replicate, so that every epoch's log can have it. It ignores ``replicates`` and ``seed``.

    Returns:
        The numbers with percentile intervals, or the jackknife's. The correlations are NaN if the score or the value is
        the same for all samples; the AUROC of such a score is 1/2. If an interval cannot be estimated, as for an AUROC
        with a single true sample, only its ends are NaN.

    Raises:
        InputError: For other shapes, fewer than three samples, values that are not finite, or options out of range.

    Note:
        Intervals from few samples are too narrow. In 600 draws, the jackknife's 95 % intervals held the truth in 92 %
        (Pearson), 94 % (Spearman) and 86 % (AUROC, 85 % true) with 20 samples, and in 92 to 95 % with 100 samples.

        Replicates are weights: a sample drawn twice counts twice. So the ranks of a replicate come from cumulative
        sums in one fixed order, without sorting again: ``O(N)`` per replicate.

    Example:
        >>> import torch
        >>> found = associations(torch.arange(10.0), torch.arange(10.0) ** 3, replicates=100)
        >>> found.spearman.value, round(found.pearson.value, 2)
        (1.0, 0.91)
    """
    check_choice("associations", "method", method, get_args(Method))
    check_level("associations", confidence_level)
    x, y = pair_of(score, value)
    if method == "jackknife":
        by_name = jackknife(x, y, boolean=is_boolean(value), level=confidence_level)
        return Associations(by_name["pearson"], by_name["spearman"], by_name.get("auroc"))
    check_bootstrap(
        "associations", confidence_level=confidence_level, replicates=replicates, seed=seed, method="percentile"
    )
    statistics = _statistics(x, y, is_boolean(value))
    # The first row of weights is the sample itself, the others are replicates.
    chunks = [statistics(weights) for weights in _weights(len(x), replicates, seed)]

    def interval(name: str) -> Interval:
        values = np.concatenate([chunk[name] for chunk in chunks])
        whole, rest = float(values[0]), values[1:]
        rest = rest[np.isfinite(rest)]
        # If most replicates have no value, such as an AUROC with one true sample, their quantiles mean nothing.
        if not np.isfinite(whole) or len(rest) < replicates / 2:
            nan = float("nan")
            return Interval(whole, nan, nan, confidence_level, len(rest), nan, nan, "percentile")
        return interval_from(whole, rest, confidence_level=confidence_level, method="percentile")

    auroc = interval("auroc") if "auroc" in chunks[0] else None
    return Associations(interval("pearson"), interval("spearman"), auroc)


def _statistics(x: Floats, y: Floats, boolean: bool) -> Callable[[Floats], dict[str, Floats]]:
    """A function from weights ``(R, N)`` to each number ``(R,)``."""
    ranked_x, ranked_y = RankedScores(x), RankedScores(y)
    # Moments come from matrix products. Values are centered first, so that a large mean costs no digits.
    centered_x, centered_y = centered(x), centered(y)

    def of(weights: Floats) -> dict[str, Floats]:
        values = {
            "pearson": _correlation(weights, centered_x, centered_y),
            "spearman": _rank_correlation(weights, ranked_x, ranked_y),
        }
        if boolean:
            values["auroc"] = auroc(ranked_x.groups(weights * (1 - y)), ranked_x.groups(weights * y))
        return values

    return of


def _weights(samples: int, replicates: int, seed: int) -> Iterator[Floats]:
    """How often each sample counts ``(R, N)``, in chunks: first once each, then in ``replicates`` draws."""
    generator = np.random.default_rng(seed)
    yield np.ones((1, samples))
    chunk = max(1, _CELLS // samples)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        indices = generator.integers(samples, size=(rows, samples))
        indices += np.arange(rows)[:, None] * samples
        yield np.bincount(indices.ravel(), minlength=rows * samples).reshape(rows, samples).astype(np.float64)


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    var_x, var_y = weights @ (x * x) / total - mean_x**2, weights @ (y * y) / total - mean_y**2
    return _ratio(covariance, var_x, var_y, float(np.mean(x * x)), float(np.mean(y * y)))


def _rank_correlation(weights: Floats, x: RankedScores, y: RankedScores) -> Floats:
    half = weights.sum(axis=1, keepdims=True) / 2  # the mean rank for any weights
    ranks_x, ranks_y = x.ranks(weights) - half, y.ranks(weights) - half
    covariance = np.einsum("rn,rn,rn->r", weights, ranks_x, ranks_y)
    var_x, var_y = (np.einsum("rn,rn,rn->r", weights, r, r) for r in (ranks_x, ranks_y))
    scale = float(weights.shape[1]) ** 3
    return _ratio(covariance, var_x, var_y, scale, scale)


def _ratio(covariance: Floats, var_x: Floats, var_y: Floats, scale_x: float, scale_y: float) -> Floats:
    """The correlation; NaN where a variance is only rounding."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = covariance / np.sqrt(var_x * var_y)
    # A variance is a difference of larger sums here: what is this far below them is their rounding.
    constant = (var_x <= 1e-12 * scale_x) | (var_y <= 1e-12 * scale_y)
    return np.where(constant, np.nan, np.clip(value, -1.0, 1.0))
