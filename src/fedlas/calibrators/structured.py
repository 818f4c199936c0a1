"""Structured matrix and vector scaling, fitted by the package probmetrics."""

from __future__ import annotations

import math
import warnings
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.extras import require
from fedlas.calibrators._affine import read_map
from fedlas.calibrators._fit.affine_map import AffineMap
from fedlas.calibrators._fit.doubts import CHECK, when
from fedlas.calibrators._fit.folds import canonical_order
from fedlas.calibrators._fit.rowwise import double_rows, total_nll
from fedlas.calibrators.base import CALIBRATORS, MappedCalibrator
from fedlas.predictions import Predictions

__all__ = ["StructuredMap", "StructuredScaling"]

Form = Literal["matrix", "vector"]
_CLASSES = {"matrix": "SMSCalibrator", "vector": "SVSCalibrator"}  # of probmetrics

_MATRIX_SAMPLES = 50
"""Validation samples a class from which the matrix is chosen. On the 20 published vision cells of CalArena (2605.30188)
its NLL is below that of the vector in 17 of the 19 with 50 or more, and above it in the one with 14."""
_MATRIX_CLASSES = 200
"""Most classes of the matrix, whose ``C^2`` numbers take minutes beyond; no cell published had more."""

# probmetrics takes probabilities, and replaces those below the smallest normal float32 by it.
_LEAST_LOG = math.log(torch.finfo(torch.float32).tiny)

# Its search for the logarithm of the temperature ends at plus and minus this.
_WIDEST = 16


class StructuredMap(nn.Module):
    """Temperature scaling, a little uniform probability, and an affine map of the logarithm.

    Attributes:
        temperature: Above 0.
        num_samples: ``N`` of the validation set; the uniform part has the weight ``1 / (N + 1)``.
        affine: The map of the log-probabilities.
    """

    def __init__(self, temperature: float, num_samples: int, affine: AffineMap) -> None:
        super().__init__()
        self.temperature, self.num_samples, self.affine = temperature, num_samples, affine

    def forward(self, rows: Tensor) -> Tensor:
        """Calibrated logits of logits ``(n, C)``."""
        probs = (rows.log_softmax(dim=1).clamp(min=_LEAST_LOG) / self.temperature).softmax(dim=1)
        uniform = 1 / (self.num_samples + 1)
        calibrated: Tensor = self.affine(torch.log((1 - uniform) * probs + uniform / len(self.affine.bias)))
        return calibrated


@CALIBRATORS.register(
    "structured",
    title="Structured",
    paper="Structured Matrix Scaling for Multi-Class Calibration",
    year=2025,
    url="https://arxiv.org/abs/2511.03685",
    packages=("probmetrics", "numba"),
)
class StructuredScaling(MappedCalibrator[StructuredMap]):
    """An affine map of temperature-scaled log-probabilities with structured penalties, fitted by ``probmetrics``.

    ``softmax(W x + b)`` with ``x = log((1 - u) softmax(z / T) + u / C)``, ``u = 1 / (N + 1)``. ``T`` comes first, from
    temperature scaling; then ``W`` and ``b`` minimize ``NLL + C/N sum_k (W_kk - 1)^2 + C (C - 1)/N sum_{j != k} W_jk^2
    + C/N sum_k b_k^2``. These penalties are fixed in advance, without a search.

    Args:
        form: ``"matrix"`` (structured matrix scaling, SMS) or ``"vector"`` (structured vector scaling, SVS: ``W`` is
            diagonal). None: the matrix for at least 50 validation samples a class and at most 200 classes, else the
            vector.

    Raises:
        InputError: For another form.
        MissingExtraError: On ``fit``, if ``probmetrics`` is not installed (``pip install 'fedlas[posthoc]'``).

    Note:
        The samples are sorted first, since the last digits of the fit, in float32, depend on their order. With one
        class there is nothing to fit, and probmetrics is not called. The fitted numbers are stored, so loading and
        transforming need no probmetrics. Log-probabilities below -87.3 are raised to that, as in probmetrics.

        The predicted class can change. Warns (:class:`CalibrationWarning`) when ``T`` ends at a bound of probmetrics'
        search, when the negative log-likelihood on validation data is not below what it was, when a class has no
        sample, and when the fit changes nothing.

    Example:
        >>> StructuredScaling(form="vector")  # .fit(val).transform(test), like any other
        StructuredScaling(form='vector')

    Source:
        Berta, Holzmüller, Jordan and Bach 2025; probmetrics (Apache-2.0), https://github.com/probkit/probmetrics.
    """

    keeps_argmax = False

    def __init__(self, form: Form | None = None) -> None:
        self.form = None if form is None else check_choice("StructuredScaling", "form", form, get_args(Form))

    @property
    def map(self) -> StructuredMap:
        """The fitted map.

        Raises:
            InputError: Before ``fit``.
        """
        return self._fitted("map")

    def _fitted_map(self, val: Predictions) -> tuple[StructuredMap, list[str | None]]:
        form = self.form or chosen_form(val.num_samples, val.num_classes)
        new = _fitted_by_probmetrics(val, form) if val.num_classes > 1 else _identity(form)
        data = val.logits, val.target
        worse = val.num_classes > 1 and total_nll(*data, new) >= total_nll(*data, lambda rows: rows)
        bound = f"temperature scaling in probmetrics ended at a bound, {new.temperature:.3g}. {CHECK}"
        advice = "Choose temperature scaling, or use a larger validation set."
        return new, [
            when(abs(math.log(new.temperature)) > _WIDEST - 0.1, bound),
            when(worse, f"the validation NLL is not below what it was. {advice}"),
        ]

    def _state(self) -> dict[str, Any]:
        return {
            "temperature": self.map.temperature,
            "num_samples": self.map.num_samples,
            "weight": self.map.affine.weight.tolist(),
            "bias": self.map.affine.bias.tolist(),
            "chosen": "matrix" if self.map.affine.weight.ndim == 2 else "vector",
        }

    def _restore(self, state: dict[str, Any]) -> None:
        form = self.form or check_choice(self._owner, "chosen", state["chosen"], get_args(Form))
        shape = (self.num_classes,) * (2 if form == "matrix" else 1)
        self._map = StructuredMap(
            check_number(self._owner, "temperature", state["temperature"], low=0.0, low_open=True),
            check_count(self._owner, "num_samples", state["num_samples"]),
            read_map(state, *shape),
        )


def chosen_form(samples: int, classes: int) -> Form:
    """The form for so many validation samples and classes.

    Example:
        >>> chosen_form(5000, 10), chosen_form(2897, 200), chosen_form(50_000, 1000)
        ('matrix', 'vector', 'vector')
    """
    return "matrix" if classes <= _MATRIX_CLASSES and samples >= _MATRIX_SAMPLES * classes else "vector"


def _fitted_by_probmetrics(val: Predictions, form: str) -> StructuredMap:
    # One order of the samples, since the fit in float32 depends on it in the last digits.
    package = _probmetrics()
    order = canonical_order(val.logits, val.target)
    logits, target = val.logits.cpu()[order], val.target.cpu()[order]
    probs = torch.cat([rows.softmax(dim=1) for _, rows in double_rows(logits)])
    with torch.enable_grad(), torch.device("cpu"):
        done = getattr(package, _CLASSES[form])(opt="bfgs").fit(probs.numpy(), target.numpy())
    try:
        scaling = done.ts_
        temperature, samples = 1 / float(scaling.cal_.invtemp_), int(scaling.n_samples_)
        parts = (done.W_[:, :-1], done.W_[:, -1]) if form == "matrix" else (done.v_, done.b_)
    except AttributeError as error:
        raise InputError(
            "StructuredScaling.fit",
            "probmetrics must keep what it fitted where version 1.3 does",
            f"another version ({error})",
            "Install version 1.3.",
        ) from error
    weight, bias = (torch.tensor(np.ascontiguousarray(part), dtype=torch.float64, device="cpu") for part in parts)
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise InputError(
            "StructuredScaling.fit",
            "the fit of probmetrics must end with finite numbers",
            "NaN or infinite ones",
            "Check the logits for extreme values, or choose temperature scaling.",
        )
    return StructuredMap(temperature, samples, AffineMap(weight, bias))


def _identity(form: str) -> StructuredMap:
    """A map for a single class, whose probability is 1 under every map."""
    weight = torch.ones((1, 1) if form == "matrix" else (1,), dtype=torch.float64, device="cpu")
    return StructuredMap(1.0, 1, AffineMap(weight, weight.new_zeros(1)))


def _probmetrics() -> ModuleType:
    """The package, after numba, which version 1.3 imports without requiring it."""
    require("numba", extra="posthoc")
    with warnings.catch_warnings():
        # A dependency of probmetrics compiles a function with torch.jit when it is imported.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        return require("probmetrics.calibrators", extra="posthoc")
