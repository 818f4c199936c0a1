"""The loss of an affine calibrator on held-out folds, by which its penalties are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.softmax_regression import AffineMap, Penalties, SoftmaxRegression

NO_GAIN = "held-out samples do not show that it beats temperature scaling, so this is temperature scaling."

# Most numbers of inputs for which the regressions without a fold are kept, each with two arrays of that size.
_KEPT = 2**20
# Held-out scores need fewer digits than the parameters that are kept.
_SEARCH_TOLERANCE = 1e-5
# A weaker penalty must lower the held-out NLL by this many nats a sample.
_GAIN = 1e-5


class HeldOutLoss:
    """Negative log-likelihood on held-out folds, as a function of the penalties.

    Args:
        inputs: ``x (N, C)`` on the CPU.
        target: ``(N,)``.
        folds: The fold of each sample ``(N,)``, from 0; two at least, and none is empty.
        weights: Weight of each sample ``(N,)``.
        problem: The regression on some inputs, labels and weights, with some penalties.

    State:
        Caches losses, and the last fit of each fold as the start of the next; of few samples also the regressions.
    """

    def __init__(
        self,
        inputs: Tensor,
        target: Tensor,
        *,
        folds: Tensor,
        weights: Tensor,
        problem: Callable[[Tensor, Tensor, Tensor, Penalties], SoftmaxRegression],
    ) -> None:
        self._inputs = inputs
        self._target = target
        self._weights = weights
        self._problem = problem
        self._folds = [folds == fold for fold in range(int(folds.max()) + 1)]
        self._last: list[AffineMap | None] = [None] * len(self._folds)
        self._kept: list[SoftmaxRegression] = []
        self._losses: dict[Penalties, Tensor] = {}

    def losses(self, penalties: Penalties) -> Tensor:
        """Return ``-log p_y`` of each sample ``(N,)`` from the fit without its fold."""
        if penalties not in self._losses:
            losses = torch.empty(len(self._target), dtype=torch.float64, device="cpu")
            for fold, test in enumerate(self._folds):
                problem = self._penalized(fold, penalties)
                self._last[fold] = affine = problem.solve(
                    self._last[fold], tolerance=_SEARCH_TOLERANCE
                )
                losses[test] = nll(self._inputs[test], self._target[test], affine)
            self._losses[penalties] = losses
        return self._losses[penalties]

    def _penalized(self, fold: int, penalties: Penalties) -> SoftmaxRegression:
        """Return the regression without a fold."""
        if fold < len(self._kept):
            self._kept[fold].penalize(penalties)
            return self._kept[fold]
        train = ~self._folds[fold]
        problem = self._problem(
            self._inputs[train], self._target[train], self._weights[train], penalties
        )
        if self._inputs.numel() <= _KEPT:
            self._kept.append(problem)
        return problem

    def first_best(self, values: Sequence[Penalties]) -> Penalties:
        """Return the value before the first one without a lower loss; weaker ones, slow to fit, are not tried."""
        best = values[0]
        lowest = float(self._weights @ self.losses(values[0]))
        for value in values[1:]:
            following = float(self._weights @ self.losses(value))
            if following > lowest - _GAIN * float(self._weights.sum()):
                break
            best = value
            lowest = following
        return best

    def beats(self, scaled: AffineMap, penalties: Penalties) -> bool:
        """Return whether the loss is below temperature scaling's, of the map ``scaled``, by over a standard error.

        The parameters of a flexible map follow a few samples of a rare class, and so does the held-out loss.
        """
        gain = nll(self._inputs, self._target, scaled) - self.losses(penalties)
        total = float(self._weights.sum())
        mean = float(self._weights @ gain) / total
        return mean > (float(self._weights @ (gain - mean).square()) / total / total) ** 0.5


def nll(inputs: Tensor, target: Tensor, affine: AffineMap) -> Tensor:
    """Return ``-log softmax(W x + b)[y]`` of each row of ``inputs (N, C)``, float64."""
    parts = [
        cross_entropy(affine(rows), target[part], reduction="none")
        for part, rows in double_rows(inputs)
    ]
    return torch.cat(parts)
