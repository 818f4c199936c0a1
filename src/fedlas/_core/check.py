"""Argument checks; the errors that they raise are in :mod:`fedlas._core.errors`, which needs no torch.

**Which numbers are accepted.** Logits, features and whatever else is measured are dense tensors on a device that holds
values (not sparse, nested or on the meta device), finite, and between ``-LARGEST`` and ``LARGEST``: so differences and
sums of them are numbers of float32 too, and a model with larger ones has diverged. ``check_dense`` and
``check_finite`` check this wherever numbers enter (``Predictions``, ``Outputs``, fits). A training step cannot look at
values without stalling an accelerator: losses refuse what the shape and the kind of a tensor tell, and, on a CPU,
targets out of range and masked classes. NaN or infinite logits give a loss of NaN, by which mixed-precision training
skips the step. Losses accept the meta device, where operations are counted.
"""

from __future__ import annotations

import functools
import math
import numbers
import reprlib
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from fedlas._core.errors import Argument as Argument
from fedlas._core.errors import CalibrationWarning as CalibrationWarning
from fedlas._core.errors import InputError as InputError
from fedlas._core.errors import NonFiniteError as NonFiniteError
from fedlas._core.errors import Text as Text
from fedlas._core.errors import suggestion as suggestion
from fedlas._core.errors import warn_user as warn_user
from fedlas._core.text import truncate

# torch and numpy are imported where a value may be theirs: the command line shows --help without them.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T", bound=str)
F = TypeVar("F", bound=Callable[..., Any])

PASS_ARRAY = "Pass a tensor, or a NumPy array of a common dtype."
LARGEST = 2.0**100
"""The largest size of a logit or feature, 1.3e30: a hundred million of them add up to a float32."""


def error_reason(error: Exception) -> str:
    """Return a short reason for the error that reading a file raised, for use within another message.

    Example:
        >>> error_reason(KeyError("edges")), error_reason(InputError("bins must be whole", 0.5, "Write it again."))
        ("'edges' is missing", 'bins must be whole; got 0.5')
    """
    if isinstance(error, InputError):
        return f"{error.parts[0]}; got {error.parts[1]}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def one_line_error(error: Exception, max_length: int = 200) -> str:
    """Return the first ``max_length`` characters of an error's text on one line, or its class name if it is empty."""
    return " ".join(str(error).split())[:max_length] or type(error).__name__


def describe(value: object) -> str:
    """Return a description of ``value`` for an error message: shape and dtype of an array, else type and value."""
    if getattr(value, "is_nested", False) is True:
        # one of this kind has no shape, and raises where it is asked for
        return f"a nested tensor {getattr(value, 'dtype', '')}"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not isinstance(value, numbers.Number):
        return f"{tuple(shape)} {getattr(value, 'dtype', '')}".strip()
    text = (
        reprlib.repr(value)
        if isinstance(value, list | tuple | dict | set | frozenset | int)
        else repr(value)
    )
    return f"{type(value).__name__} {truncate(text, 200)}"


def truncated_list(names: Sequence[str], limit: int = 12) -> str:
    """Return the first ``limit`` names as text, followed by ``and N more``."""
    shown = ", ".join(truncate(str(name), 60) for name in names[:limit])
    return (
        f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or describe(names)
    )


def reject_other_content(read: F) -> F:
    """Decorate a ``from_dict`` so that content which ``to_dict`` never returned raises InputError."""

    @functools.wraps(read)
    def read_checked(cls: type, content: object, *args: object, **options: object) -> Any:
        try:
            return read(cls, content, *args, **options)
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            raise InputError(
                f"content must be what {cls.__name__}.to_dict returned",
                f"{describe(content)} ({type(error).__name__}: {error})",
                "Pass it unchanged, or write it again.",
            ) from error

    checked: Any = read_checked
    return checked


def check_number(
    name: str,
    value: object,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return ``value`` as a float, or raise InputError if it is outside the range from ``low`` to ``high``.

    With ``low_open`` or ``high_open`` the range excludes that end.

    Raises:
        InputError: If it is not a finite number in that range.

    Example:
        >>> check_number("alpha", 0.05, low=0, high=1)
        0.05
        >>> check_number("alpha", -1, low=0, high=1)
        Traceback (most recent call last):
            ...
        fedlas._core.errors.InputError: alpha must be a finite number in [0, 1]; got int -1. Choose a ...
    """
    number_like: Any = value
    if isinstance(value, numbers.Real) and not isinstance(number_like, bool):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        above = number > low if low_open else number >= low
        below = number < high if high_open else number <= high
        if math.isfinite(number) and above and below:
            return number
    start = "(" if low_open or low == -math.inf else "["
    end = ")" if high_open or high == math.inf else "]"
    raise argument_error(
        name,
        f"must be a finite number in {start}{low:g}, {high:g}{end}",
        describe(value),
        "Choose a number in that range.",
    )


def argument_error(name: str, expected: str, got: object, fix: str) -> InputError:
    """Return an InputError about the argument ``name``, or a value that is described, such as ``"the level"``."""
    if name.isidentifier():
        return InputError(expected, got, fix, argument=name)
    return InputError(f"{name} {expected}", got, fix)


def check_count(name: str, value: object, *, low: int | None = 1) -> int:
    """Return ``value`` as an int, or raise InputError if it is not a whole number of at least ``low`` (None: any).

    ``num_bins`` is at most 10,000 and ``replicates`` at most 1,000,000, since both take time and memory.

    Raises:
        InputError: If it is not a whole number of at least ``low``, or is above the bound of its name.

    Example:
        >>> check_count("num_bins", 15)
        15
        >>> check_count("num_bins", 0)
        Traceback (most recent call last):
            ...
        fedlas._core.errors.InputError: num_bins must be a whole number of at least 1; got int 0. Choose a ...
    """
    whole: Any = value
    number = (
        None if isinstance(whole, bool) or not isinstance(whole, numbers.Integral) else int(whole)
    )
    high = _MAX_COUNTS.get(name, 2**62)  # larger ones are no sizes of torch
    if number is not None and (low is None or low <= number) and abs(number) <= high:
        return number
    too_many = number is not None and abs(number) > high
    bound = f" of at most {high}" if too_many else "" if low is None else f" of at least {low}"
    raise argument_error(
        name,
        f"must be a whole number{bound}",
        describe(value),
        f"Choose a whole number{bound}.",
    )


_MAX_COUNTS = {"num_bins": 10_000, "replicates": 1_000_000}
"""Classwise errors take up to 2 s and 1 GB in 10,000 bins of 1,000 classes."""


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Return whether ``value`` is a tensor; without torch in the process nothing is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_module(value: object) -> bool:
    """Return whether ``value`` is an ``nn.Module``; without torch in the process nothing is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def as_float_array(values: object) -> NDArray[np.float64]:
    """Return real numbers as a float64 array, or a scalar NaN for text, objects and rows of unequal length.

    The caller checks the shape, so that one error says what it takes.
    """
    import numpy as np

    try:
        if is_tensor(values) and not values.is_complex():
            values = values.detach().cpu().double().numpy()
        array = np.asarray(values)
        return array.astype(np.float64) if array.dtype.kind in "fiub" else np.array(np.nan)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return np.array(np.nan)


def check_choice(name: str, value: object, choices: Iterable[T]) -> T:
    """Return ``value``, or raise InputError if it is not one of ``choices``.

    Raises:
        InputError: If it is not; the message names the nearest choice.

    Example:
        >>> check_choice("reduction", "mean", ["mean", "sum", "none"])
        'mean'
        >>> check_choice("reduction", "men", ["mean", "sum", "none"])
        Traceback (most recent call last):
            ...
        fedlas._core.errors.InputError: reduction must be one of mean, sum, none; got 'men'. Did you mean 'mean'?
    """
    names = list(choices)
    if isinstance(value, str) and value in names:
        return names[names.index(value)]
    expected = f"must be one of {', '.join(names)}"
    raise argument_error(name, expected, repr(value), suggestion(str(value), names))


def check_logits(logits: object) -> Tensor:
    """Return ``logits``, or raise InputError if they are not a dense floating tensor ``(N, C, ...)`` with ``C >= 1``.

    Raises:
        InputError: For any other type, layout, dtype or number of dimensions.

    Example:
        >>> import torch
        >>> check_logits(torch.zeros(4, 3)).shape
        torch.Size([4, 3])
        >>> check_logits(torch.zeros(4))
        Traceback (most recent call last):
            ...
        fedlas._core.errors.InputError: logits must be a dense floating tensor (N, C) or (N, C, d1, ...); ...
    """
    if (
        is_dense(logits)
        and logits.is_floating_point()
        and logits.ndim >= 2
        and logits.shape[1] >= 1
    ):
        return logits
    raise InputError(
        "logits must be a dense floating tensor (N, C) or (N, C, d1, ...)",
        describe(logits),
        "Pass the raw scores of the classifier, before any softmax.",
    )


def is_dense(value: object) -> TypeGuard[Tensor]:
    """Return whether ``value`` is a dense tensor: neither sparse nor nested."""
    import torch

    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_nested


def to_array(name: str, value: object, fix: str = PASS_ARRAY) -> NDArray[Any]:
    """Return a tensor, an array, a column of a frame or nested lists as a NumPy array.

    Raises:
        InputError: If none can hold it: rows of different lengths, or a tensor that is not dense.
    """
    import numpy as np

    if is_tensor(value):
        check_dense(name, value)
        value = value.detach().cpu()
        # NumPy lacks bfloat16 and 8-bit floats.
        narrow = value.is_floating_point() and value.dtype.itemsize <= 2
        return (value.float() if narrow else value.resolve_conj().resolve_neg()).numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"{name} must be values that an array can hold", describe(value), fix
        ) from error


def check_dense(name: str, value: Tensor) -> None:
    """Raise InputError for a tensor that is sparse, nested, quantized or on the meta device.

    Raises:
        InputError: If it is one.

    Example:
        >>> import torch
        >>> check_dense("features", torch.zeros(2, 3).to_sparse())
        Traceback (most recent call last):
            ...
        fedlas._core.errors.InputError: features must be a dense tensor on a device that holds values; got ...
    """
    if not is_dense(value) or value.is_meta or value.is_quantized:
        got = describe(value)
        if is_tensor(value):
            kind = "quantized" if value.is_quantized else value.layout
            got = f"{'nested' if value.is_nested else kind} on {value.device}"
        raise InputError(
            f"{name} must be a dense tensor on a device that holds values",
            got,
            f"Convert it: {name}.to_dense() or .dequantize(), or compute it on a real device.",
        )


def check_finite(name: str, value: object) -> None:
    """Raise NonFiniteError for NaN or infinities, and InputError for absolute values above ``LARGEST`` (2**100).

    Args:
        name: What messages call it.
        value: An array or a tensor. One on an accelerator is copied, so do not call this in a training step.

    Raises:
        NonFiniteError: If any element is NaN or infinite; the message counts them and names the first.
        InputError: If any is larger than ``LARGEST``, or a tensor is not dense.

    Example:
        >>> check_finite("features", [1.0, float("nan")])
        Traceback (most recent call last):
            ...
        fedlas._core.errors.NonFiniteError: features must be finite; got 1 NaN or infinite of 2 values, the first ...
    """
    array = to_array(name, value)
    if array.dtype.kind != "f" or not array.size:
        return
    low, high = float(array.min()), float(array.max())
    # one pass without a mask; NaN makes both comparisons false
    if low >= -LARGEST and high <= LARGEST:
        return
    # From here on there is something to report, so the cost of a mask does not matter.
    import numpy as np

    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        first = tuple(int(place[0]) for place in bad.nonzero()) if bad.ndim else ()
        raise NonFiniteError(
            f"{name} must be finite",
            f"{count} NaN or infinite of {array.size} values, the first at index {first}",
            "Find the step where the model diverged; a metric of such values would mean nothing.",
        )
    raise InputError(
        f"{name} must be between {-LARGEST:g} and {LARGEST:g}",
        f"values from {low:g} to {high:g}",
        "Find the step where the model diverged, or rescale the values.",
    )
