"""The labels of predictions: checked where they are, a described error where they are not."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from fedlas._core.check import InputError, describe


class Target:
    """Labels that a type checker knows as a tensor: reading them where there are none raises an InputError."""

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Tensor: ...

    def __get__(self, instance: object | None, owner: type) -> Tensor | None:
        if instance is None:  # the default of the argument
            return None
        target: Tensor | None = vars(instance)["target"]
        if target is None:
            raise no_labels(owner.__name__, len(vars(instance)["logits"]))
        return target

    def __set__(self, instance: object, value: Tensor | None) -> None:
        vars(instance)["target"] = value


def no_labels(owner: str, samples: int) -> InputError:
    """The error of what needs the labels of predictions that have none."""
    return InputError(
        owner,
        "predictions must hold labels",
        f"{samples} samples without target",
        "Pass the labels: Predictions(logits, target). Without them, predictions can be calibrated, scored and saved.",
    )


def checked_target(target: Tensor, logits: Tensor) -> Tensor:
    """Labels ``(N,)`` as int64 on the device of ``logits (N, C)``.

    Raises:
        InputError: If they are not whole numbers in ``[0, C)``, one for each row.
    """
    samples, classes = logits.shape
    if target.shape != (samples,) or target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise InputError(
            "Predictions",
            f"target must be integers of shape ({samples},) like logits {tuple(logits.shape)}",
            describe(target),
            "Pass class indices, not one-hot rows.",
        )
    target = target.to(device=logits.device, dtype=torch.int64)
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise InputError(
            "Predictions",
            f"target must be in [0, {classes}) like the {classes} columns of logits",
            f"values from {low} to {high}",
            "Remove ignored positions first, or check the number of classes.",
        )
    return target
