"""ODIR: the off-diagonal and intercept regularization of matrix and Dirichlet calibration, and its choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.calibrators._affine import AffineCalibrator, read_map
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import when
from fedlas.calibrators._fit.folds import stratified_folds
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators._fit.rowwise import total_nll
from fedlas.calibrators._fit.softmax_regression import SoftmaxRegression
from fedlas.predictions import Predictions

OFF_DIAGONAL_FREEDOM = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Standard deviations that cross-validation allows the weights off the diagonal, in units of a weight on it."""

INTERCEPT_FREEDOM = (0.03, 0.3, 3.0, 30.0)
"""Standard deviations that it allows the intercepts, in nats."""

# Held-out scores need fewer digits than the parameters that are kept.
_SEARCH_TOLERANCE = 1e-5
# A weaker penalty must lower the held-out NLL by this many nats a sample.
_GAIN = 1e-5


@dataclass(frozen=True)
class Penalties:
    """``off_diagonal / (C (C - 1)) * sum_{i != j} W_ij^2 + intercept / C * sum_j b_j^2``: the paper's lambda and mu."""

    off_diagonal: float
    intercept: float


class RegularizedMatrix(AffineCalibrator):
    """``W x + b`` with a full matrix, fitted with ODIR; a subclass defines ``x``.

    Args:
        off_diagonal: The paper's lambda, at least 0; None: chosen by cross-validation.
        intercept: The paper's mu, at least 0; None: chosen by cross-validation.
        num_folds: Folds of that cross-validation, at least 2.
    """

    def __init__(self, off_diagonal: float | None = None, intercept: float | None = None, num_folds: int = 5) -> None:
        owner = self._owner
        self.off_diagonal = None if off_diagonal is None else check_number(owner, "off_diagonal", off_diagonal, low=0)
        self.intercept = None if intercept is None else check_number(owner, "intercept", intercept, low=0)
        self.num_folds = check_count(owner, "num_folds", num_folds, low=2)
        self._penalties: Penalties | None = None

    @property
    def penalties(self) -> Penalties:
        """The penalties of the fit, given or chosen.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(f"{self._owner}.penalties", self._penalties)

    def _regression(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[AffineMap, str | None]:
        penalties, doubt = self._chosen(inputs, val, scale)
        affine = regression(inputs, val.target, penalties, scale=scale).solve()
        self._penalties = penalties
        return affine, doubt

    def _chosen(self, inputs: Tensor, val: Predictions, scale: float) -> tuple[Penalties, str | None]:
        """The penalties given, or those of the grid with the lowest held-out NLL, and what to warn about."""
        samples, classes = inputs.shape
        off_diagonal, intercept = penalty_grids(samples, classes, scale)
        if self.off_diagonal is not None:
            off_diagonal = [self.off_diagonal]
        if self.intercept is not None:
            intercept = [self.intercept]
        strongest = Penalties(off_diagonal[0], intercept[0])
        if len(off_diagonal) == len(intercept) == 1:
            return strongest, None
        if samples < self.num_folds:
            return strongest, f"{samples} samples do not fill {self.num_folds} folds: the strongest penalties stand."

        # One penalty after the other: the fits are nested, and the grid of both at once costs several times as much.
        folds = stratified_folds(val.logits, val.target, self.num_folds)
        score = HeldOutLoss(inputs, val.target.cpu(), folds=folds, scale=scale)
        middle, gain = intercept[len(intercept) // 2], _GAIN * samples
        best_off = _first_best(off_diagonal, lambda value: score(Penalties(value, middle)), gain)
        best_intercept = _first_best(intercept, lambda value: score(Penalties(best_off, value)), gain)

        searched = (("off_diagonal", best_off, off_diagonal), ("intercept", best_intercept, intercept))
        weakest = [name for name, best, grid in searched if len(grid) > 1 and best == grid[-1]]
        return Penalties(best_off, best_intercept), when(
            weakest,
            f"cross-validation chose the weakest penalty of its grid for {' and '.join(weakest)}. Give a weaker one, "
            "or check that the logits are those of the classes.",
        )

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "penalties": asdict(self.penalties)}

    def _restore(self, state: dict[str, Any]) -> None:
        names = ("off_diagonal", "intercept")
        chosen = [check_number(self._owner, name, state["penalties"][name], low=0) for name in names]
        self._map = read_map(state, self.num_classes, self.num_classes)
        self._penalties = Penalties(*chosen)


def penalty_grids(samples: int, classes: int, scale: float) -> tuple[list[float], list[float]]:
    """Penalties to choose from, the strongest first: lambda off the diagonal, and mu of the intercepts.

    As a Gaussian prior of the ``N`` samples, ``lambda / (C (C - 1)) W_ij^2`` allows a weight the standard deviation
    ``sqrt(C (C - 1) / (2 N lambda))``. The grid is even in these, relative to ``scale``, so that it fits any number of
    classes and samples, and logits of any size.
    """
    pairs = max(1, classes * (classes - 1))
    return (
        [pairs / (2 * samples * (freedom * scale) ** 2) for freedom in OFF_DIAGONAL_FREEDOM],
        [classes / (2 * samples * freedom**2) for freedom in INTERCEPT_FREEDOM],
    )


def _first_best(values: list[float], score: Callable[[float], float], gain: float) -> float:
    """The value before the first one that does not score lower by ``gain``; weaker ones, slow to fit, are not tried."""
    best, lowest = values[0], score(values[0])
    for value in values[1:]:
        following = score(value)
        if following > lowest - gain:
            break
        best, lowest = value, following
    return best


def regression(inputs: Tensor, target: Tensor, penalties: Penalties, *, scale: float) -> SoftmaxRegression:
    """The problem of the lowest negative log-likelihood of ``W x + b`` plus ODIR."""
    classes = inputs.shape[1]
    off_diagonal, intercept = penalties.off_diagonal / max(1, classes * (classes - 1)), penalties.intercept / classes
    return SoftmaxRegression(
        inputs, target, diagonal=False, scale=scale, off_diagonal=off_diagonal, intercept=intercept
    )


class HeldOutLoss:
    """Negative log-likelihood on held-out folds, as a function of the penalties.

    Args:
        inputs: ``x (N, C)`` on the CPU.
        target: ``(N,)``.
        folds: The fold of each sample ``(N,)``, from 0; none is empty.
        scale: As for the fit.

    State:
        Caches scores, and the last fit of each fold as the start of the next.
    """

    def __init__(self, inputs: Tensor, target: Tensor, *, folds: Tensor, scale: float) -> None:
        self._parts = [
            (inputs[folds != fold], target[folds != fold], inputs[folds == fold], target[folds == fold])
            for fold in range(int(folds.max()) + 1)
        ]
        self._scale = scale
        self._last: list[AffineMap | None] = [None] * len(self._parts)
        self._scores: dict[Penalties, float] = {}

    def __call__(self, penalties: Penalties) -> float:
        """Sum over all samples of ``-log p_y`` from the fit without their fold."""
        if penalties not in self._scores:
            self._scores[penalties] = sum(self._score(fold, penalties) for fold in range(len(self._parts)))
        return self._scores[penalties]

    def _score(self, fold: int, penalties: Penalties) -> float:
        inputs, target, held_inputs, held_target = self._parts[fold]
        problem = regression(inputs, target, penalties, scale=self._scale)
        self._last[fold] = affine = problem.solve(self._last[fold], tolerance=_SEARCH_TOLERANCE)
        return total_nll(held_inputs, held_target, affine)
