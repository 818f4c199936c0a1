"""MMCE: maximum mean calibration error of a batch, a kernel statistic, as an auxiliary loss.

Source: Kumar, Sarawagi, Jain 2018, "Trainable Calibration Measures for Neural Networks from Kernel Mean Embeddings",
ICML, section 3 (https://proceedings.mlr.press/v80/kumar18a.html). Written from the paper.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack, get_args

import torch
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PenalizedLoss, Variant, map_row_blocks

_MAX_PAIRS = 1 << 22  # entries of the kernel matrix per block: 16 MiB in float32
_FLOOR = 1e-10  # added under the square root, whose slope is infinite at 0


def _kernel_quadratic_form(residual: Tensor, confidence: Tensor, width: float) -> Tensor:
    """Return ``sum_ij e_i K_ij e_j`` of residuals e with the kernel ``K_ij = exp(-|r_i - r_j| / width)``."""

    def block_products(left: Tensor, rows: Tensor) -> Tensor:
        kernel = ((rows[:, None] - confidence).abs() / -width).exp()
        return left * (kernel @ residual)

    return map_row_blocks(
        block_products, max(1, _MAX_PAIRS // len(confidence)), residual, confidence
    ).sum()


def kernel_calibration_error(
    confidence: Tensor,
    correct: Tensor,
    *,
    width: float = 0.4,
    balanced: bool = False,
    variant: Variant = "paper",
    valid: Tensor | None = None,
) -> Tensor:
    """Return the MMCE, a scalar of at least 0: ``sqrt(sum_ij e_i e_j exp(-|r_i - r_j| / width))``.

    ``e_i = (c_i - r_i) / m`` with confidence ``r``, correctness ``c`` in {0, 1} and ``m`` predictions. Balanced (the
    weighted form): divided by the number of predictions that are as right or wrong as ``i``, instead of by ``m``.

    Args:
        confidence: Largest probability of each prediction ``(N,)``.
        correct: Whether it is right ``(N,)`` bool.
        width: Width of the Laplacian kernel, above 0.
        balanced: Whether right and wrong predictions weigh the same, however many there are.
        variant: ``"paper"``, or ``"reference"`` as in popular code: the plain form without the root; the balanced form
            divided by each count twice, and 0 unless there are both right and wrong predictions.
        valid: Which predictions count ``(N,)`` bool; None counts all.

    Note:
        1e-10 is added under the root, so that its slope stays finite at 0. Costs O(N^2) time, and memory for at most
        4 million pairs at a time; a second derivative holds all pairs.

    Example:
        >>> kernel_calibration_error(torch.tensor([0.9, 0.7]), torch.tensor([True, False]))
        tensor(0.3221)
    """
    residual = correct.to(confidence.dtype) - confidence
    counted = torch.ones_like(confidence)
    if valid is not None:
        counted = valid.to(confidence.dtype)
        residual = torch.where(valid, residual, 0.0)
        confidence = torch.where(valid, confidence, 0.0)
    if not balanced:
        squared = _kernel_quadratic_form(residual / counted.sum().clamp(min=1), confidence, width)
        return squared if variant == "reference" else _safe_sqrt(squared)
    # Right and wrong predictions have equal weight: each residual is divided by the number of its own kind.
    right = (counted * correct).sum()
    wrong = counted.sum() - right
    count = torch.where(correct, right, wrong).clamp(min=1)
    if variant == "paper":
        return _safe_sqrt(_kernel_quadratic_form(residual / count, confidence, width))
    return _safe_sqrt(_kernel_quadratic_form(residual / count.square(), confidence, width)) * (
        (right > 0) & (wrong > 0)
    )


def _safe_sqrt(squared: Tensor) -> Tensor:
    # Rounding may make a sum of 0 slightly negative.
    return (squared.clamp(min=0) + _FLOOR).sqrt()


class _KernelPenalizedLoss(PenalizedLoss):
    """Base class of MMCE and weighted MMCE."""

    masked_classes = True
    balanced: ClassVar[bool]

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        width: float = 0.4,
        variant: Variant = "paper",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0)
        self.width = check_number("width", width, low=0, low_open=True)
        self.variant: Variant = check_choice("variant", variant, get_args(Variant))

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return cross-entropy per position, ``(M,)``, and the MMCE of the batch, a scalar."""
        nll, confidence, correct = batch.nll_and_confidence()
        return nll, kernel_calibration_error(
            confidence,
            correct,
            width=self.width,
            balanced=self.balanced,
            variant=self.variant,
            valid=batch.valid,
        )


PAPER_METADATA: dict[str, Any] = {
    "paper": "Trainable Calibration Measures from Kernel Mean Embeddings",
    "year": 2018,
    "url": "https://proceedings.mlr.press/v80/kumar18a.html",
    "pairwise": True,
    "tune": {"alpha": "0.1:20:log", "width": "0.1:1:log"},
}
"""Registry metadata of MMCE and weighted MMCE."""


@LOSSES.register("mmce", **PAPER_METADATA)
class MMCE(_KernelPenalizedLoss):
    """MMCE: ``-log p_y + alpha sqrt(mean_ij (c_i - r_i)(c_j - r_j) exp(-|r_i - r_j| / width))`` over the batch.

    ``r`` is the largest probability and ``c`` whether its class is right.

    Args:
        alpha: Weight of the calibration error (the paper's lambda), at least 0.
        width: Width of the Laplacian kernel in units of confidence, above 0; the paper uses 0.4.
        variant: ``"paper"``, or ``"reference"`` as in popular code, without the root.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions are left out of the error too.
            ``weight`` is applied to the cross-entropy and to the error's share in a sample's loss, not within it.

    Raises:
        InputError: If alpha is negative, width not above 0, or the variant unknown.

    Note:
        In addition to cross-entropy it costs O(M^2) time for M positions and any C, and memory for at most 4 million
        pairs at a time. The error is one number a batch. It is added to the loss of each position, so that mean, sum
        and none agree. It depends on the other samples of the batch: under DDP each rank uses its own part. Correctness
        has no gradient; the correct class of a soft target is its arg-max. 1e-10 is added under the root, so
        that its slope stays finite at 0.

    Example:
        >>> MMCE()(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.8772)
    """

    balanced = False


@LOSSES.register("mmce-weighted", **PAPER_METADATA)
class WeightedMMCE(_KernelPenalizedLoss):
    """Weighted MMCE: MMCE in which correct and incorrect predictions have equal total weight.

    The square of the error is ``sum_{c_i = c_j = 0} r_i r_j K_ij / w^2 + sum_{c_i = c_j = 1} (1 - r_i)(1 - r_j) K_ij /
    v^2 - 2 sum_{c_i = 1, c_j = 0} (1 - r_i) r_j K_ij / (v w)`` for ``v`` right and ``w`` wrong predictions and the
    kernel ``K_ij = exp(-|r_i - r_j| / width)``. The paper prefers it, because most training samples end up right.

    Args:
        alpha: Weight of the calibration error (the paper's lambda), at least 0.
        width: Width of the Laplacian kernel in units of confidence, above 0; the paper uses 0.4.
        variant: ``"paper"``, or ``"reference"`` as in popular code: divided by each count twice, and 0 unless the
            batch holds both right and wrong predictions.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions are left out of the error too.
            ``weight`` is applied to the cross-entropy and to the error's share in a sample's loss, not within it.

    Raises:
        InputError: If alpha is negative, width not above 0, or the variant unknown.

    Note:
        For cost, batch, soft targets and the root see :class:`MMCE`. If all predictions are right (or wrong), the
        paper's formula divides by 0; here the empty side adds nothing and the other one stays. If few are wrong, each
        of them weighs many times as much as in cross-entropy: a strength that suits MMCE may cost accuracy here.

    Example:
        >>> WeightedMMCE()(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor(1.3443)
    """

    balanced = True
