"""Affine maps in front of the softmax: their base, vector scaling, and bias-corrected temperature scaling."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedlas._core.check import check_count
from fedlas.calibrators._fit.doubts import some, unconverged, when, with_doubts
from fedlas.calibrators._fit.folds import stratified_folds
from fedlas.calibrators._fit.held_out import NO_GAIN, HeldOutLoss
from fedlas.calibrators._fit.parameters import read_numbers
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.softmax_regression import (
    FREEDOMS,
    AffineMap,
    Penalties,
    SoftmaxRegression,
    bias_corrected_temperature,
)
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.mapped import MappedCalibrator
from fedlas.predictions import Predictions

__all__ = ["BiasCorrectedTemperature", "VectorScaling"]

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


class AffineCalibrator(MappedCalibrator[AffineMap]):
    """An affine map in front of the softmax; temperature scaling, unless held-out samples show that the map is better.

    A subclass writes ``_regression``, and ``_inputs`` if the map takes anything but logits.
    """

    map_type = AffineMap
    _fewest_of_a_class = 20
    _diagonal: ClassVar[bool]
    """Whether the weight is a diagonal."""

    @property
    def weight(self) -> Tensor:
        """``W (C, C)``, or its diagonal ``(C,)``; float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted().weight

    @property
    def bias(self) -> Tensor:
        """``b (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted().bias

    def _inputs(self, logits: Tensor) -> Tensor:
        """Return the input of the map, from logits ``(n, C)``."""
        return logits

    @abstractmethod
    def _regression(
        self, inputs: Tensor, val: Predictions, start: Start
    ) -> tuple[AffineMap | None, str | None]:
        """Return the map of ``inputs`` fitted to the labels of ``val``, and what to warn about.

        No map, and why, if temperature scaling shall stand instead.
        """

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> AffineMap:
        """Return the map of ``val``."""
        inputs = self._inputs(val.logits.cpu())
        scaled = temperature_start(val)
        affine, doubt = self._regression(inputs, val, scaled)
        if affine is None:
            factors = scaled.as_map(inputs).weight
            weight = factors if self._diagonal else torch.diag(factors)
            return with_doubts(AffineMap(weight, torch.zeros_like(factors)), doubt, scaled.doubt)
        count = torch.bincount(val.target.cpu(), weights_of(val), minlength=val.num_classes)
        off = far_off(count, affine.weight / scaled.width)
        return with_doubts(
            affine, unconverged(affine.converged), doubt, off, self._separated(val, affine)
        )

    def _separated(self, val: Predictions, affine: AffineMap) -> str | None:
        """Return a doubt if every label is predicted before or after the fit: the likelihood then rises without end."""
        wrong_after = any(
            bool((affine(self._inputs(rows)).argmax(dim=1) != val.target[part].cpu()).any())
            for part, rows in double_rows(val.logits)
        )
        return when(val.num_classes > 1 and (bool(val.correct.all()) or not wrong_after), SEPARATED)

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if self._diagonal != (self.weight.ndim == 1):
            raise ValueError("weight must be a diagonal, or a matrix")


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


def read_map(state: dict[str, Any], *shape: int | None) -> AffineMap:
    """Return the map in a calibrator's file, ``weight`` of that shape; raises as ``read_numbers`` does."""
    return AffineMap(read_numbers(state, "weight", *shape), read_numbers(state, "bias", shape[0]))


@CALIBRATORS.register(
    "vector",
    title="Vector",
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

    Raises:
        InputError: For a ``num_folds`` below 2.

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

    _diagonal = True

    def __init__(self, num_folds: int | None = 5) -> None:
        self.num_folds = None if num_folds is None else check_count("num_folds", num_folds, low=2)

    def _regression(
        self, inputs: Tensor, val: Predictions, start: Start
    ) -> tuple[AffineMap | None, str | None]:
        problem = partial(SoftmaxRegression, diagonal=True, scale=start.scale, width=start.width)
        target = val.target.cpu()
        weights = weights_of(val)
        if self.num_folds is None:
            return problem(inputs, target, weights, Penalties()).solve(), None
        folds = stratified_folds(inputs, target, self.num_folds, weights)
        if int(folds.max()) == 0:
            return (
                None,
                "all samples are equal, so nothing can be held out, and this is temperature scaling.",
            )
        score = HeldOutLoss(inputs, target, folds=folds, weights=weights, problem=problem)
        best = score.first_best([Penalties(freedom=value) for value in FREEDOMS])
        if not score.beats(start.as_map(inputs), best):
            return None, NO_GAIN
        return problem(inputs, target, weights, best).solve(), None


@CALIBRATORS.register(
    "bcts",
    title="Bias-corrected temperature",
    paper="Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation",
    year=2020,
    url="https://arxiv.org/abs/1901.06852",
)
class BiasCorrectedTemperature(AffineCalibrator):
    """Divides all logits by one number and adds an offset for each class (BCTS): ``z / T + b``.

    ``T`` and ``b (C,)`` minimize the negative log-likelihood on validation predictions, a convex problem, by Newton's
    method in float64. With it the mean probability of each class is its share of the labels: what predictions of rare
    classes need, at ``C + 1`` parameters.

    Note:
        A ridge penalty of ``C / N`` on the offsets keeps a class without samples finite, as in structured scaling; the
        paper has none. The predicted class can change. Warns (:class:`CalibrationWarning`) as :class:`VectorScaling`.

    Example:
        >>> val = Predictions(60 * [[1.0, 0.0]] + 60 * [[0.0, 1.0]], (50 * [0] + 10 * [1]) + (30 * [0] + 30 * [1]))
        >>> calibrated = BiasCorrectedTemperature().fit(val).transform(val)
        >>> [round(float(p), 2) for p in calibrated.probs[[0, 60], 0]]  # the observed shares: 5 of 6, and 1 of 2
        [0.82, 0.49]

    Source:
        Alexandari, Kundaje and Shrikumar 2020 (ICML), section 3.
    """

    _fewest_of_a_class = 0
    _diagonal = True

    def _regression(
        self, inputs: Tensor, val: Predictions, start: Start
    ) -> tuple[AffineMap | None, str | None]:
        fit = bias_corrected_temperature(
            inputs,
            val.target,
            val.weights,
            scale=start.scale,
            width=start.width,
            prior=float(val.num_classes),
        )
        return fit, start.doubt
