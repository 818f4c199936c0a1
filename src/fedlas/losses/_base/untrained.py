"""Detection of loss parameters, such as the gate's, that are missing from the optimizer."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import warn_user

_BATCHES_PER_CHECK = 10
"""Training batches between two comparisons of parameter values, which synchronize an accelerator."""
_MAX_STRIKES = 3
"""Comparisons in which the model has changed and the loss has not, after which the warning is issued."""
_MAX_CALM_BATCHES = 200
"""Batches whose gradients were cleared by an optimizer, after which the check ends."""
_VALUES_COMPARED = 64
"""Leading values of each parameter that are compared."""


class UntrainedParameterWatch:
    """Check that the optimizer updates the parameters of a loss, by comparing them now and then with a model parameter.

    State:
        Not copied or pickled with the loss: a copy starts its own check.
    """

    def __init__(self) -> None:
        self.done = False
        self._own: list[nn.Parameter] = []
        self._model_parameter: weakref.ref[nn.Parameter] | None = None
        self._before: list[Tensor] = []
        self._left_over = self._calm = self._strikes = 0

    def __reduce__(self) -> tuple[type[UntrainedParameterWatch], tuple[()]]:
        return UntrainedParameterWatch, ()

    def observe_batch(self, parameters: Iterable[nn.Parameter], logits: Tensor, owner: str) -> None:
        """Observe a training batch, and warn once if parameters of the loss stay constant while the model changes."""
        if not self._own:
            self._start_watching([each for each in parameters if each.requires_grad], logits)
            return
        # An optimizer that has them clears their gradients before the next batch, or accumulates them and then steps.
        if all(each.grad is None for each in self._own):
            self._calm += 1
            if self._calm >= _MAX_CALM_BATCHES:
                self._stop_watching()
            return
        self._left_over += 1
        if self._left_over % _BATCHES_PER_CHECK == 0:
            self._compare_values(owner)

    def _start_watching(self, loss_parameters: list[nn.Parameter], logits: Tensor) -> None:
        of_model = _nearest_model_parameter(logits, loss_parameters) if loss_parameters else None
        if of_model is None:
            self._stop_watching()
            return
        self._own = loss_parameters
        self._model_parameter = weakref.ref(of_model)
        self._before = self._copy_values(of_model)

    def _copy_values(self, model_parameter: nn.Parameter) -> list[Tensor]:
        """Return copies of the leading values of the model parameter and of each loss parameter."""
        # Tensor versions would be cheaper, but fused optimizers do not increase them.
        return [
            each.detach().flatten()[:_VALUES_COMPARED].clone()
            for each in (model_parameter, *self._own)
        ]

    def _compare_values(self, owner: str) -> None:
        of_model = None if self._model_parameter is None else self._model_parameter()
        if of_model is None:
            self._stop_watching()
            return
        values = self._copy_values(of_model)
        moved, *own_moved = [
            not torch.equal(*pair) for pair in zip(self._before, values, strict=True)
        ]
        if any(own_moved):
            self._stop_watching()
            return
        self._before = values
        self._strikes += moved
        if self._strikes < _MAX_STRIKES:
            return
        parameters = self._own
        self._stop_watching()
        if any(bool(each.grad.any()) for each in parameters if each.grad is not None):
            count = sum(each.numel() for each in parameters)
            warn_user(
                f"{owner}: the optimizer must include the {count:,} parameters of the loss, such as the gate's; got a "
                "model that changes and parameters that do not, so they are not trained. Build the optimizer from "
                "fedlas.param_groups(objective), or from [*model.parameters(), *criterion.parameters()]."
            )

    def _stop_watching(self) -> None:
        self.done = True
        self._own = []
        self._before = []
        self._model_parameter = None


def _nearest_model_parameter(
    logits: Tensor, loss_parameters: list[nn.Parameter]
) -> nn.Parameter | None:
    """Return the model parameter nearest to the logits in the autograd graph, or None if there is none."""
    mine = set(map(id, loss_parameters))
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
