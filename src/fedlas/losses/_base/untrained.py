"""Detection of loss parameters, such as the gate's, that are missing from the optimizer."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import warn_user

_WINDOW = 10
"""Training batches between two comparisons of parameter values, which synchronize an accelerator."""
_STRIKES = 3
"""Comparisons in which the model has changed and the loss has not, after which the warning is issued."""
_CALM = 200
"""Batches whose gradients were cleared by an optimizer, after which the check ends."""
_FEW = 64
"""Leading values of each parameter that are compared."""


class UntrainedWatch:
    """Check that the optimizer updates the parameters of a loss, by comparing them now and then with a model parameter.

    State:
        Not copied or pickled with the loss: a copy starts its own check.
    """

    def __init__(self) -> None:
        self.done = False
        self._own: list[nn.Parameter] = []
        self._of_model: weakref.ref[nn.Parameter] | None = None
        self._before: list[Tensor] = []
        self._left_over = self._calm = self._strikes = 0

    def __reduce__(self) -> tuple[type[UntrainedWatch], tuple[()]]:
        return UntrainedWatch, ()

    def see(self, parameters: Iterable[nn.Parameter], logits: Tensor, owner: str) -> None:
        """Observe a training batch, and warn once if parameters of the loss stay constant while the model changes."""
        if not self._own:
            self._begin([each for each in parameters if each.requires_grad], logits)
            return
        # An optimizer that has them clears their gradients before the next batch, or accumulates them and then steps.
        if all(each.grad is None for each in self._own):
            self._calm += 1
            if self._calm >= _CALM:
                self._stop()
            return
        self._left_over += 1
        if self._left_over % _WINDOW == 0:
            self._look(owner)

    def _begin(self, own: list[nn.Parameter], logits: Tensor) -> None:
        of_model = _parameter_behind(logits, own) if own else None
        if of_model is None:
            self._stop()
            return
        self._own = own
        self._of_model = weakref.ref(of_model)
        self._before = self._values(of_model)

    def _values(self, of_model: nn.Parameter) -> list[Tensor]:
        """Return copies of the leading values of the model parameter and of each loss parameter."""
        # Tensor versions would be cheaper, but fused optimizers do not increase them.
        return [each.detach().flatten()[:_FEW].clone() for each in (of_model, *self._own)]

    def _look(self, owner: str) -> None:
        of_model = None if self._of_model is None else self._of_model()
        if of_model is None:
            self._stop()
            return
        values = self._values(of_model)
        moved, *own_moved = [
            not torch.equal(*pair) for pair in zip(self._before, values, strict=True)
        ]
        if any(own_moved):
            self._stop()
            return
        self._before = values
        self._strikes += moved
        if self._strikes < _STRIKES:
            return
        parameters = self._own
        self._stop()
        if any(bool(each.grad.any()) for each in parameters if each.grad is not None):
            count = sum(each.numel() for each in parameters)
            warn_user(
                f"{owner}: the optimizer must include the {count:,} parameters of the loss, such as the gate's; got a "
                "model that changes and parameters that do not, so they are not trained. Build the optimizer from "
                "fedlas.param_groups(objective), or from [*model.parameters(), *criterion.parameters()]."
            )

    def _stop(self) -> None:
        self.done = True
        self._own = []
        self._before = []
        self._of_model = None


def _parameter_behind(logits: Tensor, own: list[nn.Parameter]) -> nn.Parameter | None:
    """Return the model parameter nearest to the logits in the autograd graph, or None if there is none."""
    mine = set(map(id, own))
    waiting: list[Any] = [logits.grad_fn]
    visited = set()
    for node in waiting:
        if node is None or node in visited:
            continue
        visited.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, nn.Parameter) and id(variable) not in mine:
            return variable
        waiting += [following for following, _ in node.next_functions]
    return None
