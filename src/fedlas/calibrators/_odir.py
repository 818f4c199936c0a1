"""ODIR: the off-diagonal and intercept regularization of matrix and Dirichlet calibration, and its choice."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.calibrators._affine import AffineCalibrator, Start, read_map
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import when
from fedlas.calibrators._fit.folds import stratified_folds
from fedlas.calibrators._fit.held_out import FREEDOMS, NO_GAIN, HeldOutLoss
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators._fit.softmax_regression import FREEDOM, SoftmaxRegression
from fedlas.calibrators._fit.source import weights_of
from fedlas.predictions import Predictions

OFF_DIAGONAL_FREEDOM = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Standard deviations that cross-validation allows the weights off the diagonal, in units of a weight on it."""

INTERCEPT_FREEDOM = (0.03, 0.3, 3.0, 30.0)
"""Standard deviations that it allows the intercepts, in nats."""


@dataclass(frozen=True)
class Penalties:
    """``off_diagonal / (C (C - 1)) * sum_{i != j} W_ij^2 + intercept / C * sum_j b_j^2``: the paper's lambda and mu.

    ``freedom`` is how far the diagonal may differ from temperature scaling, see ``SoftmaxRegression``.
    """

    off_diagonal: float
    intercept: float
    freedom: float = FREEDOM


class RegularizedMatrix(AffineCalibrator):
    """``W x + b`` with a full matrix, fitted with ODIR; a subclass defines ``x``.

    Args:
        off_diagonal: The paper's lambda, at least 0; None: chosen by cross-validation.
        intercept: The paper's mu, at least 0; None: chosen by cross-validation.
        num_folds: Folds of that cross-validation, at least 2.
    """

    _diagonal = False

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

    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> tuple[AffineMap | None, str | None]:
        penalties, doubt = self._chosen(inputs, val, start)
        affine = (
            None
            if doubt == NO_GAIN
            else regression(
                inputs, val.target, weights_of(val), penalties, scale=start.scale, width=start.width
            ).solve()
        )
        self._penalties = replace(penalties, off_diagonal=_bounded(penalties.off_diagonal * start.unit * start.unit))
        return affine, doubt

    def _chosen(self, inputs: Tensor, val: Predictions, start: Start) -> tuple[Penalties, str | None]:
        """The penalties given, or those of the grid with the lowest held-out NLL, and what to warn about."""
        weights, classes = weights_of(val), inputs.shape[1]
        samples = float(weights.sum())
        off_diagonal, intercept = penalty_grids(samples, classes, start.width)
        if self.off_diagonal is not None:
            off_diagonal = [_bounded(self.off_diagonal / start.unit / start.unit)]
        if self.intercept is not None:
            intercept = [self.intercept]
        strongest = Penalties(off_diagonal[0], intercept[0])
        if len(off_diagonal) == len(intercept) == 1:
            return strongest, None
        target = val.target.cpu()
        folds = stratified_folds(inputs, target, self.num_folds, weights)
        filled = int(folds.max()) + 1
        if filled < self.num_folds:
            few = f"{filled} distinct samples do not fill {self.num_folds} folds: the strongest penalties stand."
            return replace(strongest, freedom=FREEDOMS[0]), few

        # One penalty after the other: the fits are nested, and the grid of all at once costs many times as much.
        score = HeldOutLoss(
            inputs,
            target,
            folds=folds,
            weights=weights,
            problem=partial(regression, scale=start.scale, width=start.width),
        )
        middle = intercept[len(intercept) // 2]
        best = score.first_best([Penalties(off_diagonal[0], middle, value) for value in FREEDOMS])
        best = score.first_best([replace(best, off_diagonal=value) for value in off_diagonal])
        best = score.first_best([replace(best, intercept=value) for value in intercept])
        if not score.beats(start.as_map(inputs), best):
            return replace(strongest, freedom=FREEDOMS[0]), NO_GAIN

        searched = (("off_diagonal", best.off_diagonal, off_diagonal), ("intercept", best.intercept, intercept))
        weakest = [name for name, chosen, grid in searched if len(grid) > 1 and chosen == grid[-1]]
        return best, when(
            weakest,
            f"cross-validation chose the weakest penalty of its grid for {' and '.join(weakest)}. Give a weaker one, "
            "or check that the logits are those of the classes.",
        )

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "penalties": asdict(self.penalties)}

    def _restore(self, state: dict[str, Any]) -> None:
        names = ("off_diagonal", "intercept")
        off_diagonal, intercept = (check_number(self._owner, name, state["penalties"][name], low=0) for name in names)
        freedom = state["penalties"].get("freedom", FREEDOM)  # files of earlier versions lack it
        self._map = read_map(state, self.num_classes, self.num_classes)
        freedom = check_number(self._owner, "freedom", freedom, low=0, low_open=True)
        self._penalties = Penalties(off_diagonal, intercept, freedom)


def penalty_grids(samples: float, classes: int, scale: float) -> tuple[list[float], list[float]]:
    """Penalties to choose from, the strongest first: lambda off the diagonal, and mu of the intercepts.

    As a Gaussian prior of the ``N`` samples, ``lambda / (C (C - 1)) W_ij^2`` allows a weight the standard deviation
    ``sqrt(C (C - 1) / (2 N lambda))``. The grid is even in these, relative to ``scale``, so that it fits any number of
    classes and samples, and logits of any size.
    """
    pairs = max(1, classes * (classes - 1))
    return (
        # Dividing twice avoids a square, which would underflow to 0 for a tiny scale.
        [pairs / (2 * samples) / (freedom * scale) / (freedom * scale) for freedom in OFF_DIAGONAL_FREEDOM],
        [classes / (2 * samples * freedom**2) for freedom in INTERCEPT_FREEDOM],
    )


def regression(
    inputs: Tensor, target: Tensor, weights: Tensor, penalties: Penalties, *, scale: float, width: float
) -> SoftmaxRegression:
    """The problem of the lowest negative log-likelihood of ``W x + b`` plus ODIR."""
    classes = inputs.shape[1]
    off_diagonal, intercept = penalties.off_diagonal / max(1, classes * (classes - 1)), penalties.intercept / classes
    return SoftmaxRegression(
        inputs,
        target,
        weights,
        diagonal=False,
        scale=scale,
        off_diagonal=off_diagonal,
        intercept=intercept,
        freedom=penalties.freedom,
        width=width,
    )


def _bounded(penalty: float) -> float:
    """A penalty that fits a file and a regression, where units of the logits make it larger than float64 holds."""
    return min(penalty, 1e200)
