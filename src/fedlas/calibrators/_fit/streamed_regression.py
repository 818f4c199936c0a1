"""The regression of vector scaling on more samples than memory holds."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedlas.calibrators._fit.rowwise import moments
from fedlas.calibrators._fit.softmax_regression import SoftmaxRegression
from fedlas.calibrators._fit.source import Source


class StreamedRegression(SoftmaxRegression):
    """The same problem with a diagonal ``W``, and its whole Hessian in place of every sample's probabilities.

    The Hessian is ``(2 C, 2 C)``, so an evaluation takes ``N C^2`` operations, but it is the one pass over the samples
    that a step of Newton's method needs: conjugate gradients of the base read them once for each product.

    Args:
        source: The samples.
        unit: What their logits are divided by.
        scale: See the base.
        width: See the base.
    """

    def __init__(self, source: Source, unit: float, *, scale: float, width: float) -> None:
        self._source, self._unit = source, unit
        mean, deviation = moments(lambda: ((rows, weights) for rows, _, weights in self._rows()), source.total)
        self._set_penalties(source.total, mean, deviation, diagonal=True, scale=scale, width=width)
        self._hessian = self._factor = torch.empty(0)  # until the first evaluation

    @torch.no_grad()
    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Value and gradient."""
        weight, centered = self._split(point)
        classes = len(weight)
        value, slope, slope_c = 0.0, torch.zeros_like(weight), torch.zeros_like(centered)
        # Sums of p x^2, p x and p, which are the diagonals of the blocks, and of the products of columns.
        own, mixed, offset = (torch.zeros_like(weight) for _ in range(3))
        products = torch.zeros(2 * classes, 2 * classes, dtype=torch.float64, device="cpu")
        for rows, target, _ in self._rows():
            rows = rows - self._mean
            log_probs = (weight * rows + centered).log_softmax(dim=1)
            index = target.unsqueeze(1)
            value -= float(log_probs.gather(1, index).sum())
            probs = log_probs.exp()
            moved = probs * rows
            both = torch.cat([moved, probs], dim=1)
            products += both.T @ both
            own += (moved * rows).sum(dim=0)
            mixed += moved.sum(dim=0)
            offset += probs.sum(dim=0)
            error = probs.scatter_add_(1, index, probs.new_full(index.shape, -1.0))
            slope += (error * rows).sum(dim=0)
            slope_c += error.sum(dim=0)

        blocks = torch.cat([torch.cat([own.diag(), mixed.diag()]), torch.cat([mixed.diag(), offset.diag()])], dim=1)
        penalties = torch.cat([self._weight_penalty, torch.full_like(weight, self._hold)])
        self._hessian = (blocks - products) / self._samples + penalties.diag()
        self._factor = torch.linalg.cholesky(self._hessian)
        return self._penalized(value, slope, slope_c, weight, centered)

    def curvature(self, direction: Tensor) -> Tensor:
        """The Hessian times ``direction``."""
        return self._hessian @ direction

    def precondition(self, vector: Tensor) -> Tensor:
        """The inverse Hessian times ``vector``."""
        return torch.cholesky_solve(vector.unsqueeze(1), self._factor).squeeze(1)

    def _rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return ((rows / self._unit, target, weights) for rows, target, weights in self._source.rows())
