"""Held-out losses of affine maps: the search for a penalty, and the comparison with temperature scaling."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.softmax_regression import SoftmaxRegression

FREEDOMS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Freedoms of the hold that cross-validation tries, see ``SoftmaxRegression``; fits without it have more."""

NO_GAIN = "held-out samples do not show that it beats temperature scaling, so this is temperature scaling."

# Held-out scores need fewer digits than the parameters that are kept.
_SEARCH_TOLERANCE = 1e-5
# A weaker penalty must lower the held-out NLL by this many nats a sample.
_GAIN = 1e-5

P = TypeVar("P", bound=Hashable)


class HeldOutLoss(Generic[P]):
    """Negative log-likelihood on held-out folds, as a function of the penalties.

    Args:
        inputs: ``x (N, C)`` on the CPU.
        target: ``(N,)``.
        folds: The fold of each sample ``(N,)``, from 0; two at least, and none is empty.
        weights: Weight of each sample ``(N,)``.
        problem: The regression on given inputs, labels and weights, with given penalties.

    State:
        Caches losses, and the last fit of each fold as the start of the next.
    """

    def __init__(
        self,
        inputs: Tensor,
        target: Tensor,
        *,
        folds: Tensor,
        weights: Tensor,
        problem: Callable[[Tensor, Tensor, Tensor, P], SoftmaxRegression],
    ) -> None:
        self._inputs, self._target, self._weights, self._problem = inputs, target, weights, problem
        self._held = [folds == fold for fold in range(int(folds.max()) + 1)]
        self._last: list[AffineMap | None] = [None] * len(self._held)
        self._losses: dict[P, Tensor] = {}

    def losses(self, penalties: P) -> Tensor:
        """``-log p_y`` of each sample ``(N,)`` from the fit without its fold."""
        if penalties not in self._losses:
            losses = torch.empty(len(self._target), dtype=torch.float64, device="cpu")
            for fold, held in enumerate(self._held):
                problem = self._problem(self._inputs[~held], self._target[~held], self._weights[~held], penalties)
                self._last[fold] = affine = problem.solve(self._last[fold], tolerance=_SEARCH_TOLERANCE)
                losses[held] = nll(self._inputs[held], self._target[held], affine)
            self._losses[penalties] = losses
        return self._losses[penalties]

    def __call__(self, penalties: P) -> float:
        """Sum of the losses of all samples."""
        return float(self._weights @ self.losses(penalties))

    def first_best(self, values: Sequence[P]) -> P:
        """The value before the first one without a lower loss; weaker ones, slow to fit, are not tried."""
        best, lowest = values[0], self(values[0])
        for value in values[1:]:
            following = self(value)
            if following > lowest - _GAIN * float(self._weights.sum()):
                break
            best, lowest = value, following
        return best

    def beats(self, scaled: AffineMap, penalties: P) -> bool:
        """Whether the loss is below that of ``scaled``, the map of temperature scaling, by more than a standard error.

        The parameters of a flexible map follow a few samples of a rare class, and so does the held-out loss.
        """
        gain = nll(self._inputs, self._target, scaled) - self.losses(penalties)
        total = float(self._weights.sum())
        mean = float(self._weights @ gain) / total
        return mean > (float(self._weights @ (gain - mean).square()) / total / total) ** 0.5


def nll(inputs: Tensor, target: Tensor, affine: AffineMap) -> Tensor:
    """``-log softmax(W x + b)[y]`` of each row of ``inputs (N, C)``, float64."""
    parts = [cross_entropy(affine(rows), target[part], reduction="none") for part, rows in double_rows(inputs)]
    return torch.cat(parts)
