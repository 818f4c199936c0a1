"""Bias-corrected temperature scaling: one factor of all logits, and an offset for each class."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.newton import minimize
from fedlas.calibrators._fit.softmax_regression import SoftmaxRegression


def bias_corrected_temperature(
    logits: Tensor, target: Tensor, weights: Tensor | None = None, *, scale: float, width: float, prior: float = 0.0
) -> AffineMap:
    """The map ``z -> a z + b`` with the lowest negative log-likelihood, ``a`` a number and ``b (C,)``.

    At the minimum the mean probability of each class is its share of the labels, up to the weak hold of
    :class:`SoftmaxRegression`.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``; None: 1 each.
        scale: Factor of temperature scaling, where the search starts.
        width: As in :class:`SoftmaxRegression`.
        prior: Penalty ``prior / N`` of the square of each offset, in nats. Unless 0, there is one of ``1 / N`` of
            the square of the factor's difference from ``scale``, in units of the width, too.
    """
    samples = len(target) if weights is None else float(weights.sum())
    regression = SoftmaxRegression(
        logits,
        target,
        weights,
        diagonal=True,
        scale=scale,
        width=width,
        intercept=prior / samples,
        diagonal_penalty=1 / (samples * logits.shape[1]) / width / width if prior else None,
    )
    problem = _OneFactor(regression, logits.shape[1])
    start = torch.cat([regression.start[:1], regression.start[logits.shape[1] :]])
    minimum = minimize(problem, start)
    return regression.to_map(problem.expand(minimum.point), converged=minimum.converged)


class _OneFactor:
    """A regression with a factor for each class, on the points where all factors are equal; a ``ConvexProblem``."""

    def __init__(self, regression: SoftmaxRegression, classes: int) -> None:
        self._regression, self._classes = regression, classes

    def expand(self, point: Tensor) -> Tensor:
        """``(1 + C,)`` to ``(C + C,)``."""
        return torch.cat([point[:1].expand(self._classes), point[1:]])

    def _summed(self, vector: Tensor) -> Tensor:
        """The transpose of :meth:`expand`."""
        return torch.cat([vector[: self._classes].sum().unsqueeze(0), vector[self._classes :]])

    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Value and gradient."""
        value, gradient = self._regression.evaluate(self.expand(point))
        return value, self._summed(gradient)

    def curvature(self, direction: Tensor) -> Tensor:
        """The Hessian times ``direction``."""
        return self._summed(self._regression.curvature(self.expand(direction)))

    def precondition(self, vector: Tensor) -> Tensor:
        """``vector`` divided by sums of the diagonal of the Hessian."""
        ones = torch.ones(2 * self._classes, dtype=vector.dtype, device=vector.device)
        return vector / self._summed(1 / self._regression.precondition(ones))
