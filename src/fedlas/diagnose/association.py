"""How closely one number a sample follows another: Pearson, Spearman and AUROC, each with a bootstrap interval.

Source:
    Spearman: The Proof and Measurement of Association between Two Things, Am. J. Psychology 15 (1904).
    Hanley, McNeil: The Meaning and Use of the Area under a ROC Curve, Radiology 143 (1982).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.stats.intervals import Interval, check_bootstrap, interval_from

Floats = NDArray[np.float64]
_CELLS = 2_000_000  # weights of one chunk of replicates: 16 MB


@dataclass(frozen=True)
class Associations:
    """How a score goes with a value that each sample has.

    Attributes:
        pearson: Linear correlation in ``[-1, 1]``.
        spearman: Correlation of the ranks, ties at their middle rank.
        auroc: Probability that a sample where the value is true scores above one where it is not, ties half; None for
            values that are not true or false.
    """

    pearson: Interval
    spearman: Interval
    auroc: Interval | None


def associations(
    score: Tensor | Floats,
    value: Tensor | Floats,
    *,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> Associations:
    """Pearson and Spearman correlation of ``score`` and ``value``, and AUROC of the score where the value is boolean.

    Args:
        score: ``(N,)``, finite.
        value: ``(N,)``, finite, or boolean.
        level: Confidence level in ``(0, 1)``.
        replicates: Bootstrap replicates, each of ``N`` samples drawn with replacement.
        seed: The same seed draws the same samples, so intervals of several scores are paired.

    Returns:
        The numbers with percentile intervals. A score or a value that is the same for all samples has none: NaN.

    Raises:
        InputError: For other shapes, fewer than three samples, values that are not finite, or options out of range.

    Note:
        Replicates are weights: a sample drawn twice counts twice. So the ranks of a replicate come from cumulative
        sums in one fixed order, without sorting again: ``O(N)`` a replicate.

    Example:
        >>> import torch
        >>> found = associations(torch.arange(10.0), torch.arange(10.0) ** 3, replicates=100)
        >>> found.spearman.value, round(found.pearson.value, 2)
        (1.0, 0.91)
    """
    check_bootstrap("associations", level=level, replicates=replicates, seed=seed, method="percentile")
    x, y = _pair(score, value)
    statistics = _statistics(x, y, _is_boolean(value))
    found = [statistics(weights) for weights in _weights(len(x), replicates, seed)]

    def interval(name: str) -> Interval:
        values = np.concatenate([chunk[name] for chunk in found])
        whole, rest = float(values[0]), values[1:]
        rest = rest[np.isfinite(rest)]
        if not np.isfinite(whole) or len(rest) < replicates / 2:
            nan = float("nan")
            return Interval(whole, nan, nan, level, len(rest), nan, nan, "percentile")
        return interval_from(whole, rest, level=level, method="percentile")

    auroc = interval("auroc") if "auroc" in found[0] else None
    return Associations(interval("pearson"), interval("spearman"), auroc)


def association_values(score: Tensor | Floats, value: Tensor | Floats) -> dict[str, float]:
    """The numbers of :func:`associations` without their intervals: for every epoch's log.

    Args:
        score: ``(N,)``, finite.
        value: ``(N,)``, finite, or boolean.

    Returns:
        ``pearson``, ``spearman`` and, for a boolean value, ``auroc``; NaN where one of the two does not vary, and for
        fewer than 3 samples.

    Raises:
        InputError: For other shapes, or values that are not finite.
    """
    x, y = _pair(score, value, fewest=0)
    if len(x) < 3:  # two correlate perfectly, whatever they are
        names = ("pearson", "spearman", "auroc") if _is_boolean(value) else ("pearson", "spearman")
        return dict.fromkeys(names, float("nan"))
    return {k: float(v[0]) for k, v in _statistics(x, y, _is_boolean(value))(np.ones((1, len(x)))).items()}


def _pair(score: Tensor | Floats, value: Tensor | Floats, *, fewest: int = 3) -> tuple[Floats, Floats]:
    x, y = _numbers("score", score), _numbers("value", value)
    if x.shape != y.shape or x.ndim != 1 or len(x) < fewest:
        raise InputError(
            "associations",
            f"score and value must be (N,) with at least {fewest} samples",
            f"{describe(score)} and {describe(value)}",
            "Pass one number a sample.",
        )
    return x, y


def _statistics(x: Floats, y: Floats, boolean: bool) -> Callable[[Floats], dict[str, Floats]]:
    """From weights ``(R, N)`` to each number ``(R,)``."""
    ranked_x, ranked_y = _Ranked(x), _Ranked(y)
    # Moments by matrix product: centred first, so that no digits are lost to a large mean.
    centred_x, centred_y = x - x.mean(), y - y.mean()

    def of(weights: Floats) -> dict[str, Floats]:
        found = {
            "pearson": _correlation(weights, centred_x, centred_y),
            "spearman": _rank_correlation(weights, ranked_x, ranked_y),
        }
        return found | ({"auroc": _auroc(weights, ranked_x, y)} if boolean else {})

    return of


def _numbers(name: str, values: Tensor | Floats) -> Floats:
    array = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise InputError("associations", f"{name} must be finite", "NaN or infinity", "Leave these samples out.")
    return array


def _is_boolean(value: Tensor | Floats) -> bool:
    return str(value.dtype) in ("torch.bool", "bool")


class _Ranked:
    """Where each sample stands in ascending order, and which samples are equal."""

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.sizes = np.diff(np.r_[self.starts, len(values)])

    def ranks(self, weights: Floats) -> Floats:
        """Middle ranks of the samples under weights ``(R, N)``, in the samples' own order."""
        groups = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        middle = groups.cumsum(axis=1) - groups / 2
        ranks = np.empty_like(weights)
        ranks[:, self.order] = np.repeat(middle, self.sizes, axis=1)
        return ranks


def _weights(samples: int, replicates: int, seed: int) -> Iterator[Floats]:
    """The samples themselves, then ``replicates`` draws, in chunks: how often each sample counts ``(R, N)``."""
    generator = np.random.default_rng(seed)
    yield np.ones((1, samples))
    chunk = max(1, _CELLS // samples)
    for start in range(0, replicates, chunk):
        rows = min(chunk, replicates - start)
        drawn = generator.integers(samples, size=(rows, samples))
        drawn += np.arange(rows)[:, None] * samples
        yield np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples).astype(np.float64)


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    var_x, var_y = weights @ (x * x) / total - mean_x**2, weights @ (y * y) / total - mean_y**2
    return _ratio(covariance, var_x, var_y, float(np.mean(x * x)), float(np.mean(y * y)))


def _rank_correlation(weights: Floats, x: _Ranked, y: _Ranked) -> Floats:
    half = weights.sum(axis=1, keepdims=True) / 2  # the mean rank, whatever the weights
    ranks_x, ranks_y = x.ranks(weights) - half, y.ranks(weights) - half
    covariance = np.einsum("rn,rn,rn->r", weights, ranks_x, ranks_y)
    var_x, var_y = (np.einsum("rn,rn,rn->r", weights, r, r) for r in (ranks_x, ranks_y))
    scale = float(weights.shape[1]) ** 3
    return _ratio(covariance, var_x, var_y, scale, scale)


def _ratio(covariance: Floats, var_x: Floats, var_y: Floats, scale_x: float, scale_y: float) -> Floats:
    """The correlation; NaN where a variance is nothing but rounding."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = covariance / np.sqrt(var_x * var_y)
    constant = (var_x <= 1e-12 * scale_x) | (var_y <= 1e-12 * scale_y)
    return np.where(constant, np.nan, np.clip(value, -1.0, 1.0))


def _auroc(weights: Floats, score: _Ranked, truth: Floats) -> Floats:
    """Mann and Whitney's statistic from the middle ranks."""
    positive = weights @ truth
    negative = weights.sum(axis=1) - positive
    above = np.einsum("rn,rn,n->r", weights, score.ranks(weights), truth) - positive**2 / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((positive > 0) & (negative > 0), above / (positive * negative), np.nan)
