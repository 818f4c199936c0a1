"""Normalization of pixels, as one multiplication and one addition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlas._core.check import InputError, describe

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def is_valid_normalization(mean: Sequence[float], std: Sequence[float], channels: int) -> bool:
    """Return whether ``mean`` and ``std`` have one finite value per channel, with every ``std`` above 0."""
    try:
        values = [float(value) for value in (*mean, *std)]
    except (TypeError, ValueError):  # no numbers
        return False
    is_fitting = len(mean) == len(std) == channels
    return is_fitting and all(map(math.isfinite, values)) and min(values[channels:], default=0) > 0


def normalization_scale_shift(
    mean: Sequence[float],
    std: Sequence[float],
    *,
    channels: int,
    device: torch.device,
    max_value: float = 255.0,
    axes: int = 2,
) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of channel normalization: ``input * scale + shift == (input / white - mean) / std``.

    Args:
        mean: Mean of each channel, in units of ``max_value``.
        std: Standard deviation of each.
        channels: How many there are.
        device: Device of the numbers.
        max_value: Largest value of a pixel; 1 for inputs in units of their own.
        axes: Axes of an input after its channels.

    Returns:
        Scale and shift, ``(1, channels, 1, ...)``.

    Raises:
        InputError: If the statistics do not fit the channels.
    """
    import torch

    if not is_valid_normalization(mean, std, channels):
        raise InputError(
            f"mean and std must have one finite number per channel ({channels}), with std above 0",
            f"mean {describe(mean)}, std {describe(std)}",
            "Use the mean and std of the data splits.",
        )
    # In float64, so that each constant is rounded once, at the end.
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    deviation = torch.tensor(std, dtype=torch.float64)
    scale = 1 / (max_value * deviation)
    shift = -torch.tensor(mean, dtype=torch.float64) / deviation

    def to_image_shape(value: Tensor) -> Tensor:
        return value.float().to(device).view(1, -1, *[1] * axes)

    return to_image_shape(scale), to_image_shape(shift)
