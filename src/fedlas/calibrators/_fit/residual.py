"""Regressions of labels on side information, with the calibrated logits as offset: many ridges and folds at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlas.calibrators._fit.quasi_newton import minimize_all

_CHUNK = 2**21
"""Scores of a chunk of rows: 16 MiB."""
_NEAR = 1e-2
"""Nats by which the penalized likelihood of all samples may miss its maximum."""
_FLOOR = 1e-3
"""Least spread ``p (1 - p)`` of a class in the metric of the search."""


@dataclass(frozen=True, eq=False)
class Regressions:
    """Some regressions ``softmax(e^a o + x U + c)``, one after the other.

    Attributes:
        factor: ``a (B,)``.
        weight: ``U (B, R, C)``.
        bias: ``c (B, C)``.
    """

    factor: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, inputs: Tensor, offsets: Tensor) -> Tensor:
        """Return scores ``(n, B, C)`` of inputs ``x (n, R)`` and offsets ``o (n, B, C)``."""
        problems, rank, classes = self.weight.shape
        product = inputs @ self.weight.transpose(0, 1).reshape(rank, problems * classes)
        scaled = self.factor.exp().unsqueeze(1) * offsets
        return product.view(-1, problems, classes) + self.bias + scaled


@dataclass(frozen=True, eq=False)
class ResidualProblem:
    """The penalized likelihood of regressions that share their inputs: a problem for each ridge, offset and part.

    Each minimizes ``sum_i w_i -log p_i[y_i] + 1/2 sum_rk ridge_r U_rk^2 + bias_ridge/2 |c|^2 + a^2/2``, from 0.

    Attributes:
        inputs: ``x (N, R)``: centered and uncorrelated columns, float64.
        spread: Variance of each column ``(R,)``.
        log_probs: ``(N, C)``.
        factors: ``(F, K, N)``; offset k of part f is ``o = factors[f, k] log_probs``.
        target: ``(N,)``.
        weights: ``w (F, N)``: of the samples of each part.
        ridges: ``(L, R)``.
        bias_ridge: Above 0.
    """

    inputs: Tensor
    spread: Tensor
    log_probs: Tensor
    factors: Tensor
    target: Tensor
    weights: Tensor
    ridges: Tensor
    bias_ridge: float

    def solve(self) -> Regressions:
        """Return the regressions at their minima; problem ``(f K + k) L + l`` is part f, offset k and ridge l."""
        which = self.problems()
        part, offset, ridge = which
        classes = self.log_probs.shape[1]
        rank = self.inputs.shape[1]
        start = torch.zeros(
            len(part), 1 + classes + rank * classes, dtype=torch.float64, device="cpu"
        )
        curvature = self._curvature(part, offset, ridge)
        point = minimize_all(
            lambda left, point: self._evaluate(which[:, left], point), start, curvature, _NEAR
        )
        return self._split(point)

    def problems(self) -> Tensor:
        """Return numbers of part, offset and ridge of each problem ``(3, B)``."""
        count = len(self.weights), self.factors.shape[1], len(self.ridges)
        ranges = [torch.arange(each, device="cpu") for each in count]
        return torch.stack([grid.flatten() for grid in torch.meshgrid(*ranges, indexing="ij")])

    def chunks(self, problems: int) -> Iterator[slice]:
        """Yield slices of the rows of which the scores of all problems fit the cache."""
        rows = max(1, _CHUNK // max(1, problems * self.log_probs.shape[1]))
        for first in range(0, len(self.target), rows):
            yield slice(first, first + rows)

    def _split(self, point: Tensor) -> Regressions:
        classes = self.log_probs.shape[1]
        weight = point[:, 1 + classes :].view(len(point), -1, classes)
        return Regressions(point[:, 0], weight, point[:, 1 : 1 + classes])

    def _evaluate(self, which: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        part, offset, ridge = which
        fits = self._split(point)
        ridges = self.ridges[ridge].unsqueeze(2)

        # The penalties.
        slope_u = ridges * fits.weight
        slope_c = self.bias_ridge * fits.bias
        slope_a = fits.factor.clone()
        value = (
            (fits.weight * slope_u).sum(dim=(1, 2))
            + (fits.bias * slope_c).sum(dim=1)
            + fits.factor.square()
        )
        value /= 2

        # The likelihood.
        for rows in self.chunks(len(point)):
            inputs = self.inputs[rows]
            offsets = self._offsets(rows, part, offset)
            weights = self.weights[part, rows].T
            target = self.target[rows]
            log_probs = fits.scores(inputs, offsets).log_softmax(dim=2)
            index = target.view(-1, 1, 1).expand(-1, len(point), 1)
            value -= (log_probs.gather(2, index).squeeze(2) * weights).sum(dim=0)
            error = log_probs.exp_().scatter_add_(
                2, index, -torch.ones_like(index, dtype=torch.float64)
            )
            error *= weights.unsqueeze(2)
            product = inputs.T @ error.view(len(error), -1)
            slope_u += product.view(len(product), *fits.bias.shape).transpose(0, 1)
            slope_c += error.sum(dim=0)
            slope_a += fits.factor.exp() * (error * offsets).sum(dim=(0, 2))
        return value, torch.cat([slope_a.unsqueeze(1), slope_c, slope_u.flatten(1)], dim=1)

    def _offsets(self, rows: slice, part: Tensor, offset: Tensor) -> Tensor:
        """Return the offsets of problems ``(n, b, C)``."""
        return self.log_probs[rows].unsqueeze(1) * self.factors[part, offset, rows].T.unsqueeze(2)

    def _curvature(self, part: Tensor, offset: Tensor, ridge: Tensor) -> Tensor:
        """Return a rough diagonal of the Hessian at 0, as if inputs and probabilities were independent."""
        # The parts hardly differ in this: the first one, of all samples, stands for them.
        first = torch.arange(self.factors.shape[1], device="cpu")
        spread_c = torch.zeros(
            len(first), self.log_probs.shape[1], dtype=torch.float64, device="cpu"
        )
        spread_a = torch.zeros(len(first), dtype=torch.float64, device="cpu")
        for rows in self.chunks(len(first)):
            offsets = self._offsets(rows, 0 * first, first)
            weights = self.weights[0, rows]
            probs = offsets.softmax(dim=2)
            spread_c += torch.tensordot(weights, probs * (1 - probs), dims=1)
            mean = (probs * offsets).sum(dim=2, keepdim=True)
            spread_a += weights @ (probs * (offsets - mean).square()).sum(dim=2)
        total = self.weights.sum(dim=1)
        share = (total / total[0])[part].unsqueeze(1)
        spread_c = spread_c.clamp(min=_FLOOR * float(total[0]))[offset] * share
        weight = spread_c.unsqueeze(1) * self.spread.unsqueeze(1) + self.ridges[ridge].unsqueeze(2)
        factor = spread_a[offset].unsqueeze(1) * share + 1
        return torch.cat([factor, spread_c + self.bias_ridge, weight.flatten(1)], dim=1)
