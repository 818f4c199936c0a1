"""Predictions as tensors, which whatever needs a model, a gradient or a fit in torch begins with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import PASS_ARRAY, InputError, check_dense, describe, is_tensor, to_array
from fedlas.predictions.probabilities import (
    FLOOR,
    NEAREST_TO_0,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SLOW_BELOW = 64
"""Classes below which torch's softmax of float64 rows on a CPU is slow."""


class PredictionTensors:
    """The arrays of predictions as tensors on one device, under the same names.

    Args:
        predictions: Of any kind. Reading what they do not have raises their error.
        device: Device of the tensors; None: the CPU, where they share the memory of the arrays.

    Note:
        Predictions do not change: write to a copy of a tensor. Each tensor is made at first use and kept.

    Example:
        >>> from fedlas import Predictions
        >>> tensors = Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]).tensors()
        >>> tensors.target, tensors.correct, tensors.features
        (tensor([0, 0]), tensor([ True, False]), None)
    """

    if TYPE_CHECKING:
        logits: Tensor
        scores: Tensor
        probs: Tensor
        target: Tensor
        predicted: Tensor
        confidence: Tensor
        correct: Tensor
        features: Tensor | None
        label_probs: Tensor | None
        weights: Tensor | None
        clusters: Tensor | None
        time: Tensor | None

    def __init__(self, predictions: Any, device: torch.device | str | None = None) -> None:
        self._predictions = predictions
        self._device = device

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._predictions, name)
        if not isinstance(value, np.ndarray):
            return value
        tensor = to_shared_tensor(value)
        vars(self)[name] = tensor = tensor if self._device is None else tensor.to(self._device)
        return tensor


def to_shared_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor on the memory of an array where torch can use it, else on a copy; read-only arrays give one, too.

    Raises:
        TypeError: For text and objects.
    """
    import torch

    # PyTorch takes neither foreign byte order nor negative strides; an axis of length 1 may have any.
    array = np.require(array, array.dtype.newbyteorder("="), ["C"])
    if min(array.strides, default=0) < 0:
        array = array.copy()
    # It warns of read-only memory, once and for all of a process: it gets the address without the mark.
    if array.flags.writeable:
        return torch.from_numpy(array)
    interface = array.__array_interface__ | {"data": (array.ctypes.data, False)}
    # The object keeps the array, whose memory it is.
    return torch.from_numpy(np.asarray(SimpleNamespace(array=array, __array_interface__=interface)))


def to_tensor(name: str, value: object, fix: str = PASS_ARRAY) -> Tensor:
    """Return a value as a tensor without gradient: a tensor, an array, a column of a frame or nested lists.

    Raises:
        InputError: If a dense tensor cannot hold it.
    """
    if is_tensor(value):
        check_dense(name, value)
        return value.detach()
    array = to_array(name, value, fix)
    try:
        return to_shared_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:  # text, objects
        raise InputError(
            f"{name} must be numbers that a tensor can hold", describe(value), fix
        ) from error


def softmax(logits: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the softmax over each row of ``logits (N, C)``; equal rows give identical results.

    Torch takes up to four times as long for few classes in float64 as for the parts. In float32 the parts would change
    last digits that published numbers depend on.
    """
    import torch

    slow = (
        logits.device.type == "cpu"
        and logits.dtype == torch.float64
        and logits.shape[1] < _SLOW_BELOW
    )
    if not slow or (logits.requires_grad and torch.is_grad_enabled()):
        return torch.softmax(logits, 1, out=out)
    probs = torch.sub(logits, logits.amax(dim=1, keepdim=True), out=out).exp_()
    return probs.div_(probs.sum(dim=1, keepdim=True))


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-softmax over each row of ``logits (N, C)``; also fast for few classes."""
    import torch

    slow = (
        logits.device.type == "cpu"
        and logits.dtype == torch.float64
        and logits.shape[1] < _SLOW_BELOW
    )
    return logits.T.contiguous().log_softmax(dim=0).T if slow else logits.log_softmax(dim=1)


def binary_logits(log_odds: Tensor) -> Tensor:
    """Return two-class logits ``(N, 2)``, ``(0, z)`` for log-odds ``z (N,)`` of the second class."""
    import torch

    return torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)


def safe_log(probs: Tensor) -> Tensor:
    """Return the logarithm of probabilities ``(N, C)``, clamped below at the smallest normal float32."""
    return probs.clamp(min=FLOOR).log()


def to_log_odds(probs: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of probabilities in float64; finite also for 0 and 1."""
    probs = probs.double()
    return probs.clamp(min=FLOOR).log() - (1.0 - probs).clamp(min=NEAREST_TO_0).log()
