"""Scores of logits alone, without a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_finite, check_logits, check_number, describe
from fedlas.zoo.ood.base import OOD_SCORES

__all__ = ["energy_score", "entropy_score", "gen_score", "max_logit_score", "msp_score"]


@OOD_SCORES.register(
    "msp",
    title="MSP",
    paper="A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1610.02136",
)
def msp_score(logits: Tensor) -> Tensor:
    """One minus the maximum softmax probability.

    Args:
        logits: ``(N, C)``.

    Returns:
        ``(N,)`` in ``[0, 1 - 1/C]``, higher = more OOD. Computed as the sum of the other probabilities, which
        distinguishes confident samples for which ``1 - max`` would round to 0.

    Raises:
        InputError: If the logits are not a finite floating tensor ``(N, C)``.

    Example:
        >>> msp_score(torch.tensor([[0.0, 0.0], [50.0, 0.0]])).tolist()
        [0.5, 1.9287498479639178e-22]

    Source:
        Hendrycks and Gimpel 2017.
    """
    probs = _double("msp_score", logits).softmax(dim=1)
    return probs.scatter(1, probs.argmax(dim=1, keepdim=True), 0.0).sum(dim=1)


@OOD_SCORES.register(
    "entropy",
    title="Entropy",
    paper="Likelihood Ratios for Out-of-Distribution Detection",
    year=2019,
    url="https://arxiv.org/abs/1906.02845",
)
def entropy_score(logits: Tensor) -> Tensor:
    """Entropy of the softmax, in nats.

    Args:
        logits: ``(N, C)``.

    Returns:
        ``(N,)`` in ``[0, log C]``, higher = more OOD.

    Raises:
        InputError: If the logits are not a finite floating tensor ``(N, C)``.

    Source:
        Used as a baseline by Ren et al. 2019, section 4.
    """
    log_probs = _double("entropy_score", logits).log_softmax(dim=1)
    probs = log_probs.exp()
    # A log-probability may overflow to minus infinity, and 0 times that is NaN; the limit of p log p is 0.
    return -torch.where(probs > 0, probs * log_probs, 0.0).sum(dim=1)


@OOD_SCORES.register(
    "max-logit",
    title="Max logit",
    paper="Scaling Out-of-Distribution Detection for Real-World Settings",
    year=2022,
    url="https://arxiv.org/abs/1911.11132",
)
def max_logit_score(logits: Tensor) -> Tensor:
    """The highest logit, negated; used by Vaze et al. 2022 for open sets.

    Args:
        logits: ``(N, C)``.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the logits are not a finite floating tensor ``(N, C)``.

    Note:
        Dividing all logits by one temperature does not change the order of samples, nor any detection metric.

    Source:
        Hendrycks et al. 2022, section 3.
    """
    return -_double("max_logit_score", logits).amax(dim=1)


@OOD_SCORES.register(
    "energy",
    title="Energy",
    paper="Energy-based Out-of-distribution Detection",
    year=2020,
    url="https://arxiv.org/abs/2010.03759",
)
def energy_score(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Free energy of the logits, ``-t * log sum_k exp(z_k / t)``.

    Args:
        logits: ``(N, C)``.
        temperature: ``t`` in ``(0, 1e30]``; near 0 it is the negated highest logit.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the logits are not a finite floating tensor ``(N, C)``, or ``temperature`` is out of range.

    Example:
        >>> energy_score(torch.tensor([[0.0, 0.0]])).tolist()
        [-0.6931471805599453]

    Source:
        Liu et al. 2020, equation 4.
    """
    t = check_number("energy_score", "temperature", temperature, low=0.0, low_open=True, high=1e30)
    rows = _double("energy_score", logits)
    # Less the highest: z / t would overflow for a small t.
    highest = rows.amax(dim=1, keepdim=True)
    return -highest.squeeze(1) - t * ((rows - highest) / t).exp().sum(dim=1).log()


@OOD_SCORES.register(
    "gen",
    title="GEN",
    paper="GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
    year=2023,
    url="https://openaccess.thecvf.com/content/CVPR2023/html/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_Out-of-Distribution_Detection_CVPR_2023_paper.html",
)
def gen_score(logits: Tensor, *, gamma: float = 0.1, top: int = 100) -> Tensor:
    """Generalized entropy of the largest probabilities, ``sum_k (p_k (1 - p_k))^gamma``.

    Args:
        logits: ``(N, C)``.
        gamma: In ``(0, 1]``; a small one gives weight to small probabilities.
        top: Number of the largest probabilities that count; all if there are fewer.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the logits are not a finite floating tensor ``(N, C)``, or an option is out of range.

    Source:
        Liu, Lochman and Zach 2023, equation 4.
    """
    power = check_number("gen_score", "gamma", gamma, low=0.0, high=1.0, low_open=True)
    check_count("gen_score", "top", top)
    logits = _double("gen_score", logits).log_softmax(dim=1)
    logits = logits.topk(min(top, logits.shape[1]), dim=1).values
    # log(1 - p) without the cancellation of 1 - p near p = 1; a class of probability 1 contributes nothing.
    complement = torch.log(-torch.expm1(logits.clamp(max=-1e-300)))
    return (power * (logits + complement)).exp().sum(dim=1)


def _double(owner: str, logits: Tensor) -> Tensor:
    """Finite float64 logits ``(N, C)``: in float32 different confident samples would get equal scores."""
    if check_logits(owner, logits).ndim != 2:
        raise InputError(owner, "logits must be (N, C)", describe(logits), "Flatten dense ones to a row a position.")
    check_finite(owner, "logits", logits)
    return logits.double()
