"""skorch: a scikit-learn classifier trained with any loss of this library."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fedlas._core.extras import require
from fedlas.integrations.drop_in import DropInLoss

require("skorch", extra="skorch")

from skorch import NeuralNetClassifier  # noqa: E402 (after require, whose error names the extra)

__all__ = ["CriterionClassifier"]


class CriterionClassifier(NeuralNetClassifier):
    """``skorch.NeuralNetClassifier`` for modules that return logits, with any criterion of this library.

    Args:
        module: As for ``NeuralNetClassifier``; returns logits ``(N, C)``.
        *args: Those of ``NeuralNetClassifier``.
        criterion: A loss of this library, class or object; options as ``criterion__alpha=0.1``.
        head: The classifier head, if it cannot be found: its dotted name.
        predict_nonlinearity: Function from logits to probabilities; None is the softmax, which skorch does not use by
            default for a criterion that it does not know.
        **kwargs: Those of ``NeuralNetClassifier``.

    Raises:
        InputError: On fitting, as :class:`~fedlas.integrations.drop_in.DropInLoss`.
        MissingExtraError: On import, if skorch is not installed.

    State:
        ``criterion_`` holds gate and NCI; ``save_params(f_params=..., f_optimizer=..., f_criterion=...)`` and pickling
        keep them. The gate is in its own group of the optimizer, without weight decay.

    Example:
        >>> import torch
        >>> from fedlas.losses import FedLAS
        >>> _ = torch.manual_seed(0)
        >>> net = CriterionClassifier(nn.Linear(4, 3), criterion=FedLAS, criterion__num_classes=3, max_epochs=1,
        ...     train_split=None, verbose=0)
        >>> net.fit(torch.randn(30, 4), torch.arange(30) % 3).predict_proba(torch.zeros(2, 4)).sum(1).round(3)
        array([1., 1.], dtype=float32)
    """

    module_: Any
    criterion_: Any
    optimizer_: Any

    def __init__(
        self,
        module: Any,
        *args: Any,
        criterion: Any = nn.CrossEntropyLoss,
        head: str | None = None,
        predict_nonlinearity: Any = None,
        **kwargs: Any,
    ) -> None:
        chosen = softmax if predict_nonlinearity is None else predict_nonlinearity
        super().__init__(module, *args, criterion=criterion, predict_nonlinearity=chosen, **kwargs)
        self.head = head

    def initialize_module(self) -> CriterionClassifier:
        """Initialize the module as skorch does, and connect an existing criterion to the new module."""
        super().initialize_module()
        if isinstance(getattr(self, "criterion_", None), DropInLoss):
            self.criterion_ = DropInLoss(self.module_, self.criterion_.criterion, self.head)
        return self

    def initialize_criterion(self) -> CriterionClassifier:
        """Initialize the criterion as skorch does, and connect it to the module."""
        super().initialize_criterion()
        if not isinstance(self.criterion_, DropInLoss):
            self.criterion_ = DropInLoss(self.module_, self.criterion_, self.head)
        return self

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> CriterionClassifier:
        """Initialize the optimizer as skorch does, with the criterion's parameters in a group without weight decay."""
        super().initialize_optimizer(*args, **kwargs)
        criterion_ids = {id(p) for p in self.criterion_.criterion.parameters()}
        for group in self.optimizer_.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in criterion_ids]
        self.criterion_.add_to_optimizer(self.optimizer_)
        return self


def softmax(logits: Tensor) -> Tensor:
    """Return softmax probabilities ``(N, C)`` of logits ``(N, C)``."""
    return logits.softmax(dim=1)
