"""Checks of tensors, arrays and labels that users pass, and their conversion to arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import (
    LARGEST,
    PASS_ARRAY,
    InputError,
    check_finite,
    describe,
    is_tensor,
    suggestion,
    to_array,
)
from fedlas._core.text import truncate
from fedlas._core.types import IntArray
from fedlas.predictions.class_names import parse_whole_number, truth_value_classes
from fedlas.predictions.probabilities import ROUNDING, safe_log

PASS_PREDICTIONS = (
    "Pass fedlas.Predictions(logits, target), or fedlas.Predictions.from_probs(probs, target)."
)


class OptionalArray:
    """Dataclass field that accepts a tensor, an array or a list, and reads as an array; the default is None.

    An instance holds the value under the same name, where Python looks first.
    """

    def __get__(self, instance: object | None, owner: type) -> NDArray[Any] | None:
        return None

    if TYPE_CHECKING:

        def __set__(self, instance: object, value: object) -> None: ...


class Array(OptionalArray):
    """Required array field; logits of predictions made from probabilities are computed at first use."""

    def __get__(self, instance: Any, owner: type) -> NDArray[Any]:
        if instance is None:
            raise AttributeError  # dataclasses find no default then
        logits = vars(instance)["logits"] = as_read_only(safe_log(instance.probs))
        return logits


class Target(OptionalArray):
    """Label field typed as an array; reading a missing target raises InputError."""

    def __get__(self, instance: object | None, owner: type) -> IntArray:
        if instance is not None:
            raise missing_target_error(instance)
        return None  # type: ignore[return-value]  # the default that dataclasses read from the class


def as_read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view of an array that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def to_numbers(name: str, value: object, fix: str = PASS_ARRAY) -> NDArray[Any]:
    """Return a tensor, an array, a column of a frame or nested lists as an array of numbers or truth values.

    Raises:
        InputError: If it holds anything else.
    """
    array = to_array(name, value, fix)
    if array.dtype.kind not in "fiubc" or array.dtype.itemsize > 16:
        raise InputError(f"{name} must be numbers", describe(value), fix)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def to_floats(array: NDArray[Any]) -> NDArray[Any]:
    """Return real numbers in single or double precision: doubles as they are, all narrower ones in single."""
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)


def relative_precision(value: object) -> float:
    """Return the relative precision of numbers: the step of their dtype above 1, and 0 for what is no float.

    Half precision has .001, bfloat16 .008, which the single precision that it becomes no longer shows.
    """
    dtype: Any = getattr(value, "dtype", None)
    if is_tensor(value):
        import torch

        return float(torch.finfo(dtype).eps) if value.is_floating_point() else 0.0
    is_float = isinstance(dtype, np.dtype) and dtype.kind == "f"
    return float(np.finfo(dtype).eps) if is_float else 0.0


def check_scores(
    name: str, value: object, *, columns: str = "C", activation: str = "softmax"
) -> NDArray[Any]:
    """Return scores ``(N, columns)`` before the ``activation``, in single or double precision.

    Raises:
        InputError: For another shape, other numbers than floats, NaN, infinities or values beyond ``LARGEST``.
    """
    scores = to_numbers(name, value)
    if scores.dtype.kind != "f" or scores.ndim != 2 or not scores.size:
        raise InputError(
            f"{name} must be floats of shape (N, {columns}) with at least one sample",
            describe(value),
            f"Pass the raw scores of the model, before any {activation}, one row per sample, pixel or token.",
        )
    scores = to_floats(scores)
    check_finite(name, scores)
    return scores


def missing_target_error(predictions: Any) -> InputError:
    """Return the InputError for predictions without a target."""
    return InputError(
        "predictions must have labels",
        f"{predictions.num_samples} samples without target",
        "Pass the labels: Predictions(logits, target). Without them, predictions can be calibrated, scored and saved.",
    )


def check_target(
    target: object, shape: tuple[int, int], classes: tuple[str, ...] | None = None
) -> IntArray:
    """Return labels ``(N,)`` as int64 class indices; raise InputError if they do not fit the scores.

    Args:
        target: Class numbers; also as floats without fractions, or as booleans of two classes. With ``classes``, their
            names as text too.
        shape: ``(N, C)`` of the scores.
        classes: Names of the classes, in the order of the columns; None if labels are numbers.

    Raises:
        InputError: If there is not one label for each row, or one is no class.
    """
    samples, num_classes = shape
    if classes is not None and holds_text("target", target):
        target = to_class_indices(target, classes)
    labels = to_numbers("target", target, PASS_ARRAY if is_tensor(target) else _target_fix(target))
    whole = labels.shape == (samples,) and are_whole(labels)
    if not whole or (labels.dtype.kind == "b" and num_classes != 2):
        raise InputError(
            f"target must hold class indices of shape ({samples},), for scores {shape}",
            describe(target),
            label_matrix_fix(labels)
            if labels.shape == shape
            else "Pass class indices, not one-hot rows or probabilities; booleans are for two classes.",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"target must be in [0, {num_classes}), as there are {num_classes} columns of scores",
            f"values from {low} to {high}",
            "Subtract 1 if labels count from 1."
            if low == 1 and high == num_classes
            else "Remove ignored labels such as -100, or check the number of classes.",
        )
    return labels.astype(np.int64, copy=False)


def are_whole(array: NDArray[Any]) -> bool:
    """Return whether an array holds whole numbers or truth values alone, below ``LARGEST``."""
    if array.dtype.kind == "f":
        return bool((np.abs(array) < LARGEST).all()) and bool((array == np.trunc(array)).all())
    return array.dtype.kind in "iub"


def _target_fix(target: object) -> str:
    """Return the remedy for labels that are not numeric: an example call with their class names."""
    labels = to_array("target", target).ravel().tolist() if holds_text("target", target) else ()
    names = sorted({str(label) for label in labels}) or ["cat", "dog"]
    return f"Pass class numbers, or names and Predictions.from_probs(probs, target, classes={_format_names(names)})."


def _format_names(names: Sequence[str], max_count: int = 12) -> str:
    """Return names as the text of a Python list, shortened to ``max_count`` names."""
    shown = [truncate(repr(name), 60) for name in names[:max_count]]
    return f"[{', '.join([*shown, '...'] if len(names) > max_count else shown)}]"


_SEVERAL_LABELS = (
    "Measure them by fedlas.report(fedlas.MultiLabel(logits, target)), calibrate them by "
    "fedlas.calibrate(model, loader)."
)


def label_matrix_fix(target: object, advice: str = _SEVERAL_LABELS) -> str:
    """Return the remedy for a target ``(N, C)`` where class indices are expected; ``advice`` names the alternative."""
    values = to_array("target", target.to_dense() if is_tensor(target) else target)
    if bool((np.abs(values.sum(axis=1) - 1) <= 1e-3).all()) and bool((values >= 0).all()):
        return (
            "Pass class indices, not one-hot rows or probabilities: target.argmax(1). If each "
            "is one of several labels, pass fedlas.MultiLabel(logits, target)."
        )
    rows = "Rows that do not sum to 1 hold several labels per sample"
    if bool(((values == 0) | (values == 1)).all()):
        return f"{rows}. {advice}"
    return f"{rows} (each 0 or 1) or vote counts (pass their shares as label_probs). {advice}"


def holds_text(name: str, value: object) -> bool:
    """Return whether labels, or other values, are text rather than numbers.

    Raises:
        InputError: As :func:`to_array`.
    """
    return not is_tensor(value) and to_array(name, value).dtype.kind in "OUS"


def check_class_names(classes: object, num_classes: int) -> tuple[str, ...] | None:
    """Return the class names ``(C,)`` as a tuple of text, or None if there are none.

    Raises:
        InputError: If there is not a different name for each class.
    """
    if classes is None:
        return None
    names = to_names(classes)
    if len(names) != num_classes or len(set(names)) < num_classes:
        raise InputError(
            f"classes must be a sequence of {num_classes} different names, in the order of the columns",
            describe(classes),
            "Pass one different name per class.",
        )
    return names


def to_names(values: object) -> tuple[str, ...]:
    """Return the names in a sequence, an array ``(C,)`` or an index of a frame as text; none for any other value."""
    if not isinstance(values, Collection) or isinstance(values, str | bytes | Mapping | Set):
        return ()
    if is_tensor(values) or getattr(values, "ndim", 1) != 1:
        return ()
    return tuple(str(name) for name in values)


def check_event(event: object, num_classes: int, classes: tuple[str, ...] | None) -> int | None:
    """Return the index of the positive class (the event), or None if none is named.

    Args:
        event: Its name in ``classes``, in any case, or its number: an integer, or as text where classes have no names.
        num_classes: ``C``, which must be 2.
        classes: Names of the classes.

    Raises:
        InputError: If there are not two classes, or it is neither of them.
    """
    if event is None:
        return None
    if num_classes != 2:
        raise InputError(
            "requires predictions of two classes",
            f"{num_classes} classes",
            "Leave it out, or merge the classes into two: the event and all others.",
            argument="event",
        )
    if is_tensor(event) or isinstance(event, np.ndarray | np.generic):
        event = event.item()
    names = classes or ("0", "1")
    if isinstance(event, int) and not isinstance(event, bool) and event in (0, 1):
        return int(event)
    named = matching_class_names(event, names)
    if len(named) == 1:
        return names.index(named[0])
    raise unknown_event_error(event, names)


def matching_class_names(event: object, names: Sequence[str]) -> list[str]:
    """Return the class name that equals ``event``, else the names that differ from it in case only."""
    word = str(event).strip()
    return [word] if word in names else [name for name in names if name.lower() == word.lower()]


def unknown_event_error(event: object, names: Sequence[str]) -> InputError:
    """Return the InputError for an event that is neither of the two classes."""
    return InputError(
        f"must be one of the classes, {names[0]} or {names[1]}",
        describe(event),
        suggestion(str(event), names),
        argument="event",
    )


def to_class_indices(target: object, classes: tuple[str, ...]) -> Any:
    """Return the class index of each label; integer labels are returned unchanged if no class name is a number."""
    numbers = {name: number for number, name in enumerate(classes)}
    truths = truth_value_classes(list(numbers))
    array = to_array("target", target, "Pass one name per sample.")
    labels = [str(label) for label in array.ravel().tolist()]
    # A 1 among yes and no may be the class yes or the second one: only where these are one is it a number.
    agree = not truths or truths["true"] == 1
    if (
        array.dtype.kind in "iu"
        and agree
        and all(parse_whole_number(name) is None for name in classes)
    ):
        return target
    labels = [
        label.lower() if label not in numbers and label.lower() in truths else label
        for label in labels
    ]
    numbers = truths | numbers
    strangers = [label for label in dict.fromkeys(labels) if label not in numbers]
    if strangers:
        alike = [name for name in numbers if name.casefold() == strangers[0].casefold()]
        raise InputError(
            f"every label must be one of the classes {', '.join(classes[:12])}",
            _format_names(strangers)[1:-1],
            (
                f"Did you mean {alike[0]!r}?"
                if alike
                else "Correct the labels, or name the classes in the order of the columns."
            ),
        )
    return [numbers[label] for label in labels]


def check_label_probs(value: object, shape: tuple[int, int]) -> NDArray[Any]:
    """Return label distributions ``(N, C)`` in float32 or float64.

    Raises:
        InputError: For another shape, negative numbers, or rows that do not sum to 1 within 0.001.
    """
    votes = to_numbers("label_probs", value)
    if votes.shape != shape or votes.dtype.kind == "c":
        raise InputError(
            f"label_probs must have shape {shape}", describe(value), "Pass one row per sample."
        )
    check_finite("label_probs", votes)
    votes = to_floats(votes)
    sums = votes.sum(axis=1)
    low = float(votes.min())
    if low < -ROUNDING or bool((np.abs(sums - 1) > 1e-3).any()):
        raise InputError(
            "label_probs must be in [0, 1], and each row must sum to 1",
            f"a smallest value of {low:.6g} and a smallest row sum of {float(sums.min()):.6g}",
            "Pass the share of votes for each class.",
        )
    return np.maximum(votes, 0.0) if low < 0 else votes


def check_row_index(index: object, num_samples: int) -> NDArray[Any]:
    """Return row indices ``(n,)`` as int64, or a boolean mask ``(N,)`` that selects at least one row.

    Raises:
        InputError: If it is neither.
    """
    rows = to_numbers("index", index)
    if rows.dtype.kind == "b" and rows.shape == (num_samples,) and bool(rows.any()):
        return rows
    whole = rows.ndim == 1 and rows.dtype.kind in "iu" and len(rows) > 0
    if not whole or not bool(((rows >= 0) & (rows < num_samples)).all()):
        raise InputError(
            "index must hold valid row indices, or a mask with at least one True",
            describe(index),
            "Pass integers from 0, or one boolean per row.",
        )
    return rows.astype(np.int64, copy=False)
