"""Multinomial regressions of labels on features, with log-probabilities as offsets, solved in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlas.calibrators._fit.buffers import zeros

_CHUNK_SIZE = 2**21
"""Scores of a chunk of rows: 16 MiB."""
_TOLERANCE = 1e-2
"""Tolerance of the penalized log-likelihood of all samples, in nats."""
_MIN_SPREAD = 1e-3
"""Floor of the mean ``p (1 - p)`` of a class in the metric of the search."""


Regressions = tuple[Tensor, Tensor, Tensor]
"""Factors ``a (B,)``, weights ``U (B, R, C)`` and offsets ``c (B, C)`` of ``softmax(e^a o + x U + c)``."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Design matrix of numeric columns, and of one-hot columns stored as category codes.

    Attributes:
        numbers: ``(N, R)``.
        codes: One-hot column index of each category's value ``(N, G)``; ``size`` stands for an unknown value. None: no
            categories.
        size: Number ``S`` of one-hot columns.
        unit: Value that stands in place of 1 in one-hot columns.
    """

    numbers: Tensor
    codes: Tensor | None = None
    size: int = 0
    unit: float = 1.0

    @property
    def width(self) -> int:
        """Number of columns, ``R + S``."""
        return self.numbers.shape[1] + self.size

    def rows(self, which: slice) -> Inputs:
        """Return a slice of the rows."""
        codes = None if self.codes is None else self.codes[which]
        return Inputs(self.numbers[which], codes, self.size, self.unit)

    def times(self, weight: Tensor) -> Tensor:
        """Return the product of the design matrix with ``weight (R + S, M)``, ``(N, M)``."""
        if self.codes is None:
            return self.numbers @ weight
        rank = self.numbers.shape[1]
        result = self.numbers @ weight[:rank]
        table = pad(weight[rank:] * self.unit, (0, 0, 0, 1))
        for code in self.codes.unbind(1):
            result = result + table.index_select(0, code)
        return result

    def sums(self, values: Tensor) -> Tensor:
        """Return the product of the transposed design matrix with ``values (N, M)``, ``(R + S, M)``."""
        dense = self.numbers.T @ values
        return (
            dense
            if self.codes is None
            else torch.cat([dense, self.unit * self._sum_by_code(values)])
        )

    def weighted_square_sums(self, weights: Tensor) -> Tensor:
        """Return the weighted sum of squares of each column ``(F, R + S)``, for weights ``(F, N)``."""
        dense = weights @ self.numbers.square()
        if self.codes is None:
            return dense
        return torch.cat([dense, self.unit**2 * self._sum_by_code(weights.T).T], dim=1)

    def _sum_by_code(self, values: Tensor) -> Tensor:
        """Return the sum of ``values (N, M)`` per category code, ``(S, M)``."""
        codes = () if self.codes is None else self.codes.unbind(1)
        totals = values.new_zeros(self.size + 1, values.shape[1])
        for code in codes:
            totals.index_add_(0, code, values)
        return totals[:-1]


def residual_log_probs(fits: Regressions, inputs: Inputs, offsets: Tensor) -> Tensor:
    """Return log-probabilities ``(n, B, C)`` of regressions on inputs ``(n, R)`` with offsets ``(n, B, C)``."""
    factor, weight, bias = fits
    product = inputs.times(weight.transpose(0, 1).flatten(1))
    scores = product.unflatten(1, bias.shape) + bias
    return (scores + factor.exp().unsqueeze(1) * offsets).log_softmax(dim=2)


@dataclass(frozen=True, eq=False)
class ResidualProblem:
    """Penalized likelihood of regressions with common inputs, one per combination of subset, offset and ridge.

    Each minimizes ``sum_i w_i -log p_i[y_i] + 1/2 sum_rk ridge_r U_rk^2 + bias_ridge/2 |c|^2 + a^2/2``, from 0.

    Attributes:
        inputs: ``x (N, R)``: centered and uncorrelated columns, float64, and categories.
        spread: Variance of each column ``(R,)``.
        log_probs: ``(N, C)``.
        factors: ``(F, K, N)``; offset k of subset f is ``o = factors[f, k] log_probs``.
        target: ``(N,)``.
        weights: Sample weights of each subset, ``w (F, N)``.
        ridges: ``(L, R)``.
        bias_ridge: Above 0.
    """

    inputs: Inputs
    spread: Tensor
    log_probs: Tensor
    factors: Tensor
    target: Tensor
    weights: Tensor
    ridges: Tensor
    bias_ridge: float

    def solve(self) -> Regressions:
        """Return the fitted regressions; index ``(f K + k) L + l`` is subset f, offset k and ridge l."""
        from fedlas.calibrators._fit.minimize import minimize_batch

        problems = self.problem_indices()
        part, offset, ridge = problems
        classes = self.log_probs.shape[1]
        rank = self.inputs.width
        start = zeros(len(part), 1 + classes + rank * classes)
        curvature = self._curvature(part, offset, ridge)
        point = minimize_batch(
            lambda left, point: self._evaluate(problems[:, left], point),
            start,
            curvature,
            _TOLERANCE,
        )
        return self._unpack_point(point)

    def problem_indices(self) -> Tensor:
        """Return the indices of subset, offset and ridge of each problem ``(3, B)``."""
        count = len(self.weights), self.factors.shape[1], len(self.ridges)
        ranges = [torch.arange(each, device="cpu") for each in count]
        return torch.stack([grid.flatten() for grid in torch.meshgrid(*ranges, indexing="ij")])

    def row_chunks(self, num_problems: int) -> Iterator[slice]:
        """Yield slices of rows such that the scores of all problems fit the cache."""
        rows = max(1, _CHUNK_SIZE // max(1, num_problems * self.log_probs.shape[1]))
        for first in range(0, len(self.target), rows):
            yield slice(first, first + rows)

    def _unpack_point(self, point: Tensor) -> Regressions:
        """Return factors, weights and offsets of a point vector."""
        classes = self.log_probs.shape[1]
        weight = point[:, 1 + classes :].view(len(point), -1, classes)
        return point[:, 0], weight, point[:, 1 : 1 + classes]

    def _evaluate(self, problems: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and gradients of the selected problems."""
        part, offset, ridge = problems
        fits = self._unpack_point(point)
        factor, weight, bias = fits

        # The penalties.
        slope_u = self.ridges[ridge].unsqueeze(2) * weight
        slope_c = self.bias_ridge * bias
        slope_a = factor.clone()
        value = (weight * slope_u).sum(dim=(1, 2)) + (bias * slope_c).sum(dim=1) + factor.square()
        value /= 2

        # The likelihood.
        for rows in self.row_chunks(len(point)):
            inputs = self.inputs.rows(rows)
            offsets = self._offsets(rows, part, offset)
            weights = self.weights[part, rows].T
            target = self.target[rows]
            log_probs = residual_log_probs(fits, inputs, offsets)
            index = target.view(-1, 1, 1).expand(-1, len(point), 1)
            value -= (log_probs.gather(2, index).squeeze(2) * weights).sum(dim=0)
            error = log_probs.exp_().scatter_add_(
                2, index, -torch.ones_like(index, dtype=torch.float64)
            )
            error *= weights.unsqueeze(2)
            product = inputs.sums(error.view(len(error), -1))
            slope_u += product.unflatten(1, bias.shape).transpose(0, 1)
            slope_c += error.sum(dim=0)
            slope_a += factor.exp() * (error * offsets).sum(dim=(0, 2))
        return value, torch.cat([slope_a.unsqueeze(1), slope_c, slope_u.flatten(1)], dim=1)

    def _offsets(self, rows: slice, part: Tensor, offset: Tensor) -> Tensor:
        """Return the offsets of the problems for a slice of rows, ``(n, b, C)``."""
        return self.log_probs[rows].unsqueeze(1) * self.factors[part, offset, rows].T.unsqueeze(2)

    def _curvature(self, part: Tensor, offset: Tensor, ridge: Tensor) -> Tensor:
        """Return an approximate Hessian diagonal at 0, as if inputs and probabilities were independent."""
        # Subsets hardly differ here, so the first subset (all samples) is used for all of them.
        first = torch.arange(self.factors.shape[1], device="cpu")
        spread_c = zeros(len(first), self.log_probs.shape[1])
        spread_a = zeros(len(first))
        for rows in self.row_chunks(len(first)):
            offsets = self._offsets(rows, 0 * first, first)
            weights = self.weights[0, rows]
            probs = offsets.softmax(dim=2)
            spread_c += torch.tensordot(weights, probs * (1 - probs), dims=1)
            mean = (probs * offsets).sum(dim=2, keepdim=True)
            spread_a += weights @ (probs * (offsets - mean).square()).sum(dim=2)
        total = self.weights.sum(dim=1)
        share = (total / total[0])[part].unsqueeze(1)
        spread_c = spread_c.clamp(min=_MIN_SPREAD * float(total[0]))[offset] * share
        weight = spread_c.unsqueeze(1) * self.spread.unsqueeze(1) + self.ridges[ridge].unsqueeze(2)
        factor = spread_a[offset].unsqueeze(1) * share + 1
        return torch.cat([factor, spread_c + self.bias_ridge, weight.flatten(1)], dim=1)
