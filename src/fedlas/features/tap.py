"""Reads the input of a module while the model runs, without changing the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_kinds, describe
from fedlas._core.threads import OfThread
from fedlas.features.head import check_model


class _Capture:
    """The tensor captured during a forward pass."""

    listening = False
    captured: Tensor | None = None
    calls = 0


class _CaptureByThread(OfThread, _Capture):
    """The same, separately for each thread."""


class FeatureTap:
    """Captures the first positional input of a module during one forward pass.

    If the module is a convolution on a single position, ``(N, D, 1, 1)``, the result is ``(N, D)``.

    Args:
        module: The module whose input to capture, usually the classifier head.
        flatten: Expect a map ``(N, D, ...)`` and return it as ``(N, D * ...)``, all positions of a sample in one row.

    State:
        A forward pre-hook on the module. It keeps a tensor only between :meth:`start` and :meth:`stop`, so other uses
        of the model do not keep activations alive. :meth:`remove` removes the hook. Each thread has its own start, stop
        and tensor: one tap serves a model that several threads run at once.

    Note:
        The hook is part of the module: ``copy.deepcopy`` and pickling include it, ``state_dict`` does not.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> tap = FeatureTap(model[2])
        >>> tap.start()
        >>> logits = model(torch.randn(5, 4))
        >>> tap.stop().shape
        torch.Size([5, 3])
    """

    @check_kinds
    def __init__(self, module: nn.Module, *, flatten: bool = False) -> None:
        check_model("FeatureTap", module)
        self._flatten = flatten
        self._conv = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        self._by_thread = _CaptureByThread()
        self._traced = _Capture()
        self._handle = module.register_forward_pre_hook(self._hook)

    def _hook(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        capture = self._capture
        if capture.listening:
            capture.captured = args[0] if args else None
            capture.calls += 1

    @property
    def _capture(self) -> _Capture:
        # A compiled graph returns the tensor itself, so the attributes matter only while one thread traces it; and not
        # every version of the compiler can trace attributes of a thread.
        return self._traced if torch.compiler.is_compiling() else self._by_thread

    def start(self) -> None:
        """Listen to the next forward pass."""
        self.cancel()
        self._capture.listening = True

    def stop(self) -> Tensor:
        """Return the tensor captured since :meth:`start`, and drop the reference to it.

        Raises:
            InputError: If the module did not run exactly once, or had no positional tensor; with ``flatten``, if that
                is not a map.
        """
        captured, calls = self._capture.captured, self._capture.calls
        self.cancel()
        if calls != 1:
            raise InputError(
                "FeatureTap",
                f"{'the pool' if self._flatten else 'the head'} must run exactly once in a forward pass",
                f"{calls} runs",
                "Name the module whose input is the map, e.g. Objective(model, criterion, features='avgpool')."
                if self._flatten
                else "Name the module that produces the logits, e.g. Objective(model, criterion, head='fc').",
            )
        if not isinstance(captured, Tensor):
            raise InputError(
                "FeatureTap",
                "the head's first argument must be a tensor",
                describe(captured),
                "Name another head module.",
            )
        if self._conv and captured.ndim > 2 and captured.shape[2:].numel() == 1:
            return captured.flatten(1)  # a head of one 1 x 1 convolution is a linear layer on a pooled map
        if not self._flatten:
            return captured
        if captured.ndim < 3:
            raise InputError(
                "FeatureTap",
                "the input of the pool must be a map (N, D, ...)",
                describe(captured),
                "Name a module that sees the map, e.g. Objective(model, criterion, features='avgpool').",
            )
        return captured.flatten(1)

    def cancel(self) -> None:
        """Stop listening and drop the captured tensor; for a forward pass that failed."""
        capture = self._capture
        capture.listening, capture.captured, capture.calls = False, None, 0

    def remove(self) -> None:
        """Remove the hook from the module."""
        self._handle.remove()
