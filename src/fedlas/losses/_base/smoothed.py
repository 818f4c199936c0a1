"""Smoothed cross-entropy in closed form; the strength may differ from sample to sample.

For hard targets ``l_i = logsumexp(z) - z_y + alpha_i (z_y - mean_k z_k)``: one softmax pass forward, one backward, and
no tensor ``(N, C)`` but the logits is kept in between.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = -1e30
"""Stands for ``log p = -inf`` of a masked class where a soft target multiplies it: 0 times it is 0 and not NaN."""


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
        difference = hit - mean if varies or alpha else None  # alpha = 0 needs no mean
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
    mean = log_probs.mean(dim=1) if weight is None else log_probs @ weight / log_probs.shape[1]
    if target.ndim == 2:
        if torch.is_grad_enabled():
            terms = log_probs.clamp(min=LEAST) * target
        else:  # in place: nothing else reads them
            terms = log_probs.clamp_(min=LEAST).mul_(target)
        return (terms.sum(dim=1) if weight is None else terms @ weight), mean
    hit = log_probs.gather(1, target[:, None]).squeeze(1)
    return (hit if weight is None else hit * weight[target]), mean


def _grad_logits(grad: Tensor, logits: Tensor, target: Tensor, alpha: Tensor | float, weight: Tensor | None) -> Tensor:
    """``grad * ((sum_k q_k) p - q)``, ``(N, C)``; in place on the softmax unless a second derivative is wanted."""
    classes = logits.shape[1]
    probs = F.softmax(logits, dim=1)
    smoothed = grad * alpha
    if target.ndim == 1 and weight is None:
        # sum_k q_k = 1, and q differs from alpha / C at the target alone: no one-hot rows are needed.
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
    """``(1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)`` of each row of checked inputs, ``(N,)``.

    Args:
        logits: ``(N, C)``.
        target: Class indices ``(N,)``, or soft targets ``(N, C)``.
        alpha: Strength, a float or one for each row ``(N,)``.
        weight: Class weights ``(C,)``, in both terms.
    """
    values: Tensor = _SmoothedNLL.apply(logits, target, alpha, weight)
    return values
