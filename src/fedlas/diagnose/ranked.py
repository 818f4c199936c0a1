"""Checked pairs of numbers per sample, and the ranks of samples under weights."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.stats.rows import Floats


def pair_of(score: Tensor | Floats, value: Tensor | Floats) -> tuple[Floats, Floats]:
    """Both as float64 arrays ``(N,)``.

    Raises:
        InputError: For other shapes, fewer than three samples, or values that are not finite.
    """
    x, y = _numbers("score", score), _numbers("value", value)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3:
        raise InputError(
            "associations",
            "score and value must be (N,) with at least 3 samples",
            f"{describe(score)} and {describe(value)}",
            "Pass one number per sample.",
        )
    return x, y


def centered(values: Floats) -> Floats:
    """Deviations from the mean, scaled by a power of two to a largest size of 0.5 to 1: no product of them underflows.

    A power of two changes no digit.
    """
    about = values - values.mean()
    return np.ldexp(about, -np.frexp(np.abs(about).max())[1])


def _numbers(name: str, values: Tensor | Floats) -> Floats:
    array = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise InputError("associations", f"{name} must be finite", "NaN or infinity", "Leave these samples out.")
    return array


def is_boolean(value: Tensor | Floats) -> bool:
    """Whether ``value`` is a boolean tensor or array."""
    return str(value.dtype) in ("torch.bool", "bool")


class RankedScores:
    """The ascending order of samples, and which of them are equal."""

    def __init__(self, values: Floats) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self.sizes = np.diff(np.r_[self.starts, len(values)])

    def groups(self, weights: Floats) -> Floats:
        """Sum of the weights ``(R, N)`` at each distinct value, ascending ``(R, G)``."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1)

    def ranks(self, weights: Floats) -> Floats:
        """Middle ranks of the samples under weights ``(R, N)``, in the samples' own order."""
        groups = self.groups(weights)
        middle = groups.cumsum(axis=1) - groups / 2
        ranks = np.empty_like(weights)
        ranks[:, self.order] = np.repeat(middle, self.sizes, axis=1)
        return ranks
