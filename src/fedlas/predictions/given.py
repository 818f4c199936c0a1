"""What a user passes as numbers, as a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_dense, describe


def detached(name: str, value: Any) -> Tensor:
    """A tensor without gradients, or an array or nested lists as a tensor.

    Raises:
        InputError: If it is nothing that a dense tensor can hold.
    """
    if isinstance(value, Tensor):
        check_dense("Predictions", name, value)
        return value.detach()
    try:
        array = np.asarray(value)
        # PyTorch takes neither foreign byte order nor negative strides, and warns of read-only memory: copy only then.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:  # text, objects, rows of different lengths, more bits than torch has
        raise InputError(
            "Predictions",
            f"{name} must be numbers that a tensor can hold",
            describe(value),
            "Pass a tensor, or a NumPy array of a common dtype.",
        ) from error
