"""A loss that is called with logits and target alone, wherever a training loop has room for no more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas._core.threads import OfThread
from fedlas.features import FeatureTap, find_head
from fedlas.objective import Objective, param_groups


class _LastRun(OfThread):
    """The head's input in the model's last run of a thread, or why there is none."""

    heard: Tensor | InputError | None = None


class DropInLoss(nn.Module):
    """``loss(logits, target)`` for a criterion that wants features: it listens to the model while that runs.

    For loops that cannot be changed: timm's script, torch-uncertainty's routines, skorch. Where the loop is your own,
    :class:`~fedlas.Objective` is safer, since model and loss are one module there.

    Args:
        model: The classifier whose logits are passed later; listened to, not owned.
        criterion: Any loss of this library, or e.g. ``nn.CrossEntropyLoss``.
        head: The classifier head, if the criterion needs features: its dotted name, the module, or None to find it.

    Attributes:
        criterion: The criterion.

    Raises:
        InputError: If no head is found, or the criterion mixes samples; when called, if the model has not run since
            the last call, or on another batch.

    State:
        Parameters and buffers are the criterion's, under ``criterion.``: save them with the model's, and give
        :meth:`param_groups` to the optimizer, or call :meth:`add_to`. The head's last input is held until the next
        call or the model's next run, each thread's for itself.

    Note:
        Call it once after each run of the model, on the whole output. Under DDP the gate is not part of the wrapped
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

    def __init__(self, model: nn.Module, criterion: nn.Module, head: str | nn.Module | None = None) -> None:
        super().__init__()
        for name, module in (("model", model), ("criterion", criterion)):
            if not isinstance(module, nn.Module):
                raise InputError("DropInLoss", f"the {name} must be an nn.Module", describe(module), "Build it first.")
        needs = frozenset(getattr(criterion, "needs", ()))
        if "mixed" in needs or hasattr(criterion, "mix"):
            raise InputError(
                "DropInLoss",
                "the criterion must not mix samples",
                criterion,
                "Mix in the loop, and pass the soft targets; or use fedlas.Objective.",
            )
        self.criterion = criterion
        self.needs = needs
        self._model = [model]  # in a list, so that it is not registered: its owner saves and moves it
        self._head: list[nn.Module] = []
        self._handles: list[Any] = []
        self._tap: FeatureTap | None = None
        self._run = _LastRun()
        if needs & {"features", "head_weight"}:
            found = find_head(model, head, num_classes=getattr(criterion, "num_classes", None))
            self._head.append(found)
            self._tap = FeatureTap(found)
            self._handles = [
                model.register_forward_pre_hook(self._before, prepend=True),
                model.register_forward_hook(self._after),
            ]

    @property
    def model(self) -> nn.Module:
        """The classifier that is listened to."""
        return self._model[0]

    def forward(self, logits: Tensor, target: Tensor, *, index: Tensor | None = None) -> Tensor:
        """The criterion's loss of what the model has just returned.

        Args:
            logits: The model's output, all of it.
            target: As the criterion takes it.
            index: Position of each sample in the training set ``(N,)``, for criteria that need it.

        Raises:
            InputError: As the criterion; or if the model has not run since the last call.
        """
        extra: dict[str, Tensor] = {}
        if self._tap is not None:
            heard, self._run.heard = self._run.heard, None
            if isinstance(heard, InputError):
                raise heard
            if heard is None or not isinstance(logits, Tensor) or len(heard) != len(logits):
                raise InputError(
                    "DropInLoss",
                    "it must be called once after each run of the model, on the model's whole output",
                    f"logits {describe(logits)}, and features {'of no run' if heard is None else describe(heard)}",
                    "Pass the loss the model it was built with, or use fedlas.Objective.",
                )
            if "features" in self.needs:
                extra["features"] = heard
            if "head_weight" in self.needs:
                extra["head_weight"] = self._head[0].weight  # type: ignore[assignment]  # the criterion checks it
        if index is not None and "index" in self.needs:
            extra["index"] = index
        loss: Tensor = self.criterion(logits, target, **extra)
        return loss

    def update_from_validation(self, predictions: Any) -> None:
        """Pass validation predictions on to a criterion that learns from them; nothing for one that does not."""
        update = getattr(self.criterion, "update_from_validation", None)
        if update is not None:
            update(predictions)

    def param_groups(self, *, weight_decay: float = 0.0, lr: float | None = None) -> list[dict[str, Any]]:
        """The model's parameters, and the criterion's without decay; see :func:`fedlas.param_groups`."""
        both: Any = self  # it has .model and .criterion, which is all that is read
        objective: Objective = both
        return param_groups(objective, weight_decay=weight_decay, lr=lr)

    def add_to(self, optimizer: torch.optim.Optimizer, *, lr: float | None = None) -> None:
        """Give the criterion's parameters to an optimizer of the model's, as a group without decay.

        Args:
            optimizer: One that does not have them yet; call it before a schedule is built on it.
            lr: Their learning rate; None is the optimizer's own.
        """
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [p for p in self.criterion.parameters() if p.requires_grad and id(p) not in known]
        if own:
            optimizer.add_param_group({"params": own, "weight_decay": 0.0} | ({} if lr is None else {"lr": lr}))

    def remove(self) -> None:
        """Stop listening: takes every hook off the model."""
        for handle in self._handles:
            handle.remove()
        if self._tap is not None:
            self._tap.remove()
        self._handles, self._run = [], _LastRun()

    def _before(self, *_: Any) -> None:
        if self._tap is not None:
            self._run.heard = None
            self._tap.start()

    def _after(self, *_: Any) -> None:
        if self._tap is not None:
            try:
                self._run.heard = self._tap.stop()
            except InputError as error:  # the model may be used otherwise, too: it matters only if a loss is wanted
                self._run.heard = error
