"""Calibration under label shift: class frequencies that differ from those of the validation data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import (
    CalibrationWarning,
    InputError,
    as_float_array,
    check_choice,
    describe,
    warn_user,
)
from fedlas.calibrators._fit.buffers import float64_tensor, zeros
from fedlas.calibrators._fit.fit_warnings import (
    absent_classes_warning,
    attach_warnings,
    convergence_warning,
    warning_if,
)
from fedlas.calibrators._fit.minimize import fit_mixture_weights
from fedlas.calibrators._fit.rowwise import (
    floor_log_probs,
    iter_float64_rows,
    normalize_weights,
    sample_weights,
)
from fedlas.calibrators._fit.softmax_regression import AffineMap, fit_bias_corrected_temperature
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.affine import temperature_start
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["LabelShift"]

_MIN_SHARE = 1e-12
"""Smallest class share, so that its logarithm is finite."""

Base = Literal["bias-corrected", "temperature", "none"]


class Shifted(AffineMap):
    """An affine map of logits, plus the log ratio of target to source class frequencies.

    Attributes:
        source: Shares of the classes where it was fitted ``(C,)``.
        target: Shares where it is used ``(C,)``.
    """

    source: Tensor
    target: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, source: Tensor, target: Tensor) -> None:
        super().__init__(weight, bias)
        self.register_buffer("source", source)
        self.register_buffer("target", target)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        return super().forward(rows) + (self.target.log() - self.source.log())

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or class frequencies that are not above 0."""
        super().check(classes)
        for share in (self.source, self.target):
            fits = share.shape == (classes,) and bool((share > 0).all())
            require_valid(fits, "source and target must hold a share above 0 for each class")


@CALIBRATORS.register(
    "label-shift",
    paper="Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple Procedure",
    year=2002,
    url="https://doi.org/10.1162/089976602753284446",
)
class LabelShift(Calibrator):
    """Label shift correction: multiplies class probabilities by target over source frequency, ``q_k / s_k``.

    The shares ``s`` belong to the validation predictions of the fit. The shares ``q`` are known (``prior``), or
    :meth:`adapt` estimates them from unlabeled predictions. Before that, ``q = s``. The probabilities must be
    calibrated for this: the ``base`` does it, and then ``log(q_k / s_k)`` is added to the logits.

    Args:
        prior: ``q (C,)``, above 0 and summing to 1; None: as in validation, until :meth:`adapt`.
        base: ``"bias-corrected"``: temperature scaling with an offset for each class, ``a z + b``. ``"temperature"``,
            or ``"none"`` for a model that is calibrated.

    Attributes:
        source_prior: ``s (C,)``, the mean calibrated probabilities of the validation samples.
        target_prior: ``q (C,)``.

    Raises:
        InputError: For a prior that is none, or another base.

    Note:
        Assumes label shift: the classes have other shares, and samples of one class look as they did, ``p(x | y)``
        unchanged. Where inputs change in another way, as images under corruption do, the estimate is wrong, and nothing
        here notices.

        EM stops when the log-likelihood is proven to be within 0.01 nats of its maximum, and warns
        (:class:`CalibrationWarning`) if 10,000 steps do not suffice. Shares are kept above 1e-12. The mean
        probabilities stand for the source shares, since EM then leaves the shares of the source alone, whatever the
        base.

        Calibrating first decides. On the predictions of a published ResNet-20 for CIFAR-10 with drawn shares
        (``results/label-shift.md``) the NLL after EM was 0.068 with the base, and 0.221 without;
        ``"temperature"`` was as good there. Offsets matter where the model is off for some classes.

        The predicted class can change. Warns also when a class has no validation sample, when few mistakes hold the
        temperature (there are then no offsets), and when the fit changes nothing. Memory of :meth:`adapt`: two float64
        arrays of the size of the logits.

    Example:
        >>> val = Predictions([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, -1.0], [0.0, -1.0], [0.0, -1.0]],
        ...     [1, 1, 0, 0, 0, 1])
        >>> rare = LabelShift(prior=[0.9, 0.1]).fit(val)
        >>> [round(float(p), 3) for p in rare.transform(val).probs[[0, 3], 1]]  # 2 of 3 and 1 of 3, times 0.1 / 0.9
        [0.182, 0.053]

    Source:
        Saerens, Latinne, Decaestecker, Neural Computation 14 (2002), equations 2.4 and 2.9; Alexandari, Kundaje,
        Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation" (ICML
        2020), https://arxiv.org/abs/1901.06852, for the base and the source shares.
    """

    map_type = Shifted

    def __init__(self, prior: Sequence[float] | None = None, base: Base = "bias-corrected") -> None:
        self.prior = None if prior is None else _normalize_prior(prior)
        self.base = check_choice("base", base, get_args(Base))

    @property
    def source_prior(self) -> Tensor:
        """Class frequencies of the validation data, ``s (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        source: Tensor = self.map.source
        return source

    @property
    def target_prior(self) -> Tensor:
        """Class frequencies where the model is used, ``q (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        target: Tensor = self.map.target
        return target

    def adapt(self, unlabeled: Predictions | Tensor | NDArray[Any]) -> Self:
        """Estimate the target class frequencies from unlabeled samples by EM, and return ``self``.

        Args:
            unlabeled: Logits ``(N, C)`` of samples from there, or predictions, whose labels are not used; weights count
                as in :meth:`fit`. They may be those that are transformed afterward.

        Raises:
            InputError: Before ``fit``, if the prior was given, or if the logits do not fit.
        """
        base = AffineMap(self.map.weight, self.map.bias)
        source = self.source_prior
        if self.prior is not None:
            raise InputError(
                "prior must be None, since adapt estimates it",
                f"prior={self.prior}",
                "Use LabelShift() without a prior.",
            )
        samples = unlabeled if isinstance(unlabeled, Predictions) else Predictions(unlabeled)
        if samples.num_classes != len(source) or not samples.num_samples:
            raise InputError(
                f"logits must have shape (N, {len(source)}) as in the fit, with at least one row",
                samples.logits.shape,
                "Pass logits of the same model.",
            )
        samples = normalize_weights(samples)
        ratio = (
            _calibrated_probs(floor_log_probs(samples, self.least_log).tensors().logits, base)
            / source
        )
        shares, converged = fit_mixture_weights(
            ratio, sample_weights(samples), start=source / source.sum()
        )
        shares = shares.clamp(min=_MIN_SHARE)
        self._map = Shifted(base.weight, base.bias, source, shares / shares.sum())
        if not converged:
            text = "EM did not converge, so the class shares are uncertain. Check that the logits separate the classes."
            warn_user(f"LabelShift: {text}", CalibrationWarning)
        return self

    def _fit_warnings(self, val: Predictions) -> list[str | None]:
        # Before adapt the map changes nothing by design: no warning about that.
        if self.base == "none" and self.prior is None:
            return [absent_classes_warning(val)]
        return super()._fit_warnings(val)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Shifted:
        """Fit the base calibrator and the source class frequencies to ``val``."""
        if self.prior is not None and len(self.prior) != val.num_classes:
            raise InputError(
                f"prior must have one share for each of the {val.num_classes} classes",
                f"{len(self.prior)} shares",
                "Pass the shares in the order of the classes.",
            )
        base, messages = self._fit_base(val)
        weights = sample_weights(val)
        source = weights @ _calibrated_probs(val.tensors().logits, base) / weights.sum()
        # A class that is never likely keeps a share that can be divided by.
        source = source.clamp(min=torch.finfo(torch.float64).tiny)
        target = source if self.prior is None else float64_tensor(self.prior)
        return attach_warnings(Shifted(base.weight, base.bias, source, target), *messages)

    def _fit_base(self, val: Predictions) -> tuple[AffineMap, list[str | None]]:
        """Fit the base calibrator; return its map and the warnings."""
        zero = zeros(val.num_classes)
        if self.base == "none":
            return AffineMap(zero + 1, zero), []
        start = temperature_start(val)
        # Where few mistakes hold the temperature, they would not hold the offsets.
        if self.base == "temperature" or start.warning is not None or val.num_classes == 1:
            return AffineMap(zero + start.scale, zero), [start.warning]
        affine = fit_bias_corrected_temperature(
            val.tensors().logits,
            val.tensors().target,
            val.tensors().weights,
            scale=start.scale,
            width=start.width,
        )
        reversed_ = "the fitted factor is not above 0, so a higher logit means a lower probability. Check the labels."
        return affine, [
            convergence_warning(affine.converged),
            warning_if(float(affine.weight[0]) <= 0, reversed_),
        ]


def _calibrated_probs(logits: Tensor, base: AffineMap) -> Tensor:
    """Return calibrated probabilities ``(N, C)``, float64 on the CPU."""
    return torch.cat([base(rows).softmax(dim=1) for _, rows in iter_float64_rows(logits)])


def _normalize_prior(prior: object) -> list[float]:
    """Return the prior scaled to sum to 1; raise InputError if it is not a distribution."""
    shares = as_float_array(prior)
    good = shares.ndim == 1 and len(shares) > 0 and bool((np.isfinite(shares) & (shares > 0)).all())
    if not good or abs(float(shares.sum()) - 1) > 1e-3:
        raise InputError(
            "prior must be the class shares, each above 0, with a sum of 1 within 0.001",
            describe(prior),
            "Pass one share per class, such as [0.98, 0.02], and a tiny share for a class that cannot occur.",
        )
    return [float(share) for share in shares / math.fsum(shares)]
