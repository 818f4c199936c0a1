"""Matrix scaling and Dirichlet calibration: full affine maps of logits or log-probabilities, with ODIR penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.calibrators._fit.buffers import float64_tensor
from fedlas.calibrators._fit.fit_warnings import warning_if
from fedlas.calibrators._fit.folds import make_folds
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.calibrators._fit.softmax_regression import (
    FREEDOMS,
    AffineMap,
    Penalties,
    SoftmaxRegression,
)
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.affine import NO_GAIN, AffineCalibrator, AffineFit, HeldOutLoss, Start
from fedlas.calibrators.base import CALIBRATORS
from fedlas.predictions.tensors import log_softmax

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["DirichletCalibration", "MatrixScaling"]

OFF_DIAGONAL_FREEDOM = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Standard deviations of off-diagonal weights in the grid of cross-validation, in units of a diagonal weight."""

INTERCEPT_FREEDOM = (0.03, 0.3, 3.0, 30.0)
"""Standard deviations of the intercepts in the grid of cross-validation, in nats."""

_MAX_PENALTY = 1e200
"""Largest penalty that is stored: with logits in small units it could exceed the range of a file."""


class PenalizedMap(AffineMap):
    """``x -> W x + b``, with the penalties that were used in the fit.

    Attributes:
        penalties: The numbers of :class:`Penalties` ``(3,)``.
    """

    penalties: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, penalties: Tensor) -> None:
        super().__init__(weight, bias)
        self.register_buffer("penalties", penalties)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or penalties that are not three numbers of at least 0."""
        super().check(classes)
        require_valid(self.weight.ndim == 2, "weight must be a matrix")
        fits = self.penalties.shape == (3,) and bool((self.penalties >= 0).all())
        require_valid(
            fits and self.penalties[2] > 0,
            "penalties must be three numbers of at least 0, the last above 0",
        )


class PenalizedLogMap(PenalizedMap):
    """``x -> W log softmax(x) + b``, with the penalties that were used in the fit."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return calibrated logits for ``inputs (n, C)``."""
        return super().forward(log_softmax(inputs))


class RegularizedMatrix(AffineCalibrator):
    """Base of matrix scaling and Dirichlet calibration: ``W x + b`` with a full matrix, fitted with ODIR penalties.

    Args:
        off_diagonal: The paper's lambda, at least 0; None: chosen by cross-validation.
        intercept: The paper's mu, at least 0; None: chosen by cross-validation.
        num_folds: Folds of that cross-validation, at least 2.
    """

    map_type: ClassVar[type[PenalizedMap]]

    def __init__(
        self, off_diagonal: float | None = None, intercept: float | None = None, num_folds: int = 5
    ) -> None:
        self.off_diagonal = (
            None if off_diagonal is None else check_number("off_diagonal", off_diagonal, low=0)
        )
        self.intercept = None if intercept is None else check_number("intercept", intercept, low=0)
        self.num_folds = check_count("num_folds", num_folds, low=2)

    @property
    def penalties(self) -> Penalties:
        """The penalties of the fit, as given or as chosen by cross-validation.

        Raises:
            InputError: Before ``fit``.
        """
        return Penalties(*self.map.penalties.tolist())

    def _fit_regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        make_regression = partial(
            SoftmaxRegression, diagonal=False, scale=start.scale, width=start.width
        )
        penalties, warning = self._choose_penalties(inputs, val, start, make_regression)
        affine = None
        if warning != NO_GAIN:
            affine = make_regression(
                inputs, val.tensors().target, sample_weights(val), penalties
            ).solve()
        off_diagonal = min(penalties.off_diagonal, _MAX_PENALTY)
        numbers = float64_tensor([off_diagonal, penalties.intercept, penalties.freedom])
        return AffineFit(affine, warning, (numbers,))

    def _choose_penalties(
        self,
        inputs: Tensor,
        val: Predictions,
        start: Start,
        make_regression: Callable[..., SoftmaxRegression],
    ) -> tuple[Penalties, str | None]:
        """Return the given penalties, or those of the grid with the lowest held-out NLL; and a warning or None."""
        weights = sample_weights(val)
        classes = inputs.shape[1]
        samples = float(weights.sum())
        off_diagonal, intercept = penalty_grids(samples, classes, start.width)
        if self.off_diagonal is not None:
            off_diagonal = [self.off_diagonal]
        if self.intercept is not None:
            intercept = [self.intercept]
        strongest = Penalties(off_diagonal[0], intercept[0])
        if len(off_diagonal) == len(intercept) == 1:
            return strongest, None
        target = val.tensors().target
        folds = make_folds(val, self.num_folds, inputs, weights)
        num_filled = int(folds.number.max()) + 1
        if num_filled < self.num_folds and not folds.in_time:
            too_few = (
                f"{num_filled} distinct samples or clusters cannot fill {self.num_folds} folds, so the strongest "
                "penalties are used."
            )
            return replace(strongest, freedom=FREEDOMS[0]), too_few

        # One penalty after the other: the fits are nested, and the grid of all at once costs many times as much.
        held_out_loss = HeldOutLoss(
            inputs,
            target,
            folds=folds,
            weights=weights,
            clusters=val.tensors().clusters,
            make_regression=make_regression,
        )
        middle = intercept[len(intercept) // 2]
        best = held_out_loss.select_penalties(
            [Penalties(off_diagonal[0], middle, value) for value in FREEDOMS]
        )
        best = held_out_loss.select_penalties(
            [replace(best, off_diagonal=value) for value in off_diagonal]
        )
        best = held_out_loss.select_penalties(
            [replace(best, intercept=value) for value in intercept]
        )
        if not held_out_loss.beats_temperature_scaling(start.to_map(inputs), best):
            return replace(strongest, freedom=FREEDOMS[0]), NO_GAIN

        searched = (
            ("off_diagonal", best.off_diagonal, off_diagonal),
            ("intercept", best.intercept, intercept),
        )
        weakest = [name for name, chosen, grid in searched if len(grid) > 1 and chosen == grid[-1]]
        return best, warning_if(
            weakest,
            f"cross-validation chose the weakest penalty of its grid for {' and '.join(weakest)}. Pass a weaker one, "
            "or check that logits and classes match.",
        )


def penalty_grids(samples: float, classes: int, scale: float) -> tuple[list[float], list[float]]:
    """Return grids of penalties, strongest first: off-diagonal (lambda) and intercept (mu).

    As a Gaussian prior of the ``N`` samples, ``lambda / (C (C - 1)) W_ij^2`` allows a weight the standard deviation
    ``sqrt(C (C - 1) / (2 N lambda))``. The grid is even in these, relative to ``scale``, so that it fits any number of
    classes and samples, and logits of any size.
    """
    pairs = max(1, classes * (classes - 1))
    return (
        # Dividing twice avoids a square, which would underflow to 0 for a tiny scale.
        [
            pairs / (2 * samples) / (freedom * scale) / (freedom * scale)
            for freedom in OFF_DIAGONAL_FREEDOM
        ],
        [classes / (2 * samples * freedom**2) for freedom in INTERCEPT_FREEDOM],
    )


@CALIBRATORS.register(
    "matrix",
    paper="Beyond Temperature Scaling: Obtaining Well-Calibrated Multiclass Probabilities with Dirichlet Calibration",
    year=2019,
    url="https://arxiv.org/abs/1910.12656",
)
class MatrixScaling(RegularizedMatrix):
    """Matrix scaling: a full affine map of the logits, ``W z + b``, with off-diagonal and intercept penalties (ODIR).

    ``W (C, C)`` and ``b (C,)`` minimize on validation predictions ``NLL + off_diagonal / (C (C - 1)) sum_{i != j}
    W_ij^2 + intercept / C sum_j b_j^2``, a convex problem, by Newton's method in float64.

    Args:
        off_diagonal: Penalty of the weights off the diagonal (the paper's lambda), at least 0. None: chosen.
        intercept: Penalty of the intercepts (the paper's mu), at least 0. None: chosen.
        num_folds: Folds of the cross-validation that chooses, at least 2.

    Raises:
        InputError: For a negative penalty or a ``num_folds`` below 2.

    Note:
        Penalties that are not given are chosen from a small grid by the negative log-likelihood of held-out folds:
        first how far the diagonal may differ from temperature scaling (as in :class:`VectorScaling`), then
        ``off_diagonal``, then ``intercept``, each from strong to weak until the gain falls below 1e-5 nats a sample.
        The paper searches two penalties at once, and leaves the diagonal free. If the gain over temperature scaling is
        not above its standard error on held-out samples, this is temperature scaling. The folds depend on the samples
        themselves, so neither their order nor a seed matters, and samples with equal logits are in one fold.

        Test NLL above that of temperature scaling, mean (worst) of 10 draws (``benchmarks/calibrators.py``), where
        temperature scaling is all that is needed (a negative number would be a gain). Without the prior and the
        comparison, Dirichlet calibration of 97 and 3 samples was worse by 0.122 (0.685):

        ======================  ==============  ==============  ==============
        samples of the classes  vector          matrix          Dirichlet
        ======================  ==============  ==============  ==============
        49, 1                   0.000 (0.000)   0.000 (0.000)   0.000 (0.000)
        97, 3                   0.001 (0.008)   0.002 (0.015)   0.002 (0.015)
        190, 10                 0.000 (0.000)   0.000 (0.000)   0.000 (0.000)
        40, 20, 13, ... 2, 1    0.000 (0.000)   0.000 (0.000)   0.001 (0.010)
        ten times 10            0.000 (0.000)   0.001 (0.008)   0.008 (0.070)
        ======================  ==============  ==============  ==============

        With ``off_diagonal=0, intercept=0`` it is the matrix scaling of Guo et al. 2017, which over-fits. Even then a
        prior with the weight of one observation keeps the parameters finite.

        Not invariant to adding one number to all logits of a row; :class:`DirichletCalibration` is. The predicted class
        can change. A pass over the data takes ``N C^2`` operations, and a fit with its search hundreds of passes: with
        5,000 samples seconds for 10 classes and half a minute for 100. Give both penalties where there are many more.

        Warns (:class:`CalibrationWarning`) when this is temperature scaling, when cross-validation chose the weakest
        penalty of its grid, when a diagonal is negative or over ten times that of temperature scaling, when only the
        prior keeps the parameters finite, when a class has no sample, when the fit changes nothing or did not converge.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(5000, 3, generator=random, dtype=torch.float64) * 2
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
        >>> mixed = logits.clone()
        >>> mixed[:, 0] += 0.5 * logits[:, 1]  # one class's logit leaks into another's
        >>> matrix = MatrixScaling(off_diagonal=0.1, intercept=0.1).fit(Predictions(mixed, target))
        >>> first_against_last = matrix.weight[0] - matrix.weight[2]
        >>> bool((first_against_last - torch.tensor([1.0, -0.5, -1.0])).abs().max() < 0.1)  # and is taken out again
        True

    Source:
        Kull et al. 2019 (ODIR, and matrix scaling with it); the map: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """

    map_type = PenalizedMap


@CALIBRATORS.register(
    "dirichlet",
    paper="Beyond Temperature Scaling: Obtaining Well-Calibrated Multiclass Probabilities with Dirichlet Calibration",
    year=2019,
    url="https://arxiv.org/abs/1910.12656",
)
class DirichletCalibration(RegularizedMatrix):
    """Dirichlet calibration: an affine map of log-probabilities, ``W log softmax(z) + b``, with ODIR penalties.

    If the probabilities of each class are Dirichlet distributed, this is the calibrated map; for two classes it is beta
    calibration. ``W`` and ``b`` minimize the objective of :class:`MatrixScaling`, here of ``x = log softmax(z)``.

    Args:
        off_diagonal: Penalty of the weights off the diagonal (the paper's lambda), at least 0. None: chosen.
        intercept: Penalty of the intercepts (the paper's mu), at least 0. None: chosen.
        num_folds: Folds of the cross-validation that chooses, at least 2.

    Raises:
        InputError: For a negative penalty or a ``num_folds`` below 2.

    Note:
        Choice of the penalties, warnings and cost are those of :class:`MatrixScaling`. Log-probabilities come from the
        logits, so none is clipped. The predicted class can change.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> shifted = Predictions(val.logits + 7, val.target)
        >>> dirichlet = DirichletCalibration(off_diagonal=1.0, intercept=1.0).fit(val)
        >>> bool(abs(dirichlet.transform(val).probs - dirichlet.transform(shifted).probs).max() < 1e-6)
        True

    Source:
        Kull et al. 2019 (linear parametrization, and ODIR).
    """

    map_type = PenalizedLogMap

    def _inputs(self, logits: Tensor) -> Tensor:
        return logits.double().log_softmax(dim=1)
