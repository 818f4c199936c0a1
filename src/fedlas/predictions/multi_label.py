"""Predictions with several independent labels per sample, each with its own sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import (
    Argument,
    InputError,
    as_float_array,
    check_finite,
    describe,
    suggestion,
    truncated_list,
)
from fedlas._core.ops import Floats, sigmoid
from fedlas._core.types import FloatArray, IntArray
from fedlas.predictions.arguments import (
    as_read_only,
    check_row_index,
    check_scores,
    to_names,
    to_numbers,
)
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.probabilities import (
    FLOOR,
    NEAREST_TO_0,
    ROUNDING,
    SUM_TOLERANCE,
    binary_logits,
)
from fedlas.predictions.sample_values import SAMPLE_VALUES, check_sample_values
from fedlas.predictions.saved import load_arrays, write_fields

if TYPE_CHECKING:
    import torch

    from fedlas.predictions.tensors import PredictionTensors

UNKNOWN = -100
"""Target value of an unknown label."""


@dataclass(frozen=True, eq=False, repr=False)
class MultiLabel:
    """Logits and targets of multi-label samples: each sample may have several labels, or none.

    ``fedlas.report`` measures each label and their means, :func:`fedlas.binary.label_measures` returns the numbers.
    Other measures take :class:`~fedlas.Predictions` of two classes, absent and present: those of one label, or of all
    labels pooled.

    Args:
        logits: Scores before the sigmoid ``(N, L)``.
        target: 1 where a label is present, 0 where it is absent, -100, -1 or NaN where that is unknown ``(N, L)``; kept
            as int64 with -100. None if no label is known, as in production.
        names: Names of the labels; None numbers them from 0.
        features: Optional input of the classifier head ``(N, D)``.
        weights: Optional weight of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.
        clusters: Optional cluster of each sample ``(N,)``, as in :class:`~fedlas.Predictions`. Without, each sample is
            one where labels are pooled, since labels of one sample are not independent.
        time: Optional time of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.

    Raises:
        InputError: For wrong shapes, values or names.

    Example:
        >>> several = MultiLabel([[2.0, -1.0], [0.5, 1.0]], [[1, 0], [1, -100]], names=("cat", "dog"))
        >>> several.label("dog"), several.pooled().num_samples
        (Predictions(1 samples, 2 classes, with target and clusters), 3)
    """

    logits: Any
    target: Any = None
    names: Sequence[str] | None = None
    features: Any = None
    clusters: Any = None
    weights: Any = None
    time: Any = None

    def __post_init__(self) -> None:
        values = vars(self)
        logits = check_scores("logits", self.logits, columns="L", activation="sigmoid")
        target = (
            None
            if self.target is None
            else as_read_only(_check_label_matrix(self.target, logits.shape))
        )
        names = to_names(range(logits.shape[1]) if self.names is None else self.names)
        if len(names) != logits.shape[1] or len(set(names)) < len(names):
            raise InputError(
                f"names must hold {logits.shape[1]} different names",
                describe(self.names),
                "Pass one name per column of logits.",
            )
        values.update(logits=as_read_only(logits), target=target, names=names)
        check_sample_values(values, len(logits))

    def __repr__(self) -> str:
        return f"MultiLabel({self.num_samples} samples, {self.num_labels} labels)"

    @property
    def num_samples(self) -> int:
        """Number of samples ``N``."""
        return len(self.logits)

    @property
    def num_labels(self) -> int:
        """Number of labels ``L``."""
        return int(self.logits.shape[1])

    @property
    def has_target(self) -> bool:
        """Whether the target is known."""
        return self.target is not None

    @property
    def probs(self) -> Floats:
        """Probability of each label ``(N, L)``, the sigmoid of its logit."""
        return sigmoid(self.logits)

    @classmethod
    def from_probs(cls, probs: Any, target: Any = None, **others: Any) -> MultiLabel:
        """Return a MultiLabel from probabilities ``(N, L)``; the logits are their log-odds.

        Args:
            probs: Probability of each label ``(N, L)``; one of exactly 0 or 1 gets log-odds of -87 or 37, as one that
                rounding puts below 0 (by 1e-6) or above 1 (by 0.001).
            target: As in :class:`MultiLabel`.
            **others: Further arguments of :class:`MultiLabel`.

        Raises:
            InputError: If a number is not in ``[0, 1]``, or as :class:`MultiLabel`.

        Example:
            >>> MultiLabel.from_probs([[0.5, 0.9]], [[1, 0]]).logits.round(1).tolist()
            [[0.0, 2.2]]
        """
        values = to_numbers("probs", probs).astype(np.float64)
        check_finite("probs", values)
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if low < -ROUNDING or high > 1 + SUM_TOLERANCE:
            raise InputError(
                "probs must be in [0, 1]",
                f"values from {low:.6g} to {high:.6g}",
                "Pass logits to MultiLabel(logits, target); divide percentages by 100.",
            )
        return cls(to_log_odds(values.clip(0.0, 1.0)), target, **others)

    def tensors(self, device: torch.device | str | None = None) -> PredictionTensors:
        """Return the arrays as tensors under the same names, on ``device`` (None: the CPU)."""
        from fedlas.predictions.tensors import PredictionTensors

        return PredictionTensors(self, device)

    def rows(self, index: object) -> MultiLabel:
        """Return the samples at row indices ``(n,)`` or in a mask ``(N,)``.

        Raises:
            InputError: If it is neither.
        """
        rows = check_row_index(index, self.num_samples)
        values = {each: getattr(self, each) for each in ("target", *SAMPLE_VALUES)}
        return replace(
            self,
            logits=self.logits[rows],
            **{name: value[rows] for name, value in values.items() if value is not None},
        )

    def without_target(self) -> MultiLabel:
        """Return the same samples without the target."""
        return replace(self, target=None)

    def label(self, name: str | int) -> Predictions:
        """Return the two-class predictions (absent, present) of one label, given by name or index.

        Raises:
            InputError: If there is no such label, or none of its targets is known.
        """
        names = list(self.names or ())
        if isinstance(name, int) and 0 <= name < len(names):
            name = names[name]
        if not isinstance(name, str) or name not in names:
            raise InputError(
                "label must be one of the names", describe(name), suggestion(str(name), names)
            )
        place = names.index(name)
        return self._label_predictions(slice(place, place + 1), f"label {name!r}")

    def pooled(self) -> Predictions:
        """Return the two-class predictions of all known sample-label pairs, one row per pair.

        Raises:
            InputError: If none is known.
        """
        return self._label_predictions(slice(None), "the labels")

    def with_logits(self, logits: object) -> MultiLabel:
        """Return the same samples with other logits, such as calibrated ones."""
        return replace(self, logits=logits)

    def save(self, path: str | Path) -> Path:
        """Write the fields to ``path`` (``.npz``) atomically and return ``path``.

        Raises:
            InputError: If another file than one of a ``MultiLabel`` is there, or the folder cannot be written to.
        """
        names = [field.name for field in fields(self)]
        values = {name: value for name, value in vars(self).items() if value is not None}
        return write_fields(path, values, names, "a file of a MultiLabel")

    @classmethod
    def load(cls, path: str | Path) -> MultiLabel:
        """Return the MultiLabel in a file written by :meth:`save`; pickled objects are refused.

        Raises:
            InputError: If the file is missing or damaged, or has no array ``logits``, or neither ``target``
                nor ``names``.
        """
        names = [field.name for field in fields(cls)]
        fix = "Save it with MultiLabel.save."
        arrays: dict[str, Any] = load_arrays(path, names, ("logits",), fix)
        if not {"names", "target"} & {*arrays}:
            raise InputError("the file must have an array 'target' or 'names'", path, fix)
        if "names" in arrays:
            arrays["names"] = arrays["names"].tolist()
        return cls(**arrays)

    def _label_predictions(self, columns: slice, subject: str) -> Predictions:
        logits = self.logits[:, columns]
        target = require_known_labels(self).target[:, columns]
        has_label = target != UNKNOWN
        if not bool(has_label.any()):
            raise InputError(
                f"{subject} must have a known target for at least one sample",
                f"{UNKNOWN} (unknown) for all samples",
                "Leave out labels without any known target.",
            )
        samples = np.nonzero(has_label)[0]
        values_of = {name: getattr(self, name) for name in SAMPLE_VALUES}
        values = {name: value[samples] for name, value in values_of.items() if value is not None}
        return Predictions(
            binary_logits(logits[has_label]),
            target[has_label],
            **{"clusters": samples} | values,
        )


def _check_label_matrix(target: Any, shape: tuple[int, ...]) -> IntArray:
    """Return the label matrix ``(N, L)`` as int64 with values 1, 0 and :data:`UNKNOWN`."""
    target = to_numbers("target", target)
    unknown = (target != target) | (target == UNKNOWN)
    if target.dtype.kind not in "ub":
        unknown |= target == -1
    valid = (target == 0) | (target == 1) | unknown
    if target.shape != shape or not bool(valid.all()):
        raise InputError(
            f"target must have shape {shape} and values 0, 1 or {UNKNOWN}",
            describe(target),
            "Pass one column per label.",
        )
    return np.where(unknown, UNKNOWN, np.where(unknown, 0, target).astype(np.int64))


def is_label_matrix(target: object) -> bool:
    """Return whether an array ``(N, L)`` is a multi-label target: 0, 1 or unknown, and not one-hot."""
    values = as_float_array(target)
    unknown = (values == UNKNOWN) | (values == -1) | np.isnan(values)
    if not bool(((values == 0) | (values == 1) | unknown).all()):
        return False
    return bool(unknown.any()) or bool((values.sum(axis=1) != 1).any())


def to_log_odds(probs: NDArray[Any]) -> FloatArray:
    """Return ``log(p / (1 - p))`` of probabilities in float64; finite also for 0 and 1."""
    probs = probs.astype(np.float64, copy=False)
    odds: FloatArray = np.log(np.maximum(probs, FLOOR)) - np.log(
        np.maximum(1.0 - probs, NEAREST_TO_0)
    )
    return odds


def require_known_labels(predictions: MultiLabel) -> MultiLabel:
    """Return the multi-label predictions; raise InputError if they have no target.

    Raises:
        InputError: Otherwise.
    """
    if predictions.has_target:
        return predictions
    raise InputError(
        "multi-label predictions must have a target",
        f"{predictions.num_samples} samples without target",
        "Pass MultiLabel(logits, target). Without a target, predictions can only be calibrated and saved.",
    )


def check_same_labels(
    val: object, test: object, subject: str | Argument
) -> tuple[MultiLabel, MultiLabel]:
    """Return held-out and test predictions; raise InputError unless both are MultiLabel with the same labels.

    Args:
        val: Held-out predictions.
        test: Those measured.
        subject: How messages name the former.

    Raises:
        InputError: Otherwise.
    """
    if not isinstance(val, MultiLabel) or not isinstance(test, MultiLabel):
        raise InputError(
            (subject, " must be a MultiLabel if, and only if, the predictions are"),
            describe(test if isinstance(val, MultiLabel) else val),
            "Pass held-out predictions of the same labels, a MultiLabel.",
        )
    unnamed = tuple(map(str, range(test.num_labels)))
    if val.num_labels != test.num_labels or len({val.names, test.names} - {unnamed}) > 1:
        raise InputError(
            (subject, " must have the same labels as the predictions, in the same order"),
            f"{truncated_list(list(val.names or ()))} and {truncated_list(list(test.names or ()))}",
            "Pass predictions of the same model.",
        )
    if val.logits.shape == test.logits.shape and bool((val.logits == test.logits).all()):
        raise InputError(
            (subject, " must differ from the predictions that are measured"),
            "the same logits",
            "Pass held-out predictions, such as those on a validation set: fitting on test data is optimistic.",
        )
    return val, test


def require_multi_label(predictions: object, argument: str = "predictions") -> None:
    """Raise InputError unless an argument is a MultiLabel.

    Raises:
        InputError: Otherwise.
    """
    if not isinstance(predictions, MultiLabel):
        fix = "Pass fedlas.MultiLabel(logits, target)."
        raise InputError("must be a MultiLabel", describe(predictions), fix, argument=argument)
