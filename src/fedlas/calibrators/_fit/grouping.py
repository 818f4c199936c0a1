"""Groups of samples that need different temperatures, learned from features."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.calibrators._fit.rowwise import double_rows

# As in the published code.
_STEPS = 100


class GroupedNLL:
    """Mean negative log-likelihood of a mixture over groups, each with a temperature of its own, plus a penalty.

    ``1/N sum_i -log sum_k g_ik softmax(s_k z_i)[y_i] + penalty * mean(W^2)`` with ``g_i = softmax(W h_i)`` and
    ``s_k = 1 / temperature_k``.

    Args:
        features: ``h (N, D)``, any floats on the CPU; converted to float64 some rows at a time.
        logits: ``z (N, C)`` on the CPU.
        target: ``y (N,)`` on the CPU.
        penalty: At least 0.
    """

    def __init__(self, features: Tensor, logits: Tensor, target: Tensor, *, penalty: float) -> None:
        self._features, self._logits, self._target, self._penalty = features, logits, target, penalty

    @torch.no_grad()
    def evaluate(self, weight: Tensor, log_scale: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, gradient for ``W (K, D)`` and gradient for ``log s (K,)``."""
        scale = log_scale.exp()
        value = 0.0
        slope, slope_s = torch.zeros_like(weight), torch.zeros_like(scale)
        for part, rows in double_rows(self._logits):
            index = self._target[part].unsqueeze(1)
            own = rows.gather(1, index)
            likelihood, gain = [], []
            for factor in scale:
                log_probs = (factor * rows).log_softmax(dim=1)
                likelihood.append(log_probs.gather(1, index))
                # The slope along a group's scale is the label's logit less the expected one.
                gain.append(own - (log_probs.exp() * rows).sum(dim=1, keepdim=True))
            features = self._features[part].double()
            groups = (features @ weight.T).log_softmax(dim=1)
            joint = groups + torch.cat(likelihood, dim=1)
            total = joint.logsumexp(dim=1, keepdim=True)
            # As in any mixture, the probability of a group given the label weighs its slope.
            posterior = (joint - total).exp()
            value -= float(total.sum())
            slope += (groups.exp() - posterior).T @ features
            slope_s -= (posterior * torch.cat(gain, dim=1)).sum(dim=0)
        samples = len(self._target)
        penalty = self._penalty * float(weight.square().mean())
        slope = slope / samples + 2 * self._penalty / weight.numel() * weight
        # Scales are optimized as logarithms, so the chain rule multiplies their slope by the scale.
        return value / samples + penalty, slope, slope_s * scale / samples


def learn_grouping(problem: GroupedNLL, start: Tensor, scale: float) -> Tensor:
    """``W (K, D)`` after 100 steps of L-BFGS from ``start``, with all ``s_k`` started at ``scale``; deterministic.

    This need not be a minimum: there are many, and different starts shall lead to different partitions.
    """
    weight = start.clone().requires_grad_()
    log_scale = torch.full((len(start),), scale, dtype=torch.float64).log().requires_grad_()
    optimizer = torch.optim.LBFGS([weight, log_scale], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value, weight.grad, log_scale.grad = problem.evaluate(weight, log_scale)
        return torch.tensor(value, dtype=torch.float64)

    optimizer.step(closure)
    return weight.detach()
