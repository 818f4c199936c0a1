"""Affine maps in front of the softmax: their base class, and vector scaling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas._core.check import check_count, check_number
from fedlas.calibrators._fit.buffers import zeros
from fedlas.calibrators._fit.fit_warnings import (
    attach_warnings,
    convergence_warning,
    format_classes,
    warning_if,
)
from fedlas.calibrators._fit.folds import make_folds
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.calibrators._fit.softmax_regression import (
    FREEDOMS,
    AffineMap,
    DiagonalMap,
    Penalties,
    SoftmaxRegression,
)
from fedlas.calibrators._fit.temperature_search import nll_temperature, subset_temperatures
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.resample.clusters import mean_and_standard_error

if TYPE_CHECKING:
    from fedlas.predictions import Predictions
    from fedlas.resample.folds import Folds

__all__ = ["VectorScaling"]

NO_GAIN = "held-out samples show no gain over temperature scaling, so temperature scaling is used instead."

# Most input elements for which the regressions of the folds are cached; each holds two arrays of that size.
_MAX_CACHED = 2**20
# Held-out losses need less precision than the final parameters.
_SEARCH_TOLERANCE = 1e-5
# A weaker penalty must lower the held-out NLL by this many nats per sample.
_MIN_GAIN = 1e-5


class HeldOutLoss:
    """Negative log-likelihood on held-out folds, as a function of the penalties.

    Args:
        inputs: ``x (N, C)`` on the CPU.
        target: ``(N,)``.
        folds: Which samples are left out in turn.
        weights: Weight of each sample ``(N,)``.
        make_regression: Makes the regression for given inputs, labels, weights and penalties.
        clusters: Cluster of each sample ``(N,)``; None if they are independent.

    State:
        Caches losses, and the last fit of each fold as the start of the next one; for small inputs the regressions too.
    """

    def __init__(
        self,
        inputs: Tensor,
        target: Tensor,
        *,
        folds: Folds,
        weights: Tensor,
        make_regression: Callable[[Tensor, Tensor, Tensor, Penalties], SoftmaxRegression],
        clusters: Tensor | None = None,
    ) -> None:
        self._inputs = inputs
        self._target = target
        self._weights = weights
        self._clusters = clusters
        self._problem = make_regression
        self._folds = folds
        self._last: list[AffineMap | None] = [None] * folds.count
        self._kept: list[SoftmaxRegression] = []
        self._losses: dict[Penalties, Tensor] = {}

    def losses(self, penalties: Penalties) -> Tensor:
        """Return the out-of-fold ``-log p_y`` of each sample ``(N,)``; 0 for samples that no fold holds out."""
        if penalties not in self._losses:
            losses = zeros(len(self._target))
            for fold in range(self._folds.count):
                test = self._folds.test(fold)
                problem = self._fold_regression(fold, penalties)
                self._last[fold] = affine = problem.solve(
                    self._last[fold], tolerance=_SEARCH_TOLERANCE
                )
                losses[test] = row_nll(self._inputs[test], self._target[test], affine)
            self._losses[penalties] = losses
        return self._losses[penalties]

    def _fold_regression(self, fold: int, penalties: Penalties) -> SoftmaxRegression:
        """Return the regression on the training samples of a fold, with the given penalties."""
        if fold < len(self._kept):
            self._kept[fold].set_penalties(penalties)
            return self._kept[fold]
        train = self._folds.train(fold)
        problem = self._problem(
            self._inputs[train], self._target[train], self._weights[train], penalties
        )
        if self._inputs.numel() <= _MAX_CACHED:
            self._kept.append(problem)
        return problem

    def select_penalties(self, candidates: Sequence[Penalties]) -> Penalties:
        """Return the last candidate that lowers the held-out loss; the search stops at the first one that does not."""
        best = candidates[0]
        lowest = float(self._weights @ self.losses(candidates[0]))
        for value in candidates[1:]:
            loss = float(self._weights @ self.losses(value))
            if loss > lowest - _MIN_GAIN * float(self._weights.sum()):
                break
            best = value
            lowest = loss
        return best

    def beats_temperature_scaling(self, scaled: AffineMap, penalties: Penalties) -> bool:
        """Return whether the held-out loss is below that of temperature scaling by over one standard error.

        The parameters of a flexible map follow a few samples of a rare class, and so does the held-out loss.
        """
        gain = row_nll(self._inputs, self._target, scaled) - self.losses(penalties)
        held_out = self._folds.held_out_mask
        clusters = None if self._clusters is None else self._clusters[held_out]
        mean, error = mean_and_standard_error(gain[held_out], self._weights[held_out], clusters)
        return mean > error


def row_nll(inputs: Tensor, target: Tensor, affine: AffineMap) -> Tensor:
    """Return ``-log softmax(W x + b)[y]`` of each row of ``inputs (N, C)``, float64."""
    parts = [
        cross_entropy(affine(rows), target[part], reduction="none")
        for part, rows in iter_float64_rows(inputs)
    ]
    return torch.cat(parts)


# A factor above this multiple of the factor of temperature scaling is extreme.
_MAX_FACTOR = 10.0


SEPARATED_LABELS = (
    "every validation label is predicted correctly, so the likelihood has no maximum and only a weak penalty bounds "
    "the parameters. Check that the validation set is large enough and not training data."
)


@dataclass(frozen=True)
class Start:
    """Temperature scaling of the inputs: start of the regression, and the baseline that it must beat.

    Attributes:
        scale: The inputs times this number are the predictions after temperature scaling.
        width: Unit of the changes that the regression makes to the scale: the scale itself or, if that makes
            predictions nearly uniform, one over the spread of the inputs.
        warning: Warning of temperature scaling, or None.
    """

    scale: float
    width: float
    warning: str | None = None

    def to_map(self, inputs: Tensor) -> AffineMap:
        """Return temperature scaling as an affine map of inputs ``(N, C)``, with a diagonal weight."""
        factors = torch.full((inputs.shape[1],), self.scale, dtype=torch.float64, device="cpu")
        return AffineMap(factors, torch.zeros_like(factors))


class AffineFit(NamedTuple):
    """Result of an affine regression.

    Attributes:
        affine: The fitted map; None: use temperature scaling instead.
        warning: Warning of the fit, or None.
        extra_buffers: Further constructor arguments of the calibrator's map.
    """

    affine: AffineMap | None
    warning: str | None = None
    extra_buffers: tuple[Any, ...] = ()


class AffineCalibrator(Calibrator):
    """Base of the affine calibrators; falls back to temperature scaling if held-out samples show no gain.

    A subclass writes ``_fit_regression``, and ``_inputs`` if the map takes anything but logits.
    """

    map_type: ClassVar[type[AffineMap]] = AffineMap
    enough = (100, 20)

    @property
    def weight(self) -> Tensor:
        """``W (C, C)``, or its diagonal ``(C,)``; float64.

        Raises:
            InputError: Before ``fit``.
        """
        weight: Tensor = self.map.weight
        return weight

    @property
    def bias(self) -> Tensor:
        """``b (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        bias: Tensor = self.map.bias
        return bias

    def _inputs(self, logits: Tensor) -> Tensor:
        """Return the inputs of the affine map for logits ``(n, C)``."""
        return logits

    @abstractmethod
    def _fit_regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        """Fit the regression of the labels of ``val`` on ``inputs``."""

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> AffineMap:
        """Fit the affine map to ``val``."""
        inputs = self._inputs(val.tensors().logits)
        scaled = temperature_start(val)
        fit = self._fit_regression(inputs, val, scaled)
        if fit.affine is None:
            scaling = scaled.to_map(inputs)
            weight = scaling.weight if self.map_type is DiagonalMap else scaling.weight.diag()
            row_map = self.map_type(weight, scaling.bias, *fit.extra_buffers)
            return attach_warnings(row_map, fit.warning, scaled.warning)
        count = torch.bincount(val.tensors().target, sample_weights(val), minlength=val.num_classes)
        return attach_warnings(
            self.map_type(fit.affine.weight, fit.affine.bias, *fit.extra_buffers),
            convergence_warning(fit.affine.converged),
            fit.warning,
            extreme_factors_warning(count, fit.affine.weight / scaled.width),
            self._separation_warning(val, fit.affine),
        )

    def _separation_warning(self, val: Predictions, affine: AffineMap) -> str | None:
        """Return a warning if all labels are predicted, so that the likelihood is unbounded; else None."""
        wrong_after = any(
            bool(
                (affine(self._inputs(rows)).argmax(dim=1) != val.tensors().target[part].cpu()).any()
            )
            for part, rows in iter_float64_rows(val.tensors().logits)
        )
        return warning_if(
            val.num_classes > 1 and (bool(val.tensors().correct.all()) or not wrong_after),
            SEPARATED_LABELS,
        )


class _StartTemperature(NamedTuple):
    """Temperature fitted to all samples, where the search for the temperatures of subsets starts."""

    temperature: float
    is_held: bool


def subset_starts(val: Predictions, subset_weights: Tensor) -> list[Start]:
    """Return the temperature scaling of each weighted subset of the samples; weights are ``(F, N)``."""
    best = nll_temperature(val)
    near = _StartTemperature(best.value, best.warning is not None)
    temperatures = subset_temperatures(val, subset_weights, near).tolist()
    return [Start(1 / value, max(1 / value, 1 / best.spread)) for value in temperatures]


def select_subset(val: Predictions, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, labels and weights of the samples whose weight ``(N,)`` is above 0."""
    inside = weights > 0
    return val.tensors().logits[inside], val.tensors().target[inside], weights[inside]


SUBSET_TOLERANCE = 1e-3
"""Tolerance of fits to subsets, which start from the map of all samples and are only used for held-out losses."""


def temperature_start(val: Predictions) -> Start:
    """Return temperature scaling of ``val`` as the start of a regression."""
    best = nll_temperature(val)
    scale = 1 / best.value
    return Start(scale, max(scale, 1 / best.spread), best.warning)


def extreme_factors_warning(class_counts: Tensor, relative_weight: Tensor) -> str | None:
    """Return a warning if the factor of a class is negative or extreme, or None.

    ``relative_weight`` is the weight divided by the factor of temperature scaling, ``(C, C)`` or its diagonal ``(C,)``.
    ``class_counts`` is the number of samples of each class; classes without a sample have their own warning.
    """
    factors = relative_weight if relative_weight.ndim == 1 else relative_weight.diagonal()
    extreme = (
        (((factors <= 0) | (factors > _MAX_FACTOR)) & (class_counts > 0))
        .nonzero()
        .squeeze(1)
        .tolist()
    )
    return warning_if(
        extreme and len(class_counts) > 1,
        f"the factor of the own logit is below 0 or above {_MAX_FACTOR:g} times the factor of temperature scaling for "
        f"{format_classes(extreme)}; with a factor below 0, a higher logit means a lower probability. Check that "
        "logits and labels match, and use a larger validation set or temperature scaling.",
    )


@CALIBRATORS.register(
    "vector",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class VectorScaling(AffineCalibrator):
    """Vector scaling: multiplies the logits of each class by its own factor and adds an offset, ``diag(w) z + b``.

    ``w (C,)`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by
    Newton's method in float64.

    Args:
        num_folds: Folds of the cross-validation that decides how far the parameters may differ from those of
            temperature scaling, at least 2. None: no cross-validation.
        freedom: The standard deviation of that difference, above 0, in units of the factor of temperature scaling; it
            takes the place of the cross-validation.

    Raises:
        InputError: For a ``num_folds`` below 2, or a freedom that is not above 0.

    Note:
        Not invariant to adding one number to all logits of a row, because ``w`` differs between classes: fit and
        transform must see the raw logits of the same model. The predicted class can change.

        The paper fits without a penalty, and the parameters of rare classes then follow a few samples. Here a Gaussian
        prior around temperature scaling holds them. Its width, 0.03 to 3 times the factor of temperature scaling, has
        the lowest negative log-likelihood of held-out folds. If the gain over temperature scaling is not above its
        standard error on held-out samples, this is temperature scaling. Samples with equal logits are in one fold.
        Without cross-validation the width is 10, which keeps the parameters finite where a class has no sample or the
        labels can be separated, and hardly matters elsewhere.

        Warns (:class:`CalibrationWarning`) when this is temperature scaling, when a factor is negative or over ten
        times that of temperature scaling, when only the prior keeps the parameters finite, when a class has no sample,
        when the fit changes nothing, and when it did not converge. Memory: one float64 array of the size of the logits.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]], [0, 0, 1, 1, 0])
        >>> scaled = VectorScaling(num_folds=None).fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]  # the observed shares: 2 of 3, and 1 of 2
        [0.67, 0.67, 0.67, 0.5, 0.5]

    Source:
        Guo et al. 2017, section 4.2 ("matrix and vector scaling").
    """

    map_type = DiagonalMap

    def __init__(self, num_folds: int | None = 5, *, freedom: float | None = None) -> None:
        self.num_folds = None if num_folds is None else check_count("num_folds", num_folds, low=2)
        self.freedom = (
            None if freedom is None else check_number("freedom", freedom, low=0, low_open=True)
        )

    def fit_subsets(self, val: Predictions, subset_weights: Tensor, start: Any) -> list[nn.Module]:
        """Return one map per weighted subset; with a given freedom, the fits start from the map of all samples."""
        if self.freedom is None:
            return super().fit_subsets(val, subset_weights, start)
        maps: list[nn.Module] = []
        for weights, near in zip(subset_weights, subset_starts(val, subset_weights), strict=True):
            problem = SoftmaxRegression(
                *select_subset(val, weights),
                Penalties(freedom=self.freedom),
                diagonal=True,
                scale=near.scale,
                width=near.width,
            )
            maps.append(problem.solve(start, tolerance=SUBSET_TOLERANCE))
        return maps

    def _fit_regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        make_regression = partial(
            SoftmaxRegression, diagonal=True, scale=start.scale, width=start.width
        )
        target = val.tensors().target
        weights = sample_weights(val)
        if self.freedom is not None:
            return AffineFit(
                make_regression(inputs, target, weights, Penalties(freedom=self.freedom)).solve()
            )
        if self.num_folds is None:
            return AffineFit(make_regression(inputs, target, weights, Penalties()).solve())
        folds = make_folds(val, self.num_folds, inputs, weights)
        if not folds.count:
            no_folds = "all samples are identical, so none can be held out; temperature scaling is used instead."
            return AffineFit(None, no_folds)
        score = HeldOutLoss(
            inputs,
            target,
            folds=folds,
            weights=weights,
            clusters=val.tensors().clusters,
            make_regression=make_regression,
        )
        best = score.select_penalties([Penalties(freedom=value) for value in FREEDOMS])
        if not score.beats_temperature_scaling(start.to_map(inputs), best):
            return AffineFit(None, NO_GAIN)
        return AffineFit(make_regression(inputs, target, weights, best).solve())
