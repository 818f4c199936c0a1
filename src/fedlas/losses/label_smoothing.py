"""Cross-entropy and label smoothing, with one strength for all samples or one per sample.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; Müller et al. 2019, "When Does Label
Smoothing Help?" (arXiv 1906.02629).
"""

from __future__ import annotations

from typing import Any, Unpack, get_args

import torch
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
    can_read_values,
    cross_entropy,
    make_batch,
    paper_metadata,
    reduce,
)

_LARGE = 1 << 24
"""Elements of logits (64 MiB) above which backward recomputes the softmax instead of storing it."""


class _SmoothedNLL(torch.autograd.Function):
    """Autograd function of label-smoothed cross-entropy with hard targets and a strength per row."""

    # With q_k = (1 - a) [k = y] + a / C the loss is -sum_k q_k log p_k and its gradient p - q: one softmax pass
    # forward, one exp backward, and no one-hot rows in between. The log-softmax is kept for backward, as
    # F.cross_entropy does. For large logits it is computed again, which costs less than the memory of a second
    # vocabulary-sized tensor.
    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = F.log_softmax(logits, dim=1)
        hit = log_probs.gather(1, target[:, None]).squeeze(1)
        excess = hit - log_probs.mean(dim=1)
        return excess.mul(alpha).sub_(hit), log_probs, excess

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]
    ) -> None:
        # Apart from forward, as torch.func asks for.
        logits, target, alpha = inputs
        _, log_probs, excess = output
        ctx.mark_non_differentiable(log_probs, excess)
        # else backward would get (N, C) zeros for what is only kept
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            logits, log_probs if logits.numel() <= _LARGE else None, target, alpha, excess
        )

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, *_: None
    ) -> tuple[Tensor | None, None, Tensor | None]:
        if grad is None:  # the loss has no part in the result
            return None, None, None
        logits, log_probs, target, alpha, excess = ctx.saved_tensors
        target = target[:, None]
        share = (alpha / logits.shape[1])[:, None]
        on_target = (grad * (alpha - 1))[:, None]
        # create_graph=True: what was kept has no graph of its own, and nothing is in place
        if torch.is_grad_enabled():
            log_probs = F.log_softmax(logits, dim=1)
            excess = log_probs.gather(1, target).squeeze(1) - log_probs.mean(dim=1)
            slopes = ((log_probs.exp() - share) * grad[:, None]).scatter_add(1, target, on_target)
        else:
            probs = F.softmax(logits, dim=1) if log_probs is None else log_probs.exp()
            slopes = probs.sub_(share).mul_(grad[:, None]).scatter_add_(1, target, on_target)
        return slopes, None, grad * excess


def smoothed_nll(
    logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None = None
) -> Tensor:
    """Return ``(1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)`` per row, ``(N,)``, of validated inputs.

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)``, or soft targets ``(N, C)``.
        alpha: Strength, a float or one for each row ``(N,)``.
        weight: Class weights ``(C,)``, in both terms.
    """
    if not isinstance(alpha, Tensor):
        return F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=alpha)
    if target.ndim == 1 and weight is None:
        values: Tensor = _SmoothedNLL.apply(logits, target, alpha)[0]
        return values
    uniform = F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=1.0)
    return torch.lerp(cross_entropy(logits, target, weight), uniform, alpha)


def smoothed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Tensor | float,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return label-smoothed cross-entropy, with one strength for all samples or one per sample.

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
        InputError: For wrong shapes, and on CPU for targets or strengths out of range or if all targets are ignored.

    Note:
        The log-softmax is kept for backward, as in ``F.cross_entropy``; for more than 16 million logits it is computed
        again. For hard targets the partition function cancels from the factor of alpha: ``d l_i / d alpha_i = z_y -
        mean_k z_k``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> smoothed_cross_entropy(logits, torch.tensor([0, 0]), alpha=torch.tensor([0.0, 0.1]))
        tensor(0.6951)
    """
    check_choice("reduction", reduction, get_args(Reduction))
    check_count("ignore_index", ignore_index, low=None)
    averaged = reduction == "mean"
    batch = make_batch(logits, target, ignore_index=ignore_index, weight=weight, averaged=averaged)
    if isinstance(alpha, Tensor):
        try:
            low, high = (
                (float(bound) for bound in alpha.detach().aminmax())
                if can_read_values(alpha)
                else (0.0, 0.0)
            )
            alpha = alpha.to(batch.logits.dtype).expand(batch.shape).reshape(-1)
        except (RuntimeError, IndexError) as error:
            raise InputError(
                f"alpha must broadcast to {batch.shape}",
                describe(alpha),
                "Pass a float, or one strength per position.",
            ) from error
        if not 0 <= low <= high <= 1:
            raise InputError(
                "alpha must be in [0, 1]",
                f"values from {low:g} to {high:g}",
                "Pass fractions, such as 0.05.",
            )
    else:
        alpha = check_number("alpha", alpha, low=0, high=1)
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
    _nonfinite_if_masked = True

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return batch.cross_entropy()

    def reduced_loss(self, batch: Batch) -> Tensor:
        """Return the reduced loss; the plain mean is computed by a single fused operation."""
        if self.reduction == "mean" and batch.is_plain:
            return F.cross_entropy(batch.logits, batch.target)
        return super().reduced_loss(batch)


@LOSSES.register(
    "ls",
    **paper_metadata("When Does Label Smoothing Help?", 2019, "1906.02629"),
    tune={"alpha": "0.005:0.3:log"},
)
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
    _nonfinite_if_masked = True

    def __init__(self, *, alpha: float = 0.05, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, low=0, high=1)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Return the loss per position ``(M,)``, with ``strength``, a float or ``(M,)``, in place of alpha."""
        return smoothed_nll(batch.logits, batch.target, strength, batch.weight)

    def reduced_loss(self, batch: Batch) -> Tensor:
        """Return the reduced loss; the plain mean is computed by a single fused operation."""
        if self.reduction == "mean" and batch.is_plain:
            return F.cross_entropy(batch.logits, batch.target, label_smoothing=self.alpha)
        return super().reduced_loss(batch)
