"""Warns when a training step costs far more than its arithmetic suggests."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["StepWatch", "matmul_rate"]

_TIMED = 5
"""Steps that are timed; the first one, which prepares kernels, is not among them."""
_BRIEF = 0.05
"""A step of fewer seconds is never reported: what it costs is not its arithmetic but calling the operations."""
_SLOW = 10.0


class StepWatch:
    """Times the first steps on a processor and warns once if they are ten times slower than they should be.

    A step should take about the time that one product of large float32 matrices takes for as many operations. Common
    networks need one to five times as much.

    Args:
        model: What is trained; the watch counts the operations of its forward pass, and takes three times as many for a
            step.
        precision: ``fp32`` or ``bf16``, for the remedy.
        active: False watches nothing. Right only where the steps run on the processor, in this process.
        clock: Seconds of processor time of this process. Unlike the time of day it does not grow while other
            processes compute, so that a busy machine raises no alarm.
        rate: Operations per second of ``clock`` in a large float32 matrix product.

    Attributes:
        text: The warning; None without one.

    State:
        Neither model nor random generators change. Nothing is counted or measured unless a step takes over 50 ms.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: str,
        active: bool = True,
        clock: Callable[[], float] = time.process_time,
        rate: Callable[[Callable[[], float]], float] | None = None,
    ) -> None:
        self.model, self.precision, self.active = model, precision, active
        self.clock, self.rate = clock, rate or matmul_rate
        self.text: str | None = None
        self._seconds: list[float] = []

    @contextmanager
    def step(self, inputs: Any) -> Iterator[None]:
        """Around a step on ``inputs (B, ...)``, without the wait for them."""
        if not self.active:
            yield
            return
        started = self.clock()
        yield
        self._seconds.append(self.clock() - started)
        if len(self._seconds) > _TIMED:
            self.active = False
            self._judge(statistics.median(self._seconds[1:]), inputs)

    def _judge(self, seconds: float, inputs: Any) -> None:
        if seconds < _BRIEF or not isinstance(inputs, Tensor):
            return
        operations = self._operations(inputs)
        if not operations or (factor := seconds * self.rate(self.clock) / operations) < _SLOW:
            return
        remedy = "--precision fp32 in a new --out" if self.precision == "bf16" else "one thread, OMP_NUM_THREADS=1"
        self.text = (
            f"training steps are over {_SLOW:.0f} times slower than their arithmetic: try {remedy}. "
            f"A step takes {seconds:.2g} s of processor time; its {operations / 1e9:.2g} billion operations take "
            f"{seconds / factor:.2g} s in a matrix product."
        )
        logging.getLogger("fedlas").warning("%s", self.text)

    def _operations(self, inputs: Tensor) -> int:
        """Floating-point operations of a step; 0 if they cannot be counted."""
        training = self.model.training
        self.model.eval()  # so that batch norms do not move
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), FlopCounterMode(display=False) as counter:
                self.model(inputs)
            return 3 * int(counter.get_total_flops())
        except Exception:  # noqa: BLE001 - a model that cannot be counted must train all the same
            return 0
        finally:
            self.model.train(training)


def matmul_rate(clock: Callable[[], float]) -> float:
    """Operations per second of ``clock`` in a product of float32 matrices, the best of five."""
    size = 512
    left, right = torch.ones(size, size), torch.ones(size, size)
    seconds = []
    for _ in range(5):
        started = clock()
        left @ right
        seconds.append(clock() - started)
    return float(2 * size**3 / max(min(seconds), 1e-9))
