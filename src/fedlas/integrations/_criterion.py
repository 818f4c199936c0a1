"""What several integrations do with a criterion: refuse one that mixes samples, and train its parameters."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_number


def refuse_mixing(criterion: nn.Module, fix: str) -> frozenset[str]:
    """Return what the criterion needs.

    Raises:
        InputError: If it mixes samples.
    """
    needs = frozenset(getattr(criterion, "needs", ()))
    if "mixed" in needs or hasattr(criterion, "mix"):
        raise InputError("the criterion must not mix samples", criterion, fix)
    return needs


def keywords_for(
    needs: Set[str], features: Tensor | None, head: Any, index: Tensor | None
) -> dict[str, Tensor]:
    """Return the keywords of a criterion that are in its ``needs``; ``head`` is the classifier head, or None."""
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
