"""Smoothed cross-entropy in closed form; the strength may differ from sample to sample.

For hard targets ``l_i = logsumexp(z) - z_y + alpha_i (z_y - mean_k z_k)``: one softmax pass forward, one
``exp`` backward, and no one-hot rows in between.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = -1e30
"""Stands for ``log p = -inf`` of a masked class where a soft target multiplies it: 0 times it is 0 and not NaN."""


LARGE = 1 << 24
"""Elements of logits (64 MiB) above which backward computes the softmax again instead of keeping it."""


class _SmoothedNLL(torch.autograd.Function):
    """Per-sample smoothed negative log-likelihood.

    With ``q_k = w_k ((1 - a) t_k + a / C)`` the loss is ``-sum_k q_k log p_k`` and its gradient ``(sum_k q_k) p - q``.
    The log-softmax is kept for backward, as ``F.cross_entropy`` does. Of large logits it is not: another softmax costs
    less than the memory of a second vocabulary-sized tensor.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None) -> Tensor:
        log_probs = F.log_softmax(logits, dim=1)
        if target.ndim == 1:
            target = target[:, None]
        hit, mean = _hit_and_mean(log_probs, target, weight)
        saved = log_probs if logits.numel() <= LARGE else None
        if isinstance(alpha, Tensor):
            difference = hit - mean
            ctx.save_for_backward(logits, saved, target, alpha, weight, difference)
            return difference.mul(alpha).sub_(hit)
        ctx.alpha = alpha
        ctx.save_for_backward(logits, saved, target, None, weight, None)
        return torch.lerp(hit, mean, alpha).neg_() if alpha else -hit

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        logits, log_probs, target, alpha, weight, difference = ctx.saved_tensors
        if log_probs is None or torch.is_grad_enabled():  # create_graph=True: what was kept has no graph of its own
            log_probs = F.log_softmax(logits, dim=1)
        strength = ctx.alpha if alpha is None else alpha
        grad_logits = grad_target = grad_alpha = None
        if ctx.needs_input_grad[1]:
            grad_target = ((strength - 1) * grad)[:, None] * (log_probs if weight is None else log_probs * weight)
        if ctx.needs_input_grad[2]:
            if torch.is_grad_enabled():
                hit, mean = _hit_and_mean(log_probs, target, weight)
                difference = hit - mean
            grad_alpha = grad * difference
        if ctx.needs_input_grad[0]:
            grad_logits = _grad_logits(grad, log_probs, target, strength, weight)
        return grad_logits, grad_target, grad_alpha, None


def _hit_and_mean(log_probs: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """``sum_k w_k t_k log p_k`` and ``mean_k w_k log p_k``, both ``(N,)``; ``target (N, 1)`` holds classes."""
    mean = log_probs.mean(dim=1) if weight is None else log_probs @ weight / log_probs.shape[1]
    if target.is_floating_point():
        terms = log_probs.clamp(min=LEAST) * target
        return (terms.sum(dim=1) if weight is None else terms @ weight), mean
    hit = log_probs.gather(1, target).squeeze(1)
    return (hit if weight is None else hit * weight[target.squeeze(1)]), mean


def _grad_logits(
    grad: Tensor, log_probs: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None
) -> Tensor:
    """``grad * ((sum_k q_k) p - q)``, ``(N, C)``; in place on the softmax unless a second derivative is wanted."""
    classes = log_probs.shape[1]
    probs = log_probs.exp()
    if not target.is_floating_point() and weight is None:
        # sum_k q_k = 1, and q differs from alpha / C at the target alone: no one-hot rows are needed.
        share = alpha / classes
        share = share[:, None] if isinstance(share, Tensor) else share
        on_target = (grad * (alpha - 1))[:, None]
        if torch.is_grad_enabled():
            return ((probs - share) * grad[:, None]).scatter_add(1, target, on_target)
        return probs.sub_(share).mul_(grad[:, None]).scatter_add_(1, target, on_target)
    if not target.is_floating_point():
        target = F.one_hot(target.squeeze(1), classes).to(log_probs.dtype)
    smoothed = grad * alpha
    mass = (grad - smoothed)[:, None] * target + (smoothed * (1 / classes))[:, None]
    if weight is not None:
        mass = mass * weight
    return probs * mass.sum(dim=1, keepdim=True) - mass


def smoothed_nll(logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None = None) -> Tensor:
    """``(1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)`` of each row of checked inputs, ``(N,)``.

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)``, or soft targets ``(N, C)``.
        alpha: Strength, a float or one for each row ``(N,)``.
        weight: Class weights ``(C,)``, in both terms.
    """
    if target.ndim == 1 and not isinstance(alpha, Tensor) and not alpha and logits.numel() <= LARGE:
        return F.cross_entropy(logits, target, weight, reduction="none")  # a batch of few logits costs a third less
    values: Tensor = _SmoothedNLL.apply(logits, target, alpha, weight)
    return values
