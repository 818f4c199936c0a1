"""Parameter groups for the optimizer: those of the model, and those of the criterion."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedlas._core.check import check_kinds, check_number
from fedlas.objective.objective import Objective, objective_in


@check_kinds
def param_groups(
    objective: Objective | nn.Module,
    *,
    weight_decay: float = 0.0,
    lr: float | None = None,
    decay_criterion: bool = False,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: the model's, and the criterion's (e.g. a gate) without weight decay.

    Args:
        objective: An :class:`Objective`, or one wrapped by ``DistributedDataParallel``, ``DataParallel`` or
            ``torch.compile``.
        weight_decay: Weight decay of the model's group.
        lr: Learning rate of the criterion's group; None uses that of the optimizer.
        decay_criterion: Whether the weight decay applies to the criterion too, as in the published FedLAS code.

    Returns:
        One group, or two if the criterion has trainable parameters; each has a ``name``.

    Raises:
        InputError: If it is no objective, or weight_decay or lr is not a number of at least 0.

    Example:
        >>> from fedlas.objective import Objective
        >>> from fedlas.losses import FedLAS
        >>> objective = Objective(nn.Linear(4, 3), FedLAS(num_classes=3))
        >>> [(g["name"], g["weight_decay"]) for g in param_groups(objective, weight_decay=5e-4)]
        [('model', 0.0005), ('criterion', 0.0)]
    """
    inner = objective_in(objective)
    return groups_of(
        inner.model,
        inner.criterion,
        weight_decay=weight_decay,
        lr=lr,
        decay_criterion=decay_criterion,
    )


def groups_of(
    model: nn.Module,
    criterion: nn.Module,
    *,
    weight_decay: float,
    lr: float | None,
    decay_criterion: bool = False,
) -> list[dict[str, Any]]:
    """Return :func:`param_groups` of a model and a criterion that are not in one objective."""
    check_number("weight_decay", weight_decay, low=0)
    if lr is not None:
        check_number("lr", lr, low=0)
    weights = [p for p in model.parameters() if p.requires_grad]
    of_model = set(map(id, weights))
    others = [p for p in criterion.parameters() if p.requires_grad and id(p) not in of_model]
    groups: list[dict[str, Any]] = [
        {"name": "model", "params": weights, "weight_decay": weight_decay}
    ]
    if others:
        decay = weight_decay if decay_criterion else 0.0
        groups.append({"name": "criterion", "params": others, "weight_decay": decay})
        if lr is not None:
            groups[-1]["lr"] = lr
    return groups
