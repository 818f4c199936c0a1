"""Labels and scores passed as two arrays, as in scikit-learn and torchmetrics."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe, is_tensor
from fedlas._core.errors import public_call_name
from fedlas.predictions.any_predictions import AnyPredictions, PredictionTable
from fedlas.predictions.arguments import (
    PASS_PREDICTIONS,
    holds_text,
    label_matrix_fix,
    relative_precision,
    to_numbers,
)
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.probabilities import ROUNDING, SUM_TOLERANCE, binary_logits

if TYPE_CHECKING:
    from fedlas.predictions.multi_label import MultiLabel

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
_TARGET = """\
target: Labels ``(N,)``, if the first argument is not ``Predictions`` but their scores: probabilities or logits
    ``(N, C)``, of two classes also ``(N,)`` of the second one."""


class ArrayFunction(Protocol[P, R_co]):
    """Protocol of functions that take predictions, or scores and labels as two arrays, and options ``P``."""

    __name__: str

    def __call__(
        self, predictions: object, target: object = None, *args: P.args, **options: P.kwargs
    ) -> R_co:
        """Return the result for predictions, or for scores and labels."""


def accept_arrays(function: Callable[Concatenate[Any, P], R_co]) -> ArrayFunction[P, R_co]:
    """Decorate a function of predictions so that it also accepts scores and labels as two arrays.

    Args:
        function: Its first parameter is the predictions; all others are passed by name.

    Example:
        >>> @accept_arrays
        ... def share_of_right(predictions):
        ...     return float(predictions.correct.mean())
        >>> share_of_right([0.9, 0.2], [1, 1])
        0.5
        >>> share_of_right([1, 1], [0.9, 0.2])
        Traceback (most recent call last):
        fedlas._core.errors.InputError: share_of_right: scores must come before labels; got labels first. \
Write share_of_right(probs, target).
    """
    name = function.__name__

    @functools.wraps(function)
    def call_with_arrays(
        predictions: object, target: object = None, *args: P.args, **options: P.kwargs
    ) -> R_co:
        try:
            if target is not None or _is_array(predictions) or isinstance(predictions, list):
                predictions = _from_scores_and_labels(predictions, target, name)
            return function(predictions, *args, **options)
        except InputError as error:
            if (
                public_call_name() is None
            ):  # the user's code called this, and no other public function
                error.owner = name
            raise

    signature = inspect.signature(function)
    first, *rest = signature.parameters.values()
    added = inspect.Parameter("target", first.POSITIONAL_OR_KEYWORD, default=None)
    described: Any = call_with_arrays
    described.__signature__ = signature.replace(parameters=[first, added, *rest])
    described.__doc__ = re.sub(
        rf"^( +){first.name}: .*\n(\1 .*\n)*",
        lambda found: found[0] + "".join(f"{found[1]}{line}\n" for line in _TARGET.split("\n")),
        function.__doc__ or "",
        count=1,
        flags=re.MULTILINE,
    )
    result: ArrayFunction[P, R_co] = described
    return result


def _from_scores_and_labels(scores: object, target: object, name: str) -> Predictions:
    """Return predictions from scores and labels in this order; ``name`` is the calling function."""
    fix = f"Write {name}(probs, target)."
    if target is None:
        raise InputError("scores must come with labels", describe(scores), fix)
    predictions, scores_first = _predictions_and_order(scores, target)
    if not scores_first:
        raise InputError("scores must come before labels", "labels first", fix)
    return predictions


def predictions_from_arrays(first: object, second: object) -> Predictions | MultiLabel:
    """Return predictions from labels ``(N,)`` and scores ``(N, C)``, or ``(N,)`` for the second of two classes.

    Labels ``(N, L)``, rows of 0 and 1 that do not all sum to 1, are several labels a sample, with scores ``(N, L)``.

    Scores are the array with a column a class; of two arrays ``(N,)`` the one that holds other values than 0 and 1.
    They are logits if one is below 0 by more than the rounding of single precision, else probabilities.

    Args:
        first: Labels or scores.
        second: The other.

    Raises:
        InputError: If shapes and values do not show which is which, or labels are names, whose columns nothing shows;
            or as :class:`Predictions`.

    Example:
        >>> predictions_from_arrays([0, 1, 1], [0.2, 0.9, 0.4]).predicted
        array([0, 1, 0])
    """
    several = _multi_label_from_arrays(first, second)
    return _predictions_and_order(first, second)[0] if several is None else several


def _multi_label_from_arrays(first: object, second: object) -> MultiLabel | None:
    """Return a MultiLabel from two arrays ``(N, L)``, or None if they are not multi-label."""
    from fedlas.predictions.multi_label import MultiLabel, is_label_matrix

    if not all(_is_array(each) or isinstance(each, list | tuple) for each in (first, second)):
        return None
    if any(holds_text("arrays", each) for each in (first, second)):
        return None
    arrays = [to_numbers("arrays", array) for array in (first, second)]
    if arrays[0].ndim != 2 or arrays[0].shape != arrays[1].shape or arrays[0].shape[1] < 2:
        return None
    are_labels = [is_label_matrix(array) for array in arrays]
    if are_labels[0] == are_labels[1]:
        return None
    scores, target = arrays[::-1] if are_labels[0] else arrays
    precision = relative_precision(second if are_labels[0] else first)
    if are_logits(_to_floats(scores), precision, sum_to_1=False):
        return MultiLabel(scores, target)
    return MultiLabel.from_probs(scores, target)


def _predictions_and_order(first: object, second: object) -> tuple[Predictions, bool]:
    """Return predictions from two arrays, and whether the first array holds the scores."""
    if isinstance(first, AnyPredictions | PredictionTable):
        raise InputError(
            "labels must not be passed next to a predictions object",
            f"{describe(first)} and labels",
            PASS_PREDICTIONS,
        )
    for array in (first, second):
        if holds_text("arrays", array):
            raise InputError(
                "labels passed as an array must be class indices",
                describe(array),
                "Pass names with the classes in column order: "
                "fedlas.Predictions.from_probs(probs, target, classes=['cat', 'dog']).",
            )
    arrays = [_squeeze_column(to_numbers("arrays", array)) for array in (first, second)]
    scores_first = _has_scores_first(*arrays)
    scores, target = arrays if scores_first else reversed(arrays)
    scores_as_passed = first if scores_first else second
    scores = _to_floats(scores)
    if are_logits(scores, relative_precision(scores_as_passed)):
        logits = scores if scores.ndim == 2 else binary_logits(scores)
        return Predictions(logits, target), scores_first
    # Half precision is known by the value that was given.
    probs = scores_as_passed if relative_precision(scores_as_passed) > SUM_TOLERANCE else scores
    return Predictions.from_probs(probs, target), scores_first


def _has_scores_first(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Return whether the first of two arrays holds the scores."""
    shapes = f"{describe(first)} and {describe(second)}"
    if first.ndim not in (1, 2) or second.ndim not in (1, 2) or len(first) != len(second):
        raise InputError(
            "labels (N,) and scores (N, C) must have the same number of rows",
            shapes,
            PASS_PREDICTIONS,
        )
    if first.ndim != second.ndim:
        return first.ndim == 2
    labels = [bool(((array == 0) | (array == 1)).all()) for array in (first, second)]
    if first.ndim == 2:
        target = first if labels[0] else second
        raise InputError("labels must have shape (N,)", shapes, label_matrix_fix(target))
    if labels[0] == labels[1]:
        content = "only 0 and 1" if labels[0] else "values other than 0 and 1"
        raise InputError(
            "of two arrays (N,), one must hold labels 0 and 1, the other probabilities",
            f"{shapes}, both with {content}",
            f"Pass scores of three or more classes as (N, C). {PASS_PREDICTIONS}",
        )
    return labels[1]


def are_logits(scores: NDArray[Any], precision: float = 0.0, *, sum_to_1: bool = True) -> bool:
    """Return whether an array of scores holds logits, which a value below 0 shows; else it must hold probabilities.

    A value down to -1e-6 is a rounding error, as in ``1 - 0.9 - 0.1``, and taken for 0.

    Args:
        scores: Scores of all classes or labels ``(N, C)``, or of the second of two classes ``(N,)``.
        precision: Relative one of the numbers, where it is coarser than 0.001.
        sum_to_1: Whether probabilities ``(N, C)`` sum to 1, as those of classes do, and those of several labels do not.

    Raises:
        InputError: If values below 0 are none of single precision, but no other is outside what half precision makes
            of probabilities: they may be either.
    """
    low, high = (float(scores.min()), float(scores.max())) if scores.size else (0.0, 0.0)
    if not low < -ROUNDING:
        return False
    precision = max(SUM_TOLERANCE, precision)
    may_be_probs = low >= -precision and high <= 1.0 + precision
    if may_be_probs and scores.ndim == 2 and sum_to_1:
        may_be_probs = bool((np.abs(scores.sum(axis=1, dtype=np.float64) - 1.0) <= precision).all())
    if may_be_probs:
        raise InputError(
            "scores must be probabilities in [0, 1], or logits",
            f"values from {low:.6g} to {high:.6g}, which may be either",
            "Clip probabilities: scores.clip(0, 1). Pass logits as Predictions(logits, target).",
        )
    return True


def _is_array(value: object) -> bool:
    """Return whether a value is an array or a tensor."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def _to_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of integers or truth values as float32; floats unchanged."""
    return array if array.dtype.kind in "fc" else array.astype(np.float32)


def _squeeze_column(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array ``(N, 1)`` as ``(N,)``; any other array unchanged."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
