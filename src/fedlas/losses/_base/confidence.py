"""Cross-entropy, top-class confidence and correctness of a batch, for losses that compare the last two."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas.losses._base.batch import Batch
from fedlas.losses._base.smoothed import LARGE


class _NLLAndConfidence(torch.autograd.Function):
    """``-log p_y``, ``max_k p_k`` and the arg-max of each row, from one softmax pass forward and one backward.

    With ``q = max_k p_k`` at class ``t`` the gradients are ``p - onehot(y)`` and ``q (onehot(t) - p)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = F.log_softmax(logits, dim=1)
        top = log_probs.argmax(dim=1, keepdim=True)
        ctx.save_for_backward(logits, log_probs if logits.numel() <= LARGE else None, target, top)
        ctx.mark_non_differentiable(top)
        return -log_probs.gather(1, target[:, None]).squeeze(1), log_probs.gather(1, top).exp().squeeze(1), top

    @staticmethod
    def backward(ctx: Any, grad_nll: Tensor, grad_confidence: Tensor, _: Tensor) -> tuple[Tensor, None]:
        logits, log_probs, target, top = ctx.saved_tensors
        again = log_probs is None or torch.is_grad_enabled()  # what was kept has no graph of its own
        probs = F.softmax(logits, dim=1) if again else log_probs.exp()
        on_target = grad_nll[:, None]
        on_top = grad_confidence[:, None] * probs.gather(1, top)
        if torch.is_grad_enabled():  # create_graph=True: nothing in place
            grad = (probs * (on_target - on_top)).scatter_add(1, target[:, None], -on_target)
            return grad.scatter_add(1, top, on_top), None
        grad = probs.mul_(on_target - on_top).scatter_add_(1, target[:, None], -on_target)
        return grad.scatter_add_(1, top, on_top), None


def nll_and_confidence(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy ``(M,)`` with class weights, confidence ``(M,)``, and whether the top class is right ``(M,)`` bool.

    Args:
        batch: Logits and targets. A prediction is right if its top class is the one that a soft target favors.

    Note:
        Correctness has no gradient: it is piecewise constant. The first of equally large logits is the top class.
    """
    if batch.soft:
        nll = batch.cross_entropy()
        log_probs = F.log_softmax(batch.logits, dim=1)
        top = log_probs.argmax(dim=1, keepdim=True)
        confidence = log_probs.gather(1, top).exp().squeeze(1)
    else:
        nll, confidence, top = _NLLAndConfidence.apply(batch.logits, batch.target)
        nll = batch.weighted(nll)
    return nll, confidence, top.squeeze(1) == batch.favored()
