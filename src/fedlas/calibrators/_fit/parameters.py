"""Access to fitted parameters, and their checked reading from JSON."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from fedlas._core.check import InputError

T = TypeVar("T")


def fitted(parameters: T | None) -> T:
    """Return ``parameters``, which are None before a fit.

    Raises:
        InputError: If they are None.
    """
    if parameters is None:
        raise InputError(
            "the calibrator must be fitted first", "an unfitted one", "Call fit(val) before."
        )
    return parameters


def read_array(state: dict[str, Any], name: str) -> Tensor:
    """Return the tensor of any shape that ``state[name]`` lists: int64 of whole numbers, else float64.

    Raises:
        ValueError: If it is anything but nested lists of finite numbers.
    """
    try:
        numbers = torch.tensor(state[name], device="cpu")
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error
    if numbers.dtype == torch.int64 or numbers.dtype == torch.bool:
        return numbers
    return read_numbers(state, name, *[None] * numbers.ndim)


def read_numbers(state: dict[str, Any], name: str, *shape: int | None) -> Tensor:
    """Return the float64 tensor that ``state[name]`` lists.

    Args:
        state: The state in a calibrator's file.
        name: Key of the parameter.
        *shape: Expected length of each dimension; None: any.

    Raises:
        KeyError: If it is missing.
        ValueError: If it is anything but nested lists of finite numbers of that shape.
    """
    try:
        numbers = torch.tensor(state[name], dtype=torch.float64, device="cpu")
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error
    fits = len(shape) == numbers.ndim and all(
        n is None or n == m for n, m in zip(shape, numbers.shape, strict=True)
    )
    if not fits or not bool(torch.isfinite(numbers).all()):
        raise ValueError(
            f"{name} must be finite numbers of shape {shape}, got {tuple(numbers.shape)}"
        )
    return numbers
