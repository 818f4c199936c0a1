"""Predictions: scores and labels of a classifier on one data set, the input of all measures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, warn_user
from fedlas._core.extras import require
from fedlas._core.ops import iter_blocks, row_argmax, row_max, softmax
from fedlas._core.types import BoolArray, IntArray
from fedlas.predictions.arguments import (
    Array,
    OptionalArray,
    Target,
    as_read_only,
    check_class_names,
    check_label_probs,
    check_row_index,
    check_scores,
    check_target,
    relative_precision,
    to_class_indices,
    to_numbers,
)
from fedlas.predictions.event import check_classes_and_event
from fedlas.predictions.probabilities import are_probabilities, check_probabilities
from fedlas.predictions.sample_values import SAMPLE_VALUES, check_sample_values
from fedlas.predictions.saved import read_fields, write_fields

if TYPE_CHECKING:
    import torch

    from fedlas.predictions.covariates import Covariates
    from fedlas.predictions.tensors import PredictionTensors


@dataclass(frozen=True, eq=False)
class _CheckedScores:
    """Validated scores, which the constructor accepts in place of logits."""

    scores: NDArray[Any]
    are_probs: bool
    with_labels: bool = False  # whether all that is not said of samples is checked, too

    @property
    def name(self) -> str:
        return "probs" if self.are_probs else "logits"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of one data set, validated once, with derived quantities.

    Args:
        logits: Raw scores ``(N, C)``, finite, between -1.3e30 and 1.3e30; an array, a dense tensor on a real device, or
            nested lists. Half precision becomes float32 so that every metric has at least that. :mod:`fedlas.checks`
            says which numbers are accepted.
        target: Class of each sample ``(N,)``, whole numbers in ``[0, C)`` (booleans of two classes); stored as int64.
            None if the labels are unknown, as in production: such predictions can be calibrated, scored and saved. A
            function that needs the labels reads ``target``, which then raises an InputError; ``has_target`` says
            whether they are there.
        features: Optional input of the classifier head, ``(N, D)`` with ``D > 0``; numbers as in ``logits``.
        label_probs: Optional distribution of each sample's label ``(N, C)``, rows summing to 1 within 0.001: the true
            one of synthetic data, or the votes of annotators. Metrics that need it are free of the noise of one label.
        weights: Optional weight of each sample ``(N,)``, finite and at least 0, not all 0; kept in float64.
            Metrics, intervals and noise floors count a sample by its weight; only ratios of weights matter, and a
            sample of weight 0 is as if it were not there.
        clusters: Optional cluster of each sample ``(N,)``, such as its image, patient or user: whole numbers, or names,
            which are numbered in sorted order; kept as int64. Samples of one cluster are not independent.
        time: Optional time of each sample ``(N,)``, numbers or dates; their order is kept as int64. Where a
            fit holds samples out, none is judged by later ones.
        covariates: Optional :class:`~fedlas.predictions.covariates.Covariates`: what each column of ``features`` holds,
            a number or the number of a category's value. Without, all are numbers.
        classes: Optional names of the classes ``(C,)``, in the order of the columns, each once; kept as a tuple of
            texts. ``target`` may then hold names.
        event: Optional class that two-class measures are about: its name in ``classes``, or its number, 0 or 1; kept as
            the number. Where classes have no names, a word names class 1, and ``"not "`` and the word the other.

    Raises:
        InputError: For wrong shapes, dtypes or layouts, NaN, infinite or too large values, labels out of range,
            label_probs that are no probabilities, weights that are none, names of classes that are not ``C`` different
            ones, an event that is none of two classes, or no samples at all.

    Note:
        Logits that are all in [0, 1] with rows that sum to 1, up to rounding, are almost surely probabilities: a
        :class:`~fedlas.errors.CalibrationWarning` says so.

        Immutable: the arrays are read-only views. :meth:`tensors` returns them as tensors, on any device. ``probs``,
        ``confidence``, ``predicted`` and ``correct`` are computed at first use and kept; ``probs`` is as large as
        ``logits``, so code for large arrays should work on chunks of ``logits`` instead.

    Example:
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0])
        >>> p.num_samples, p.num_classes, p.correct.tolist()
        (2, 2, [True, False])
        >>> Predictions([[2.0, 0.0], [0.0, 1.0]])
        Predictions(2 samples, 2 classes, without target)
    """

    logits: Array = Array()  # noqa: RUF009 (a descriptor holds nothing itself)
    target: Target = Target()  # noqa: RUF009
    features: OptionalArray = OptionalArray()  # noqa: RUF009
    label_probs: OptionalArray = OptionalArray()  # noqa: RUF009
    weights: OptionalArray = OptionalArray()  # noqa: RUF009
    clusters: OptionalArray = OptionalArray()  # noqa: RUF009
    classes: Any = None
    event: Any = None
    covariates: Covariates | None = None
    time: OptionalArray = OptionalArray()  # noqa: RUF009

    def __post_init__(self) -> None:
        values = vars(self)
        if isinstance(checked := values["logits"], _CheckedScores):
            del values["logits"]
            values |= {"are_probs": checked.are_probs, checked.name: as_read_only(checked.scores)}
            if not checked.with_labels:
                self._check_fields()
                return
            # Reading a target that is not there raises an error.
            if values["target"] is None:
                del values["target"]
            self._check_sample_fields()
            return
        logits = check_scores("logits", self.logits)
        if are_probabilities(logits):
            warn_user(
                (
                    "Predictions: logits should be scores before the softmax; every row is in [0, 1] and sums to 1, so "
                    "these are almost surely probabilities. Pass "
                    "Predictions.from_probs(probs, target), or name their columns by ",
                    Argument("probs"),
                    " in place of ",
                    Argument("logits"),
                    ".",
                )
            )
        values["logits"] = as_read_only(logits)
        self._check_fields()

    def _check_fields(self) -> None:
        values = vars(self)
        shape = (self.num_samples, self.num_classes)
        values |= check_classes_and_event(values, shape[1])
        classes = values["classes"]
        # Reading a target that is not there raises an error.
        if (target := values.pop("target")) is not None:
            values["target"] = as_read_only(check_target(target, shape, classes))
        if (votes := values["label_probs"]) is not None:
            values["label_probs"] = as_read_only(check_label_probs(votes, shape))
        self._check_sample_fields()

    def _check_sample_fields(self) -> None:
        check_sample_values(vars(self), self.num_samples)
        if (covariates := vars(self).get("covariates")) is not None:
            from fedlas.predictions.covariates import check_covariates

            check_covariates(covariates, vars(self)["features"])

    def __repr__(self) -> str:
        names = [name for name in _ARRAYS[2:] if getattr(self, name) is not None]
        others = f" and {', '.join(names)}" if names else ""
        labels = "with" if self.has_target else "without"
        return f"Predictions({self.num_samples} samples, {self.num_classes} classes, {labels} target{others})"

    @property
    def has_target(self) -> bool:
        """Whether the target is known."""
        return "target" in vars(self)

    @cached_property
    def are_probs(self) -> bool:
        """Whether the predictions were made from probabilities, which ``probs`` then returns unchanged."""
        return False  # the constructor stores True for predictions made from probabilities

    @cached_property
    def scores(self) -> NDArray[Any]:
        """Logits ``(N, C)``, or the probabilities that were passed instead; both rank the classes alike."""
        return self.probs if self.are_probs else self.logits

    @cached_property
    def num_samples(self) -> int:
        """Number of samples ``N``."""
        return int(self.scores.shape[0])

    @cached_property
    def num_classes(self) -> int:
        """Number of classes ``C``."""
        return int(self.scores.shape[1])

    @cached_property
    def probs(self) -> NDArray[Any]:
        """Softmax of the logits ``(N, C)``, or the probabilities that were passed."""
        return as_read_only(softmax(self.logits))

    @cached_property
    def predicted(self) -> IntArray:
        """Predicted class ``(N,)``, the argmax of the scores; ties go to the lowest index."""
        return as_read_only(row_argmax(self.scores))

    @cached_property
    def confidence(self) -> NDArray[Any]:
        """Probability of the predicted class ``(N,)``, in ``[1/C, 1]``.

        The softmax runs on chunks that fit the cache, so ``(N, C)`` probabilities are never held.
        """
        if self.are_probs:
            return as_read_only(row_max(self.probs))
        largest = np.empty(self.num_samples, self.logits.dtype)
        for part in iter_blocks(*self.logits.shape):
            largest[part] = row_max(softmax(self.logits[part]))
        return as_read_only(largest)

    @cached_property
    def correct(self) -> BoolArray:
        """Whether the predicted class equals the target ``(N,)``, bool."""
        return as_read_only(self.predicted == self.target)

    def tensors(self, device: torch.device | str | None = None) -> PredictionTensors:
        """Return the arrays as tensors under the same names, on ``device`` (None: the CPU)."""
        from fedlas.predictions.tensors import PredictionTensors

        return PredictionTensors(self, device)

    def with_logits(self, logits: object) -> Predictions:
        """Return the same samples with other logits, such as calibrated ones."""
        return type(self)(logits, **self._fields_except_scores())

    def without_target(self) -> Predictions:
        """Return the same samples without ``target`` and ``label_probs``."""
        return self._replace_fields(target=None, label_probs=None)

    def rows(self, index: object) -> Predictions:
        """Return the samples at row indices ``(n,)`` or in a mask ``(N,)``.

        Raises:
            InputError: If it is neither.
        """
        rows = check_row_index(index, self.num_samples)
        values = self._field_values().items()
        return self._from_fields(
            {n: v[rows] if isinstance(v, np.ndarray) else v for n, v in values}
        )

    def _replace_fields(self, **values: Any) -> Predictions:
        """Return the same samples and scores with other values of some fields; a target can only be removed."""
        if values.get("features", self.features) is None:
            values["covariates"] = None
        if values.keys() & {"classes", "event"}:
            values |= check_classes_and_event(vars(self) | values, self.num_classes)
        return self._from_fields(self._field_values() | values)

    def _from_fields(self, values: dict[str, Any]) -> Predictions:
        """Return predictions from field values; only the sample fields are validated again."""
        scores = values.pop("probs" if self.are_probs else "logits")
        return type(self)(_CheckedScores(scores, self.are_probs, with_labels=True), **values)

    def _field_values(self) -> dict[str, Any]:
        """Return the scores and all other fields that are set, by name."""
        return {"probs" if self.are_probs else "logits": self.scores} | self._fields_except_scores()

    def _fields_except_scores(self) -> dict[str, Any]:
        """Return the fields that are set, without the scores, by name."""
        return {name: value for name in _FIELDS[1:] if (value := vars(self).get(name)) is not None}

    def save(self, path: str | Path) -> Path:
        """Write the fields to ``path`` (``.npz``) atomically and return ``path``.

        Raises:
            InputError: If another file than one of predictions is there, or the folder cannot be written to.
        """
        fields = {"logits": self.logits} | self._fields_except_scores()
        return write_fields(path, fields, ("logits", *_FIELDS), "a file of Predictions")

    @classmethod
    def from_probs(
        cls,
        probs: object,
        target: object = None,
        *,
        normalize: bool = False,
        **others: Any,
    ) -> Predictions:
        """Return predictions from probabilities, which stay unchanged; logits are their logarithms.

        Args:
            probs: Probabilities of all classes ``(N, C)``, or of the second of two ``(N,)``; a tensor, or an array. A
                row may miss 1 by 0.001, or by what rounding to as many decimals as it has explains; it is then divided
                by its sum. The logarithm of an exact zero is that of 1.2e-38.
            target: As in :class:`Predictions`; or names of ``classes``, which numbers and truth values may be too.
            normalize: Divide every row by its sum, whatever that is: for counts, percentages or scores.
            **others: Further arguments of :class:`Predictions`, such as ``features`` and ``classes``.

        Raises:
            InputError: If they are no probabilities (the message says whether they look like percentages or logits),
                or as :class:`Predictions`.

        Example:
            >>> Predictions.from_probs([[0.75, 0.25], [0.2, 0.8]], ["cat", "cat"], classes=["cat", "dog"]).correct
            array([ True, False])
        """
        checked = check_probabilities(
            to_numbers("probs", probs), normalize=normalize, precision=relative_precision(probs)
        )
        if target is not None and (classes := others.get("classes")) is not None:
            names = check_class_names(classes, checked.shape[1])
            target = to_class_indices(target, names or ())
        return cls._from_checked_probs(checked, target=target, **others)

    @classmethod
    def from_frame(cls, frame: object, **columns: Any) -> Predictions:
        """Return predictions from a data frame of pandas or polars, or from a mapping of names to columns.

        Args:
            frame: The frame.
            **columns: Meaning of its columns: ``probs`` or ``logits``, ``target`` and other fields of
                ``fedlas.predictions.Columns``.

        Raises:
            InputError: If a column does not exist or holds no such values; row and column are named.

        Example:
            >>> frame = {"p_cat": [0.75, 0.2], "p_dog": [0.25, 0.8], "label": ["cat", "cat"]}
            >>> Predictions.from_frame(frame, probs="p_*", target="label").correct
            array([ True, False])
        """
        from fedlas.predictions import read_predictions
        from fedlas.predictions.tables.roles import columns_from_kwargs

        named = columns_from_kwargs(columns)
        if named.kind not in ("logits", "probs"):
            raise InputError(
                "probs or logits must name the score columns",
                named.kind or "none",
                (
                    "Pass ",
                    Argument("probs", "p_*"),
                    " or ",
                    Argument("logits"),
                    "'...'; for confidences use TopLabel(frame['confidence'], ...).",
                ),
            )
        predictions: Any = read_predictions(
            frame, named, labeled=False
        ).predictions  # of all classes
        return predictions

    def to_frame(self) -> Any:
        """Return a pandas ``DataFrame``, one row per sample: prediction, confidence, target, probabilities.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        columns = {"predicted": self.predicted, "confidence": self.confidence}
        columns |= {"target": self.target, "correct": self.correct} if self.has_target else {}
        columns |= {} if self.weights is None else {"weight": self.weights}
        columns |= {f"prob_{place}": column for place, column in enumerate(self.probs.T)}
        return require("pandas", extra="tables").DataFrame(columns)

    @classmethod
    def _from_checked_probs(cls, probs: NDArray[Any], **others: Any) -> Predictions:
        """Return predictions from validated probabilities."""
        if unknown := others.keys() - set(_FIELDS[1:]):
            raise InputError(
                "keyword arguments must be fields of Predictions",
                sorted(unknown)[0],
                f"Leave it out; the fields are {', '.join(_FIELDS[1:])}.",
            )
        return cls(_CheckedScores(probs, are_probs=True), **others)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Return the predictions in a file of :meth:`save`, or in any ``.npz`` with an array ``logits``.

        Pickled objects are refused, so a file from a stranger cannot run code.

        Raises:
            InputError: If the file is missing, is not an ``.npz``, is truncated, or has no array ``logits``.
        """
        fix = "Save it with numpy.savez(path, logits=..., target=...), or without target."
        return cls(**read_fields(path, _FIELDS, ("logits",), fix))


_ARRAYS = ("logits", "target", "features", "label_probs", *list(SAMPLE_VALUES)[1:])
_FIELDS = (*_ARRAYS, "classes", "event", "covariates")
