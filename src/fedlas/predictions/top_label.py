"""Top-label predictions: confidence and correctness of the predicted class, without the other probabilities."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedlas._core.check import InputError, check_finite, describe
from fedlas.predictions.arguments import (
    Array,
    OptionalArray,
    as_read_only,
    check_row_index,
    to_floats,
    to_numbers,
)
from fedlas.predictions.sample_values import check_sample_values
from fedlas.predictions.saved import read_fields, write_fields

if TYPE_CHECKING:
    import torch

    from fedlas.predictions.covariates import Covariates
    from fedlas.predictions.tensors import PredictionTensors

_ROUNDING = 1e-3
"""Largest distance of a rounded confidence from [0, 1]; it is moved to the nearer end."""


@dataclass(frozen=True, eq=False, repr=False)
class TopLabel:
    """Confidence and correctness of each prediction, where the probabilities of other classes are unknown.

    Wherever only the top label matters it stands in for :class:`~fedlas.Predictions`: in :func:`~fedlas.evaluate`,
    :func:`~fedlas.estimates`, :func:`~fedlas.compare`, :func:`~fedlas.report`, calibrators, reliability diagrams and
    tables by group. Made of the ``confidence`` and ``correct`` of predictions it gives their numbers within 1e-12.

    Args:
        confidence: Probability of the predicted class ``(N,)``, in ``[0, 1]``; a tensor, or anything NumPy makes an
            array of. Half precision and integers become float32.
        correct: Whether the predicted class is the label ``(N,)``: bool, or numbers 0 and 1.
        weights: Optional weight of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.
        features: Optional side information of each sample ``(N, D)``, such as the input of the classifier head.
        clusters: Optional cluster of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.
        time: Optional time of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.
        covariates: What each column of ``features`` holds, as in :class:`~fedlas.Predictions`.

    Raises:
        InputError: For wrong shapes or dtypes, NaN, confidences outside ``[0, 1]``, outcomes other than 0 and 1, or no
            samples at all.

    Note:
        Immutable: the arrays are read-only views. What needs the probabilities of all classes (NLL, Brier score,
        classwise errors) raises an InputError that says so.

    Example:
        >>> import fedlas
        >>> top = TopLabel([0.9, 0.8, 0.6], [True, False, True])
        >>> round(fedlas.evaluate(top)["ece"], 3)
        0.433
        >>> import numpy as np
        >>> predicted, target = np.array(["cat", "dog"]), np.array(["cat", "cat"])
        >>> TopLabel([0.9, 0.8], predicted == target).correct.tolist()
        [True, False]
    """

    confidence: Array = Array()  # noqa: RUF009 (a descriptor holds nothing itself)
    correct: Array = Array()  # noqa: RUF009
    weights: OptionalArray = OptionalArray()  # noqa: RUF009
    features: OptionalArray = OptionalArray()  # noqa: RUF009
    clusters: OptionalArray = OptionalArray()  # noqa: RUF009
    covariates: Covariates | None = None
    time: OptionalArray = OptionalArray()  # noqa: RUF009

    def __post_init__(self) -> None:
        values = vars(self)
        confidence = _to_vector("confidence", self.confidence)
        correct = _to_vector("correct", self.correct)
        if len(confidence) != len(correct):
            raise InputError(
                "confidence and correct must have equal length",
                f"{len(confidence)} and {len(correct)}",
                "Pass one value of each per sample.",
            )
        # Confidences, where rounding may exceed [0, 1] a little.
        confidence = to_floats(confidence)
        check_finite("confidence", confidence)
        low, high = float(confidence.min()), float(confidence.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            percent = low >= 0 and high <= 100
            fix = "Pass the probability of the predicted class: probs.max(1)."
            fix = "These look like percentages: divide by 100." if percent else fix
            raise InputError(
                "confidence must be in [0, 1]", f"values from {low:.6g} to {high:.6g}", fix
            )
        # Outcomes.
        if not bool(((correct == 0) | (correct == 1)).all()):
            raise InputError(
                "correct must be bool, or hold only 0 and 1",
                f"values from {float(correct.min()):.6g} to {float(correct.max()):.6g}",
                "These look like class indices: pass predicted == target.",
            )
        if low < 0 or high > 1:
            confidence = confidence.clip(0.0, 1.0)
        values.update(confidence=as_read_only(confidence), correct=as_read_only(correct == 1))
        check_sample_values(values, len(confidence))
        if self.covariates is not None:
            from fedlas.predictions.covariates import check_covariates

            check_covariates(self.covariates, values["features"])

    @property
    def num_samples(self) -> int:
        """Number of samples ``N``."""
        return len(self.confidence)

    def tensors(self, device: torch.device | str | None = None) -> PredictionTensors:
        """Return the arrays as tensors under the same names, on ``device`` (None: the CPU)."""
        from fedlas.predictions.tensors import PredictionTensors

        return PredictionTensors(self, device)

    def rows(self, index: object) -> TopLabel:
        """Return the samples at row indices ``(n,)`` or in a mask ``(N,)``.

        Raises:
            InputError: If it is neither.
        """
        rows = check_row_index(index, self.num_samples)
        values = self._field_values()
        values |= {name: values[name][rows] for name in _ARRAYS if name in values}
        return TopLabel(**values)

    def save(self, path: str | Path) -> Path:
        """Write the fields to ``path`` (``.npz``) atomically and return ``path``.

        Raises:
            InputError: If another file than one of a ``TopLabel`` is there, or the folder cannot be written to.
        """
        return write_fields(path, self._field_values(), _FIELDS, "a file of a TopLabel")

    @classmethod
    def load(cls, path: str | Path) -> TopLabel:
        """Return the TopLabel in a file of :meth:`save`, or in any ``.npz`` with ``confidence`` and ``correct``.

        Raises:
            InputError: If the file is missing, is not an ``.npz``, is truncated, or lacks one of them.
        """
        fix = "Save it with numpy.savez(path, confidence=..., correct=...)."
        return cls(**read_fields(path, _FIELDS, ("confidence", "correct"), fix))

    def _field_values(self) -> dict[str, Any]:
        """Return the fields that are set, by name."""
        return {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}

    def __repr__(self) -> str:
        names = [name for name in _ARRAYS[2:] if getattr(self, name) is not None]
        others = f" with {', '.join(names)}" if names else ""
        return f"TopLabel({self.num_samples} samples{others})"


def needs_all_classes_error(subject: str = "it") -> InputError:
    """Return the InputError for a TopLabel where all class probabilities are needed; ``subject`` is the subject."""
    return InputError(
        f"{subject} needs the probabilities of all classes",
        "a TopLabel, which has only the probability of the predicted class",
        "Pass Predictions(logits, target), or use a measure of the top label, such as accuracy, ece or aurc.",
    )


def _to_vector(name: str, value: object) -> NDArray[Any]:
    """Return a vector ``(N,)`` of real numbers or truth values."""
    vector = to_numbers(name, value, "Pass numbers; for labels pass correct=(predicted == target).")
    if vector.ndim != 1 or not len(vector) or vector.dtype.kind == "c":
        raise InputError(
            f"{name} must have shape (N,) with at least one sample",
            describe(vector),
            "Pass one number per sample, such as probs.max(1) instead of probs.",
        )
    return vector


_FIELDS = tuple(field.name for field in fields(TopLabel))
_ARRAYS = tuple(name for name in _FIELDS if name != "covariates")
