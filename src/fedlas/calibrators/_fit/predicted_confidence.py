"""The confidence of the predicted class as log-odds, and logits with a new confidence and the same arg-max."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedlas.calibrators._fit.rowwise import double_rows

_TOLERANCE = 1e-12
_MOST_STEPS = 100
# Logits are not flattened further, or rounding would change their order.
_LEAST_SCALE = 1e-6


def predicted_log_odds(logits: Tensor, temperature: float) -> Tensor:
    """Log-odds of the predicted class ``(N,)`` after division by the temperature; infinite for a single class."""
    result = torch.empty(len(logits), dtype=torch.float64)
    for part, rows in double_rows(logits):
        top = rows.argmax(dim=1, keepdim=True)
        behind = (rows - rows.gather(1, top)) / temperature
        result[part] = -behind.scatter(1, top, -torch.inf).logsumexp(dim=1)
    return result


def with_log_odds(rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Logits whose predicted class has the log-odds ``after``: its logit is raised, or all logits are flattened."""
    rises = (after > before).unsqueeze(1)
    top = rows.argmax(dim=1, keepdim=True)
    raised = rows.scatter_add(1, top, (after - before).unsqueeze(1))
    return torch.where(rises, raised, _flattening(rows, top, after).unsqueeze(1) * rows)


def _flattening(rows: Tensor, top: Tensor, goal: Tensor) -> Tensor:
    """``s`` in ``(0, 1]`` for which ``s * rows`` has log-odds ``goal``; near 0 where they would be below uniform.

    Newton's method from 0. The log-odds are a concave, rising function of ``s``, so steps never pass the root.
    """
    behind = rows - rows.gather(1, top)
    goal = goal.clamp(min=-math.log(rows.shape[1] - 1))
    scale = torch.full_like(goal, _LEAST_SCALE)
    for _ in range(_MOST_STEPS):
        others = (scale.unsqueeze(1) * behind).scatter(1, top, -torch.inf)
        slope = -(others.softmax(dim=1) * behind).sum(dim=1)
        step = ((goal + others.logsumexp(dim=1)) / slope.clamp(min=torch.finfo(torch.float64).tiny)).clamp(min=0)
        scale = (scale + step).clamp(max=1)
        if bool((step <= _TOLERANCE * scale).all()):
            break
    return scale
