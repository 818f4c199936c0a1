"""Cross-entropy and label smoothing, on a closed form whose strength may differ from sample to sample.

Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; Müller et al. 2019, "When Does Label
Smoothing Help?" (arXiv 1906.02629).
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_number, describe
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions, prepare, reduce


class _SmoothedNLL(torch.autograd.Function):
    """Per-sample smoothed negative log-likelihood.

    With ``q_k = w_k ((1 - a) t_k + a / C)`` the loss is ``-sum_k q_k log p_k`` and its gradient ``(sum_k q_k) p - q``:
    one softmax pass each way. Only the logits, which the caller holds anyway, stay alive in between; saving the
    log-softmax as ``F.cross_entropy`` does would double the memory.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None) -> Tensor:
        hit, mean = _hit_and_mean(F.log_softmax(logits, dim=1), target, weight)
        varies = isinstance(alpha, Tensor)
        difference = hit - mean if varies or alpha else None
        ctx.alpha = None if varies else alpha
        ctx.save_for_backward(logits, target, alpha if varies else None, weight, difference if varies else None)
        return -hit if difference is None else difference.mul(alpha).sub_(hit)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        logits, target, alpha, weight, difference = ctx.saved_tensors
        strength = ctx.alpha if alpha is None else alpha
        grad_logits = grad_target = grad_alpha = None
        if ctx.needs_input_grad[0]:
            grad_logits = _grad_logits(grad, logits, target, strength, weight)
        if ctx.needs_input_grad[1]:
            log_probs = F.log_softmax(logits, dim=1)
            grad_target = ((strength - 1) * grad)[:, None] * (log_probs if weight is None else log_probs * weight)
        if ctx.needs_input_grad[2]:
            if torch.is_grad_enabled():  # create_graph=True: the saved difference has no graph of its own
                hit, mean = _hit_and_mean(F.log_softmax(logits, dim=1), target, weight)
                difference = hit - mean
            grad_alpha = grad * difference
        return grad_logits, grad_target, grad_alpha, None


def _hit_and_mean(log_probs: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """``sum_k w_k t_k log p_k`` and ``mean_k w_k log p_k``, both ``(N,)``."""
    if target.ndim == 1:
        hit = log_probs.gather(1, target[:, None]).squeeze(1)
        if weight is None:
            return hit, log_probs.mean(dim=1)
        return hit * weight[target], log_probs @ weight / log_probs.shape[1]
    if weight is None:
        return (log_probs * target).sum(dim=1), log_probs.mean(dim=1)
    return (log_probs * target) @ weight, log_probs @ weight / log_probs.shape[1]


def _grad_logits(grad: Tensor, logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None) -> Tensor:
    """``grad * ((sum_k q_k) p - q)``, ``(N, C)``; in place on the softmax where no second derivative is wanted."""
    classes = logits.shape[1]
    probs = F.softmax(logits, dim=1)
    smoothed = grad * alpha
    if target.ndim == 1 and weight is None:
        off_target, on_target = (smoothed * (1 / classes))[:, None], (smoothed - grad)[:, None]
        if torch.is_grad_enabled():
            return (probs * grad[:, None] - off_target).scatter_add(1, target[:, None], on_target)
        return probs.mul_(grad[:, None]).sub_(off_target).scatter_add_(1, target[:, None], on_target)
    if target.ndim == 1:
        target = F.one_hot(target, classes).to(logits.dtype)
    mass = (grad - smoothed)[:, None] * target + (smoothed * (1 / classes))[:, None]
    if weight is not None:
        mass = mass * weight
    return probs * mass.sum(dim=1, keepdim=True) - mass


def smoothed_nll(logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None = None) -> Tensor:
    """Per-sample smoothed negative log-likelihood ``(N,)`` of checked inputs; see :func:`smoothed_cross_entropy`."""
    values: Tensor = _SmoothedNLL.apply(logits, target, alpha, weight)
    return values


def smoothed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: Tensor | float,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Label-smoothed cross-entropy whose strength may differ from sample to sample.

    ``l_i = (1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)``. With a float it equals
    ``F.cross_entropy(..., label_smoothing=alpha)``, class weights and soft targets included.

    Args:
        logits: ``(N, C)`` or ``(N, C, d1, ...)``, any floating dtype; half precision is computed in float32.
        target: Class indices ``(N,)`` or ``(N, d1, ...)``, or soft targets shaped like ``logits``.
        alpha: Strength in [0, 1]: a float, or a tensor that broadcasts to the shape of a hard target. Differentiable.
        weight: Class weights ``(C,)``.
        ignore_index: Hard target value that is left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, as in ``F.cross_entropy``.

    Returns:
        A scalar, or the shape of a hard target for ``"none"``. Differentiable twice.

    Raises:
        InputError: For wrong shapes, and on CPU for targets or strengths out of range or nothing but ignored targets.

    Note:
        Between forward and backward no log-softmax is kept, only ``logits`` (as float32 and with the classes last, so
        a copy for half precision and for dense inputs). For hard targets the partition function cancels from the part
        that alpha multiplies: ``d l_i / d alpha_i = z_y - mean_k z_k``.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> smoothed_cross_entropy(logits, torch.tensor([0, 0]), alpha=torch.tensor([0.0, 0.1]))
        tensor(0.6951)
    """
    owner = "smoothed_cross_entropy"
    check_choice(owner, "reduction", reduction, ("mean", "sum", "none"))
    batch = prepare(owner, logits, target, ignore_index=ignore_index, weight=weight)
    if isinstance(alpha, Tensor):
        if alpha.device.type == "cpu" and not torch.compiler.is_compiling() and alpha.numel():
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
        Equals ``nn.CrossEntropyLoss``, which may be used in its place anywhere.

    Example:
        >>> CrossEntropy()(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.1269)
    """

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return smoothed_nll(batch.logits, batch.target, 0.0, batch.weight)


@LOSSES.register(
    "ls",
    paper="When Does Label Smoothing Help?",
    year=2019,
    url="https://arxiv.org/abs/1906.02629",
    tune={"alpha": "0.005:0.3:log"},
)
class LabelSmoothing(Loss):
    """Label smoothing: ``(1 - alpha) (-log p_y) + alpha mean_k(-log p_k)``.

    Args:
        alpha: Strength in [0, 1]; the smoothing mass is uniform over all C classes, the target's included.
        **options: Those of every :class:`~fedlas.losses.Loss`. Class weights weigh the uniform part class by class, as
            in ``F.cross_entropy``.

    Raises:
        InputError: If alpha is outside [0, 1].

    Example:
        >>> LabelSmoothing(alpha=0.1)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.2269)
    """

    strength = "alpha"
    strength_bound = 1.0

    def __init__(self, *, alpha: float = 0.05, **options: Unpack[LossOptions]) -> None:
        super().__init__(**options)
        self.alpha = check_number("LabelSmoothing", "alpha", alpha, low=0, high=1)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``."""
        return self.with_strength(batch, self.alpha)

    def with_strength(self, batch: Batch, strength: Tensor | float) -> Tensor:
        """Loss of each position ``(M,)`` with another alpha, a float or ``(M,)``."""
        return smoothed_nll(batch.logits, batch.target, strength, batch.weight)
