"""The regression of vector, matrix and Dirichlet calibration: ``softmax(W x + b)`` with quadratic penalties."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

import torch
from torch import Tensor

from fedlas.calibrators._fit.affine_map import AffineMap, apply_weight
from fedlas.calibrators._fit.newton import minimize
from fedlas.calibrators._fit.rowwise import column_moments, double_rows

HOLD = 0.01
"""Weight of the hold on every parameter, divided by the number of samples: see :class:`SoftmaxRegression`."""

FREEDOM = 10.0
"""Standard deviation that the hold allows the diagonal by default, in units of the width."""

INTERCEPTS = 3.0
"""Standard deviation that it allows the intercepts, in nats, where it allows the diagonal 1."""


class Penalties(TypedDict):
    """What :class:`SoftmaxRegression` adds to the likelihood; its arguments of these names."""

    diagonal: bool
    scale: float
    off_diagonal: NotRequired[float]
    intercept: NotRequired[float]
    freedom: NotRequired[float]
    width: NotRequired[float | None]
    diagonal_penalty: NotRequired[float | None]


class SoftmaxRegression:
    """Mean negative log-likelihood of ``softmax(W x + b)`` plus quadratic penalties, a :class:`ConvexProblem`.

    ``1/N sum_i -log softmax(W x_i + b)[y_i] + off_diagonal sum_{i != j} W_ij^2 + intercept sum_j b_j^2 + hold``.

    The hold pulls the map toward the input times ``scale``. It has the weight of a single observation, so it does not
    affect parameters that the data determine. Without it there is no minimum where the labels can be separated, or
    where a class has no sample. ``m_j`` and ``s_j`` are mean and standard deviation of column ``j`` of ``x``, and ``c =
    b + W m`` is the intercept at the mean. The hold has two parts:

    - ``0.005/N (sum_ij s_j^2 (W_ij - scale [i = j])^2 + sum_i (c_i - scale m_i)^2)`` expects a parameter to move a
      score by about ten nats at most for each standard deviation of its input.
    - ``1/(2N) sum_j ((W_jj - scale) / (freedom width))^2 + 1/(2N) sum_i ((c_i - scale m_i) / (3 freedom))^2`` expects
      the diagonal to differ from ``scale`` by ``freedom`` widths, and intercepts by three times as many nats. The
      standard deviation of a log-probability that is mostly near 0 is small and says nothing about its tail, so the
      first part alone would allow factors that are far off.

    Args:
        inputs: ``x (N, C)``.
        target: ``(N,)``.
        weights: ``(N,)`` float64; None: 1 each. A weight of 2 counts as a repeated sample.
        **penalties: :class:`Penalties`, as follows.
        diagonal: Whether ``W`` is diagonal.
        scale: The hold and the start take ``W`` as ``scale`` times the identity.
        off_diagonal: Penalty of each weight off the diagonal; 0 by default.
        intercept: Penalty of each ``b_j``; 0 by default.
        freedom: See above, greater than 0; :data:`FREEDOM` by default.
        width: See above; None, the default: ``scale``.
        diagonal_penalty: Penalty of ``(W_jj - scale)^2`` in place of the second part of the hold; None, the default:
            that part.

    Note:
        The unknowns are ``W`` and ``c``, not ``b``, so that a large offset of ``x`` costs no precision. One array
        of the size of the inputs is kept in addition, the float64 probabilities.
    """

    def __init__(
        self, inputs: Tensor, target: Tensor, weights: Tensor | None = None, **penalties: Unpack[Penalties]
    ) -> None:
        self._inputs, self._target = inputs.cpu(), target.cpu()
        self._weights = torch.ones(len(inputs), dtype=torch.float64, device="cpu") if weights is None else weights
        self._probs = torch.empty(inputs.shape, dtype=torch.float64, device="cpu")
        self._diagonal = torch.empty(0)  # until the first evaluation
        moments = column_moments(self._inputs, lambda rows: rows, self._weights)
        self._set_penalties(float(self._weights.sum()), *moments, **penalties)

    def _set_penalties(self, samples: float, mean: Tensor, deviation: Tensor, **penalties: Unpack[Penalties]) -> None:
        diagonal, scale, width = penalties["diagonal"], penalties["scale"], penalties.get("width")
        off_diagonal, intercept = penalties.get("off_diagonal", 0.0), penalties.get("intercept", 0.0)
        freedom = penalties.get("freedom", FREEDOM)
        self._samples, self._mean = samples, mean
        ones = torch.ones_like(mean)
        self._anchor = scale * (ones if diagonal else torch.diag(ones))
        self._intercept = 2 * intercept
        self._hold = (HOLD + 1 / (INTERCEPTS * freedom) ** 2) / self._samples
        deviations = freedom * (scale if width is None else width)
        close = 1 / deviations / deviations / self._samples  # not its square, which may overflow
        if (fixed := penalties.get("diagonal_penalty")) is not None:
            self._hold, close = HOLD / self._samples, 2 * fixed
        self._weight_penalty = HOLD / self._samples * deviation.square() + close
        if not diagonal:
            self._weight_penalty = self._weight_penalty + (2 * off_diagonal - close) * (1 - torch.diag(ones))

    @property
    def start(self) -> Tensor:
        """The point of the map ``x -> scale x``."""
        return torch.cat([self._anchor.flatten(), apply_weight(self._anchor, self._mean)])

    def to_map(self, point: Tensor, *, converged: bool) -> AffineMap:
        """The map at a point."""
        weight, centered = self._split(point)
        return AffineMap(weight, centered - apply_weight(weight, self._mean), converged)

    def to_point(self, fitted: AffineMap) -> Tensor:
        """The point of a map."""
        return torch.cat([fitted.weight.flatten(), fitted.bias + apply_weight(fitted.weight, self._mean)])

    def solve(self, start: AffineMap | None = None, *, tolerance: float = 1e-8) -> AffineMap:
        """The map at the minimum.

        Args:
            start: Start of the search; a nearby solution saves time and does not change the result.
            tolerance: Tolerance of the gradient, see :func:`~fedlas.calibrators._fit.newton.minimize`.
        """
        minimum = minimize(self, self.start if start is None else self.to_point(start), tolerance=tolerance)
        return self.to_map(minimum.point, converged=minimum.converged)

    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Value and gradient."""
        weight, centered = self._split(point)
        # Sums over the samples: value, gradient, and diagonal of the Hessian as the preconditioner.
        value = 0.0
        slope, curve = torch.zeros_like(weight), torch.zeros_like(weight)
        slope_c, curve_c = torch.zeros_like(centered), torch.zeros_like(centered)
        for part, rows in double_rows(self._inputs):
            rows = rows - self._mean  # not in place: float64 rows are the caller's
            log_probs = (apply_weight(weight, rows) + centered).log_softmax(dim=1)
            index, weights = self._target[part].unsqueeze(1), self._weights[part].unsqueeze(1)
            value -= float(weights.squeeze(1) @ log_probs.gather(1, index).squeeze(1))
            probs = torch.exp(log_probs, out=self._probs[part])
            spread = probs * (1 - probs) * weights
            # Not in place, because products with the Hessian need the probabilities themselves.
            error = probs.scatter_add(1, index, log_probs.new_full(index.shape, -1.0)) * weights
            slope += _outer(error, rows, weight)
            slope_c += error.sum(dim=0)
            curve += _outer(spread, rows.square(), weight)
            curve_c += spread.sum(dim=0)

        one = torch.ones_like(curve_c)
        self._diagonal = self._with_penalties(curve, curve_c, one, one, self._mean.square(), one, sign=1.0)
        return self._penalized(value, slope, slope_c, weight, centered)

    def _penalized(
        self, value: float, slope: Tensor, slope_c: Tensor, weight: Tensor, centered: Tensor
    ) -> tuple[float, Tensor]:
        """Value and gradient, from their sums over the samples."""
        away, away_c = weight - self._anchor, centered - apply_weight(self._anchor, self._mean)
        bias = centered - apply_weight(weight, self._mean)
        value = value / self._samples + 0.5 * float(
            (self._weight_penalty * away.square()).sum()
            + self._hold * away_c.square().sum()
            + self._intercept * bias.square().sum()
        )
        return value, self._with_penalties(slope, slope_c, away, away_c, self._mean, bias, sign=-1.0)

    def curvature(self, direction: Tensor) -> Tensor:
        """The Hessian times ``direction``."""
        weight, centered = self._split(direction)
        product, product_c = torch.zeros_like(weight), torch.zeros_like(centered)
        for part, rows in double_rows(self._inputs):
            rows = rows - self._mean
            probs = self._probs[part]
            change = apply_weight(weight, rows) + centered
            # These two lines multiply by diag(p) - p p^T without the (C, C) matrix of each sample.
            change -= (probs * change).sum(dim=1, keepdim=True)
            change *= probs * self._weights[part].unsqueeze(1)
            product += _outer(change, rows, weight)
            product_c += change.sum(dim=0)
        bias = centered - apply_weight(weight, self._mean)
        return self._with_penalties(product, product_c, weight, centered, self._mean, bias, sign=-1.0)

    def precondition(self, vector: Tensor) -> Tensor:
        """``vector`` divided by the diagonal of the Hessian."""
        return vector / self._diagonal

    def _split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._anchor.numel()
        return point[:weights].view_as(self._anchor), point[weights:]

    def _with_penalties(
        self, weight: Tensor, centered: Tensor, away: Tensor, away_c: Tensor, mean: Tensor, bias: Tensor, *, sign: float
    ) -> Tensor:
        """Sums over samples as means, plus the penalties; the mean enters through ``b = c - W m``."""
        weight = weight / self._samples + self._weight_penalty * away
        centered = centered / self._samples + self._hold * away_c
        if self._intercept:
            weight = weight + sign * self._intercept * _outer(bias.unsqueeze(0), mean.unsqueeze(0), weight)
            centered = centered + self._intercept * bias
        return torch.cat([weight.flatten(), centered])


def _outer(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """``sum_n left[n] right[n]^T``, or its diagonal if ``like`` is one."""
    return (left * right).sum(dim=0) if like.ndim == 1 else left.T @ right
