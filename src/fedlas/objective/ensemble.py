"""Several models as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe
from fedlas.objective.call import class_logits

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Models of the same classes as one module, whose logits are the logarithm of the mean of their probabilities.

    ``fedlas.predict`` and ``fedlas.calibrate`` make one of a list of models.

    Args:
        members: Classifiers with logits ``(N, C)`` or ``(N, C, d1, ...)`` that take the same inputs. All are run on the
            device of the inputs.

    Raises:
        InputError: If there is none, one is no module, or one occurs twice; when called, if their logits differ in
            shape.

    Example:
        >>> ensemble = Ensemble([nn.Identity(), nn.Flatten()])
        >>> ensemble(torch.tensor([[0.0, 1.0]])).softmax(1)
        tensor([[0.2689, 0.7311]])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        wrong = [member for member in members if not isinstance(member, nn.Module)]
        if wrong or not members:
            fix = "Pass trained models, [m1, m2, m3]."
            raise InputError("members must be nn.Modules", describe(wrong[0] if wrong else []), fix)
        if len({id(member) for member in members}) < len(members):
            fix = "Pass each model once; a pruned list weighs them alike."
            raise InputError("members must be different models", "one of them twice", fix)
        self.members = nn.ModuleList(members)

    @property
    def called_as(self) -> nn.Module:
        """The member whose arguments the ensemble takes."""
        return self.members[0]

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Return ``log mean_k softmax(z_k)``, of the shape and dtype of a member's logits."""
        parts = [class_logits(member(*inputs, **options)) for member in self.members]
        try:
            log_probs = torch.stack([part.log_softmax(dim=1) for part in parts])
        except RuntimeError as error:  # an exporter knows no sizes to compare
            got = ", ".join(str(tuple(part.shape)) for part in parts)
            fix = "Check their classes."
            raise InputError("members must return logits of one shape", got, fix) from error
        return log_probs.logsumexp(dim=0) - math.log(len(parts))
