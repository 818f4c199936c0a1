"""One class against all others: the inputs of binary calibrators, and the logits made of their outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.predictions import Predictions

# In place of log 0 if there is a single class, and so no rest.
_NOTHING = -1e30


def class_and_rest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``log p_k`` and ``log(1 - p_k)`` for ``p = softmax(z)``, neither of them ever minus infinity.

    The rest of the predicted class is summed from the others, because ``1 - p_k`` cancels where ``p_k`` is near 1.

    Args:
        logits: Float64 ``(n, C)``.

    Returns:
        Two float64 tensors ``(n, C)``, finite.

    Example:
        >>> own, rest = class_and_rest(torch.tensor([[50.0, 0.0]], dtype=torch.float64))
        >>> own[0].tolist(), [f"{float(value):.3g}" for value in rest[0]]
        ([0.0, -50.0], ['-50', '-1.93e-22'])
    """
    log_probs = logits.log_softmax(dim=1)
    top = logits.argmax(dim=1, keepdim=True)
    rest = torch.log1p(-log_probs.exp())
    others = log_probs.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    return log_probs, rest.scatter(1, top, others.clamp(min=_NOTHING))


def log_odds(logits: Tensor) -> Tensor:
    """``log p_k - log(1 - p_k)``, float64 ``(n, C)``: the logit of each class against the rest."""
    own, rest = class_and_rest(logits)
    return own - rest


def class_columns(logits: Tensor) -> Tensor:
    """Probabilities of each class over all samples, float64 ``(C, N)`` on the CPU, from ``logits (N, C)``."""
    columns = torch.empty(logits.shape[1], logits.shape[0], dtype=torch.float64, device="cpu")
    for part, rows in double_rows(logits):
        columns[:, part] = rows.softmax(dim=1).T
    return columns


def separated_classes(val: Predictions) -> list[int]:
    """Classes whose every sample has a higher probability of the class than any sample of the others."""
    lowest = torch.full((val.num_classes,), torch.inf, dtype=torch.float64, device="cpu")
    highest = -lowest
    target, classes = val.target.cpu(), torch.arange(val.num_classes, device="cpu")
    for part, rows in double_rows(val.logits):
        own = target[part].unsqueeze(1) == classes
        scores = log_odds(rows)
        lowest = torch.minimum(lowest, scores.masked_fill(~own, torch.inf).amin(dim=0))
        highest = torch.maximum(highest, scores.masked_fill(own, -torch.inf).amax(dim=0))
    return ((lowest > highest) & lowest.isfinite() & highest.isfinite()).nonzero().squeeze(1).tolist()


def smallest_probability(samples: float, classes: int) -> float:
    """The floor of a probability estimated as a share of ``samples``: ``1 / (C (N + 1))``.

    A share that is not 0 is at least ``1 / N``, so the floor replaces zeros only. It is the share that one further
    sample, spread over all classes, would add.
    """
    return 1 / (classes * (samples + 1))


def floored_log(probs: Tensor, floor: float) -> Tensor:
    """Finite logits ``log max(probs, floor)`` of one-vs-rest probabilities; their softmax is ``p_k / sum_j p_j``."""
    return probs.clamp(min=floor).log()
