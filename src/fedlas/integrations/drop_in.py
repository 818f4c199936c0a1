"""Losses for training loops that pass only logits and target."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_number, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import ThreadLocal
from fedlas.features import FeatureTap, find_head
from fedlas.objective.objective import make_param_groups

__all__ = ["DropInLoss"]


class _LastForward(ThreadLocal):
    """The head's input from the last forward pass in this thread, or the error that reading it raised."""

    features: Tensor | InputError | None = None


class DropInLoss(nn.Module):
    """Wrapper for criteria that need features, called as ``loss(logits, target)``; model hooks read the features.

    It is for loops that cannot be changed: timm's script, torch-uncertainty's routines, skorch. In your own loop
    :class:`~fedlas.Objective` is safer, since it is model and loss in one module.

    Args:
        model: The classifier whose logits are passed later; it gets hooks, and is not a submodule.
        criterion: Any loss of this library, or e.g. ``nn.CrossEntropyLoss``.
        head: The classifier head, if the criterion needs features: its dotted name, the module, or None to find it.

    Attributes:
        criterion: The criterion.

    Raises:
        InputError: If no head is found, or the criterion mixes samples; when called, if the model has not run since
            the last call, or on another batch.

    State:
        Parameters and buffers are those of the criterion, under ``criterion.``: save them with the model's, and give
        :meth:`param_groups` to the optimizer, or call :meth:`add_to_optimizer`. The head's last input is kept until the
        next call or the next run of the model, separately in each thread.

    Note:
        Call it once after each run of the model, with the whole output. Under DDP the gate is not part of the wrapped
        model, so its gradient is not averaged over ranks: use :class:`~fedlas.Objective`, or the classes for Hugging
        Face and timm.

    Example:
        >>> from fedlas.losses import FedLAS
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> loss = DropInLoss(model, FedLAS(num_classes=3))
        >>> loss(model(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])).ndim
        0
    """

    def __init__(
        self, model: nn.Module, criterion: nn.Module, head: str | nn.Module | None = None
    ) -> None:
        super().__init__()
        for name, module in (("model", model), ("criterion", criterion)):
            if not isinstance(module, nn.Module):
                raise InputError(
                    f"{name} must be an nn.Module", describe(module), "Build it first."
                )
        fix = "Mix samples in the training loop and pass soft targets, or use fedlas.Objective."
        self.needs = require_no_mixing(criterion, fix)
        self.criterion = criterion
        # in a list, so that it is not a submodule: its owner saves and moves it
        self._model = [model]
        self._head: list[nn.Module] = []
        self._handles: list[Any] = []
        self._tap: FeatureTap | None = None
        self._run = _LastForward()
        if self.needs & {"features", "head_weight"}:
            # Hooks of the whole model mark where one run of it ends and the next begins.
            layer = find_head(model, head, num_classes=getattr(criterion, "num_classes", None))
            self._head.append(layer)
            self._tap = FeatureTap(layer)
            self._handles = [
                model.register_forward_pre_hook(self._start_tap, prepend=True),
                model.register_forward_hook(self._stop_tap),
            ]

    @property
    def model(self) -> nn.Module:
        """The classifier."""
        return self._model[0]

    def forward(self, logits: Tensor, target: Tensor, *, index: Tensor | None = None) -> Tensor:
        """Return the loss of the criterion for the model's last output.

        Args:
            logits: The model's whole output.
            target: As for the criterion.
            index: Position of each sample in the training set ``(N,)``, for criteria that need it.

        Raises:
            InputError: As the criterion, or if the model has not run since the last call.
        """
        features: Tensor | None = None
        if self._tap is not None:
            # Each run of the model is used once: a stale input would give wrong gradients without an error.
            last = self._run.features
            self._run.features = None
            if isinstance(last, InputError):
                raise last
            if last is None or not isinstance(logits, Tensor) or len(last) != len(logits):
                raise InputError(
                    "the loss must be called once after each forward pass, with the model's whole output",
                    f"logits {describe(logits)}; features {'of no forward pass' if last is None else describe(last)}",
                    "Call the model that the loss was built with, or use fedlas.Objective.",
                )
            features = last
        head = self._head[0] if self._head else None
        extra = criterion_keywords(self.needs, features, head, index)
        loss: Tensor = self.criterion(logits, target, **extra)
        return loss

    def update_from_validation(self, predictions: Any) -> None:
        """Update the criterion from validation predictions, if it has ``update_from_validation``."""
        update = getattr(self.criterion, "update_from_validation", None)
        if update is not None:
            update(predictions)

    def param_groups(
        self, *, weight_decay: float = 0.0, lr: float | None = None
    ) -> list[dict[str, Any]]:
        """Return optimizer groups: the model's parameters, and the criterion's without weight decay."""
        return make_param_groups(self.model, self.criterion, weight_decay=weight_decay, lr=lr)

    @check_argument_types
    def add_to_optimizer(
        self, optimizer: torch.optim.Optimizer, *, lr: float | None = None
    ) -> None:
        """Add the criterion's parameters to an optimizer, as a group without weight decay.

        Args:
            optimizer: Optimizer of the model; build learning-rate schedules after this call.
            lr: Learning rate of the group; None uses the optimizer's own.
        """
        add_parameters(optimizer, self.criterion, lr=lr)

    def remove(self) -> None:
        """Remove every hook from the model."""
        for handle in self._handles:
            handle.remove()
        if self._tap is not None:
            self._tap.remove()
        self._handles, self._run = [], _LastForward()

    def _start_tap(self, *_: Any) -> None:
        if self._tap is not None:
            self._run.features = None
            self._tap.start()

    def _stop_tap(self, *_: Any) -> None:
        if self._tap is not None:
            try:
                self._run.features = self._tap.stop()
            except InputError as error:  # raised later, and only if a loss is computed
                self._run.features = error


def require_no_mixing(criterion: nn.Module, fix: str) -> frozenset[str]:
    """Return the ``needs`` of a criterion, or raise InputError if the criterion mixes samples.

    Raises:
        InputError: If it mixes samples.
    """
    needs = frozenset(getattr(criterion, "needs", ()))
    if "mixed" in needs or hasattr(criterion, "mix"):
        raise InputError("the criterion must not mix samples", criterion, fix)
    return needs


def criterion_keywords(
    needs: Set[str], features: Tensor | None, head: Any, index: Tensor | None
) -> dict[str, Tensor]:
    """Return the keyword arguments that a criterion needs: features, head weight and index."""
    values = {"features": features, "head_weight": getattr(head, "weight", None), "index": index}
    return {name: value for name, value in values.items() if value is not None and name in needs}


def add_parameters(
    optimizer: torch.optim.Optimizer, criterion: nn.Module, *, lr: float | None = None
) -> bool:
    """Add the criterion's parameters to an optimizer, as a group without weight decay.

    Returns:
        Whether there were any that the optimizer did not have.
    """
    if lr is not None:
        check_number("lr", lr, low=0)
    present = {id(p) for group in optimizer.param_groups for p in group["params"]}
    new = [p for p in criterion.parameters() if p.requires_grad and id(p) not in present]
    if new:
        group: dict[str, Any] = {"params": new, "weight_decay": 0.0}
        optimizer.add_param_group(group if lr is None else {**group, "lr": lr})
    return bool(new)


def ignored_label(criterion: nn.Module) -> int:
    """Return the criterion's ``ignore_index``, by default -100."""
    return getattr(criterion, "ignore_index", -100)


def mean_divisor(criterion: nn.Module, labels: Tensor) -> Tensor:
    """Return the divisor of the criterion's mean over labels, such as the number of valid labels."""
    counted: Callable[[Tensor], Tensor] | None = getattr(criterion, "count_known_labels", None)
    if counted is not None:
        return counted(labels)
    if labels.is_floating_point():
        return torch.tensor(labels[:, 0].numel(), device=labels.device)
    valid = labels != ignored_label(criterion)
    weight = getattr(criterion, "weight", None)
    if weight is None:
        return valid.sum()
    return (weight.to(labels.device)[torch.where(valid, labels, 0)] * valid).sum()
