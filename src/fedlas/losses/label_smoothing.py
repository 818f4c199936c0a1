"""Cross-entropy and label smoothing, with a strength that may differ from sample to sample.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; Müller et al. 2019, "When Does Label
Smoothing Help?" (arXiv 1906.02629).
"""

from __future__ import annotations

from typing import Unpack, get_args

import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number, describe
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    LossWithStrength,
    Reduction,
    can_look,
    paper,
    prepare,
    reduce,
    smoothed_nll,
)

__all__ = ["CrossEntropy", "LabelSmoothing", "smoothed_cross_entropy"]


def smoothed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Tensor | float,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Label-smoothed cross-entropy whose strength may differ from sample to sample.

    ``l_i = (1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)``. With a float it equals
    ``F.cross_entropy(..., label_smoothing=alpha)``, class weights and soft targets included.

    Args:
        logits: ``(N, C)`` or ``(N, C, d1, ...)``, any floating dtype; half precision is computed in float32.
        target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets shaped like ``logits``.
        alpha: Strength in [0, 1]: a float, or a tensor that broadcasts to the shape of a hard target. Differentiable.
        weight: Class weights ``(C,)``.
        ignore_index: Value of hard targets that are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, as in ``F.cross_entropy``.

    Returns:
        A scalar, or the shape of a hard target for ``"none"``. Differentiable twice.

    Raises:
        InputError: For wrong shapes, and on CPU for targets or strengths out of range or nothing but ignored targets.

    Note:
        The log-softmax is kept for backward, as in ``F.cross_entropy``; of more than 16 million logits it is computed
        again. For hard targets the partition function cancels from the factor of alpha: ``d l_i / d alpha_i = z_y -
        mean_k z_k``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> smoothed_cross_entropy(logits, torch.tensor([0, 0]), alpha=torch.tensor([0.0, 0.1]))
        tensor(0.6951)
    """
    owner = "smoothed_cross_entropy"
    check_choice(owner, "reduction", reduction, get_args(Reduction))
    check_count(owner, "ignore_index", ignore_index, low=None)
    averaged = reduction == "mean"
    batch = prepare(owner, logits, target, ignore_index=ignore_index, weight=weight, averaged=averaged)
    if isinstance(alpha, Tensor):
        if can_look(alpha) and alpha.numel():
            low, high = (float(bound) for bound in alpha.detach().aminmax())
            if not 0 <= low <= high <= 1:
                raise InputError(
                    owner, "alpha must be in [0, 1]", f"values from {low:g} to {high:g}", "Pass strengths as fractions."
                )
        try:
            alpha = alpha.to(batch.logits.dtype).expand(batch.shape).reshape(-1)
        except RuntimeError as error:
            raise InputError(
                owner,
                f"alpha must broadcast to {batch.shape}",
                describe(alpha),
                "Pass one strength for all, or one for each position.",
            ) from error
    else:
        alpha = check_number(owner, "alpha", alpha, low=0, high=1)
    return reduce(smoothed_nll(batch.logits, batch.target, alpha, batch.weight), batch, reduction)


@LOSSES.register("ce", paper="Cross-entropy", year=1958, url="")
class CrossEntropy(Loss):
    """Cross-entropy: ``-log p_y``.

    Args:
        reduction: See :class:`~fedlas.losses.Loss`.
        ignore_index: See there.
        weight: See there.

    Note:
        Equals ``nn.CrossEntropyLoss``, which can replace it everywhere.

    Example:
        >>> import torch
        >>> CrossEntropy()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1269)
    """

    masked_classes = True

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return batch.cross_entropy()

    def reduced(self, batch: Batch) -> Tensor:
        """The reduced loss; the usual mean in one operation."""
        if self.reduction == "mean" and batch.valid is None and batch.weight is None and not batch.soft:
            return F.cross_entropy(batch.logits, batch.target)
        return super().reduced(batch)


@LOSSES.register("ls", **paper("When Does Label Smoothing Help?", 2019, "1906.02629"), tune={"alpha": "0.005:0.3:log"})
class LabelSmoothing(LossWithStrength):
    """Label smoothing: ``(1 - alpha) (-log p_y) + alpha mean_k(-log p_k)``.

    Args:
        alpha: Strength in [0, 1]; the smoothing mass is uniform over all C classes, including the target.
        **options: Those of every :class:`~fedlas.losses.Loss`. Class weights apply to the uniform part class by class,
            as in ``F.cross_entropy``.

    Raises:
        InputError: If alpha is outside [0, 1].

    Example:
        >>> import torch
        >>> LabelSmoothing(alpha=0.1)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.2269)
    """

    strength_bound = 1.0

    def __init__(self, *, alpha: float = 0.05, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("LabelSmoothing", "alpha", alpha, low=0, high=1)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        return smoothed_nll(batch.logits, batch.target, strength, batch.weight)
