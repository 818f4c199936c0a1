"""Affine maps in front of the softmax: their base, and vector scaling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas._core.check import check_count, check_number
from fedlas.calibrators._fit.doubts import some, unconverged, when, with_doubts
from fedlas.calibrators._fit.folds import folds_of
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.softmax_regression import (
    FREEDOMS,
    AffineMap,
    DiagonalMap,
    Penalties,
    SoftmaxRegression,
)
from fedlas.calibrators._fit.state import zeros
from fedlas.calibrators._fit.temperature_search import nll_temperature, temperatures_of_parts
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions
from fedlas.resample.clusters import mean_and_error
from fedlas.resample.folds import Folds

__all__ = ["VectorScaling"]

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
        folds: Which samples are left out in turn.
        weights: Weight of each sample ``(N,)``.
        problem: The regression on some inputs, labels and weights, with some penalties.
        clusters: Cluster of each sample ``(N,)``; None if they are independent.

    State:
        Caches losses, and the last fit of each fold as the start of the next; of few samples also the regressions.
    """

    def __init__(
        self,
        inputs: Tensor,
        target: Tensor,
        *,
        folds: Folds,
        weights: Tensor,
        problem: Callable[[Tensor, Tensor, Tensor, Penalties], SoftmaxRegression],
        clusters: Tensor | None = None,
    ) -> None:
        self._inputs = inputs
        self._target = target
        self._weights = weights
        self._clusters = clusters
        self._problem = problem
        self._folds = folds
        self._last: list[AffineMap | None] = [None] * folds.count
        self._kept: list[SoftmaxRegression] = []
        self._losses: dict[Penalties, Tensor] = {}

    def losses(self, penalties: Penalties) -> Tensor:
        """Return ``-log p_y`` of each sample ``(N,)`` from the fit without its fold; 0 if it is never left out."""
        if penalties not in self._losses:
            losses = zeros(len(self._target))
            for fold in range(self._folds.count):
                test = self._folds.test(fold)
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
        train = self._folds.train(fold)
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
        judged = self._folds.judged
        clusters = None if self._clusters is None else self._clusters[judged]
        mean, error = mean_and_error(gain[judged], self._weights[judged], clusters)
        return mean > error


def nll(inputs: Tensor, target: Tensor, affine: AffineMap) -> Tensor:
    """Return ``-log softmax(W x + b)[y]`` of each row of ``inputs (N, C)``, float64."""
    parts = [
        cross_entropy(affine(rows), target[part], reduction="none")
        for part, rows in double_rows(inputs)
    ]
    return torch.cat(parts)


# Factors that are more times larger than that of temperature scaling are extreme.
_EXTREME = 10.0


SEPARATED = (
    "every validation label can be predicted, so the likelihood has no maximum and only a weak penalty bounds the "
    "parameters. Check that the validation set is large enough and not training data."
)


@dataclass(frozen=True)
class Start:
    """Temperature scaling of the inputs, where the regression starts and what it must beat.

    Attributes:
        scale: The inputs times this number are the predictions after temperature scaling.
        width: The unit of what the regression may change of it: the scale or, if that makes predictions nearly uniform,
            one over the spread of the inputs.
        doubt: What temperature scaling warns about.
    """

    scale: float
    width: float
    doubt: str | None = None

    def as_map(self, like: Tensor) -> AffineMap:
        """Return the temperature scaling as an affine map of the inputs ``(N, C)``, with a diagonal for the weight."""
        factors = torch.full((like.shape[1],), self.scale, dtype=torch.float64, device="cpu")
        return AffineMap(factors, torch.zeros_like(factors))


class AffineFit(NamedTuple):
    """A regression.

    Attributes:
        affine: The map of the inputs; None if temperature scaling shall stand instead.
        doubt: Why that is, or what else to warn about.
        more: What else the map of the calibrator holds.
    """

    affine: AffineMap | None
    doubt: str | None = None
    more: tuple[Any, ...] = ()


class AffineCalibrator(Calibrator):
    """An affine map in front of the softmax; temperature scaling, unless held-out samples show that the map is better.

    A subclass writes ``_regression``, and ``_inputs`` if the map takes anything but logits.
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
        """Return the input of the map, from logits ``(n, C)``."""
        return logits

    @abstractmethod
    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        """Return the regression of the labels of ``val`` on ``inputs``."""

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> AffineMap:
        """Return the map of ``val``."""
        inputs = self._inputs(val.logits.cpu())
        scaled = temperature_start(val)
        fit = self._regression(inputs, val, scaled)
        if fit.affine is None:
            same = scaled.as_map(inputs)
            weight = same.weight if self.map_type is DiagonalMap else same.weight.diag()
            row_map = self.map_type(weight, same.bias, *fit.more)
            return with_doubts(row_map, fit.doubt, scaled.doubt)
        count = torch.bincount(val.target.cpu(), weights_of(val), minlength=val.num_classes)
        return with_doubts(
            self.map_type(fit.affine.weight, fit.affine.bias, *fit.more),
            unconverged(fit.affine.converged),
            fit.doubt,
            far_off(count, fit.affine.weight / scaled.width),
            self._separated(val, fit.affine),
        )

    def _separated(self, val: Predictions, affine: AffineMap) -> str | None:
        """Return a doubt if every label is predicted before or after the fit: the likelihood then rises without end."""
        wrong_after = any(
            bool((affine(self._inputs(rows)).argmax(dim=1) != val.target[part].cpu()).any())
            for part, rows in double_rows(val.logits)
        )
        return when(val.num_classes > 1 and (bool(val.correct.all()) or not wrong_after), SEPARATED)


class _Near(NamedTuple):
    """The temperature of all samples, near which those of parts lie."""

    temperature: float
    is_held: bool


def starts_of_parts(val: Predictions, parts: Tensor) -> list[Start]:
    """Return the temperature scaling of each part of the samples, whose weights are ``(F, N)``."""
    best = nll_temperature(val)
    near = _Near(best.value, best.doubt is not None)
    temperatures = temperatures_of_parts(val, parts, near).tolist()
    return [Start(1 / value, max(1 / value, 1 / best.spread)) for value in temperatures]


def part_of(val: Predictions, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, labels and weights of the samples with a weight above 0, ``weights (N,)``."""
    inside = weights > 0
    return val.logits.cpu()[inside], val.target.cpu()[inside], weights[inside]


PART_TOLERANCE = 1e-3
"""Held-out scores of parts, of a search from the map of all samples, need few digits."""


def temperature_start(val: Predictions) -> Start:
    """Return the temperature scaling of ``val`` as the start of a regression."""
    best = nll_temperature(val)
    scale = 1 / best.value
    return Start(scale, max(scale, 1 / best.spread), best.doubt)


def far_off(count: Tensor, relative: Tensor) -> str | None:
    """Return a doubt if factors of a class are negative or extreme.

    ``relative`` is the weight divided by that of temperature scaling, ``(C, C)`` or its diagonal ``(C,)``. A class
    without a sample (``count`` has those of each class) says nothing about its factor, and has a warning of its own.
    """
    factors = relative if relative.ndim == 1 else relative.diagonal()
    off = (((factors <= 0) | (factors > _EXTREME)) & (count > 0)).nonzero().squeeze(1).tolist()
    return when(
        off and len(count) > 1,
        f"the factor of a class's own logit is not between 0 and {_EXTREME:g} times that of temperature scaling for "
        f"{some(off)}: below 0, a higher logit means a lower probability. Check that logits and labels belong "
        "together, and use a larger validation set, or temperature scaling.",
    )


@CALIBRATORS.register(
    "vector",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
)
class VectorScaling(AffineCalibrator):
    """Multiplies the logits of each class by a factor of its own and adds an offset: ``diag(w) z + b``.

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

    def fit_parts(self, val: Predictions, parts: Tensor, start: Any) -> list[nn.Module]:
        """Return maps of parts of the samples, with a given freedom by searches from the map of all."""
        if self.freedom is None:
            return super().fit_parts(val, parts, start)
        maps: list[nn.Module] = []
        for weights, near in zip(parts, starts_of_parts(val, parts), strict=True):
            problem = SoftmaxRegression(
                *part_of(val, weights),
                Penalties(freedom=self.freedom),
                diagonal=True,
                scale=near.scale,
                width=near.width,
            )
            maps.append(problem.solve(start, tolerance=PART_TOLERANCE))
        return maps

    def _regression(self, inputs: Tensor, val: Predictions, start: Start) -> AffineFit:
        problem = partial(SoftmaxRegression, diagonal=True, scale=start.scale, width=start.width)
        target = val.target.cpu()
        weights = weights_of(val)
        if self.freedom is not None:
            return AffineFit(
                problem(inputs, target, weights, Penalties(freedom=self.freedom)).solve()
            )
        if self.num_folds is None:
            return AffineFit(problem(inputs, target, weights, Penalties()).solve())
        folds = folds_of(val, self.num_folds, inputs, weights)
        if not folds.count:
            equal = "all samples are copies of one, so nothing can be held out, and this is temperature scaling."
            return AffineFit(None, equal)
        score = HeldOutLoss(
            inputs, target, folds=folds, weights=weights, clusters=val.clusters, problem=problem
        )
        best = score.first_best([Penalties(freedom=value) for value in FREEDOMS])
        if not score.beats(start.as_map(inputs), best):
            return AffineFit(None, NO_GAIN)
        return AffineFit(problem(inputs, target, weights, best).solve())
