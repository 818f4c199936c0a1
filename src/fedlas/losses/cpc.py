"""CPC: calibration by pairwise constraints between the classes of a sample.

Source: Cheng and Vasconcelos 2022, "Calibrating Deep Neural Networks by Pairwise Constraints", CVPR
(https://openaccess.thecvf.com/content/CVPR2022/html/Cheng_Calibrating_Deep_Neural_Networks_by_Pairwise_Constraints_CVPR_2022_paper.html).
Written from the paper.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Unpack, get_args

import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    Variant,
    can_read_values,
    map_row_blocks,
)

_PAIRS_IN_CACHE = 1 << 18  # pairs of classes per block on a CPU: small enough for its cache
# Elsewhere each block is a kernel launch or a part of a compiled graph: few and large blocks.
_PAIRS_AT_ONCE = 1 << 24


def _weighted_pair_sums(logits: Tensor, target: Tensor, *, a: float, b: float) -> Tensor:
    """Return ``sum_jk (a t_j + b (T - t_j - t_k)) softplus(z_k - z_j)`` per row, ``(M,)``; ``T = sum_k t_k``."""
    # For a hard target: a times the target's constraints plus b times those among the other classes.
    gap = logits[:, None, :] - logits[:, :, None]  # z_k - z_j at [i, j, k]
    # Two classes j and k weigh claim_j - b t_k: a if j is the target, 0 if k is, else b; soft targets mix these.
    claim = a * target + b * (target.sum(dim=1, keepdim=True) - target)
    return (F.softplus(gap) * (claim[:, :, None] - b * target[:, None, :])).sum(dim=(1, 2))


def pairwise_constraint_penalty(
    logits: Tensor, target: Tensor, *, lambda1: float, lambda2: float, variant: Variant = "paper"
) -> Tensor:
    """Return the CPC penalty per row, ``(N,)``: target logit above the other logits, the other logits equal.

    ``lambda1 mean_{k != y} -log s(z_y - z_k) + lambda2 mean_{j != k; j, k != y} -0.5 log s(z_j - z_k)``, ``s`` the
    logistic function.

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)`` in ``[0, C)``, or soft targets ``(N, C)``: the expectation over the target.
        lambda1: Weight of the binary discrimination constraints.
        lambda2: Weight of the binary exclusion constraints; without effect for fewer than three classes.
        variant: ``"paper"``, or ``"reference"`` as in popular code, with the pairs ``j = k`` in the second sum: the
            constant ``lambda2 log(2) / (2 C - 4)`` more.

    Note:
        Costs O(N C^2) time, and memory for one block of pairs.

    Example:
        >>> import torch
        >>> pairwise_constraint_penalty(torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0]), lambda1=1.0, lambda2=0.0)
        tensor([0.2201])
    """
    classes = logits.shape[1]
    a = lambda1 / max(classes - 1, 1)
    b = lambda2 / (2 * max((classes - 1) * (classes - 2), 1))
    if target.ndim == 1:
        target = F.one_hot(target, classes).to(logits.dtype)
    pairs = _PAIRS_IN_CACHE if can_read_values(logits) else _PAIRS_AT_ONCE
    value = map_row_blocks(
        partial(_weighted_pair_sums, a=a, b=b), max(1, pairs // classes**2), logits, target
    )
    # The sum holds the pairs j = k too, at softplus(0) = log 2 each.
    diagonal = a + b * (classes - 2)
    if variant == "reference" and classes > 2:
        diagonal -= b * (classes - 1)
    return value - target.sum(dim=1) * (math.log(2) * diagonal)


@LOSSES.register(
    "cpc",
    paper="Calibrating Deep Neural Networks by Pairwise Constraints",
    year=2022,
    url="https://openaccess.thecvf.com/content/CVPR2022/html/"
    "Cheng_Calibrating_Deep_Neural_Networks_by_Pairwise_Constraints_CVPR_2022_paper.html",
    pairwise=True,
    tune={"lambda1": "0.001:1:log", "lambda2": "0.001:1:log"},
)
class CPC(Loss):
    """Calibration by pairwise constraints: cross-entropy plus :func:`pairwise_constraint_penalty`.

    Args:
        lambda1: Weight of the binary discrimination constraints (the target against each other class), at least 0.
        lambda2: Weight of the binary exclusion constraints (the other classes against each other), at least 0.
        variant: ``"paper"`` or ``"reference"`` (popular code, whose pairs ``j = k`` add a constant).
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Raises:
        InputError: If a weight is negative or the variant unknown.

    Note:
        Costs O(M C^2) time for M positions: 5 times cross-entropy at C = 10, some 150 times at C = 100 and 1,700 times
        at C = 1000 (measured on one CPU core, forward and backward). Memory is a few temporaries of one block of
        pairs each: 1 MiB in float32 on CPU, 64 MiB elsewhere.

    Example:
        >>> import torch
        >>> CPC(lambda1=0.0, lambda2=1.0)(torch.zeros(1, 3), torch.tensor([0]))
        tensor(1.4452)
    """

    def __init__(
        self,
        *,
        lambda1: float = 0.1,
        lambda2: float = 0.1,
        variant: Variant = "paper",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.lambda1 = check_number("lambda1", lambda1, low=0)
        self.lambda2 = check_number("lambda2", lambda2, low=0)
        self.variant: Variant = check_choice("variant", variant, get_args(Variant))

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        penalty = pairwise_constraint_penalty(
            batch.logits,
            batch.target,
            lambda1=self.lambda1,
            lambda2=self.lambda2,
            variant=self.variant,
        )
        return batch.cross_entropy() + batch.apply_class_weights(penalty)
