"""OOD scores of logits that need no fit.

Rows are scored in blocks that fit a processor's cache, in the precision of the logits (half precision in float32).
Float64 is used where float32 would make scores equal. No score has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedlas._core.check import (
    LARGEST,
    InputError,
    check_count,
    check_dense,
    check_finite,
    check_logits,
    check_number,
    describe,
)
from fedlas.zoo.ood.base import OOD_SCORES

__all__ = ["energy_score", "entropy_score", "gen_score", "max_logit_score", "msp_score"]

_BLOCK = 2**17
_ACCELERATOR_BLOCK = 2**24
"""Logits of a block: a copy in float64 takes 1 MiB of a processor's cache."""
_UNDERFLOW = 1e-30


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
        >>> [f"{score:.5g}" for score in msp_score(torch.tensor([[0.0, 0.0], [50.0, 0.0]]))]
        ['0.5', '1.9287e-22']

    Source:
        Hendrycks and Gimpel 2017.
    """

    def score(rows: Tensor) -> Tensor:
        others = _shifted_exponents(rows)[1].sum(dim=1)
        return others / (1 + others)

    return _score_in_blocks(logits, score)


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

    Example:
        >>> [f"{score:.5g}" for score in entropy_score(torch.tensor([[0.0, 0.0], [50.0, 0.0]]))]
        ['0.69315', '9.8366e-21']

    Source:
        Used as a baseline by Ren et al. 2019, section 4.
    """

    def score(rows: Tensor) -> Tensor:
        # With e_k = exp(z_k - max z): log(sum e) - sum e_k log(e_k) / sum e.
        exponents, others = _shifted_exponents(rows)
        total = others.sum(dim=1)
        return total.log1p() - torch.linalg.vecdot(others, exponents) / (1 + total)

    return _score_in_blocks(logits, score)


@OOD_SCORES.register(
    "max-logit",
    title="Max logit",
    paper="Scaling Out-of-Distribution Detection for Real-World Settings",
    year=2022,
    url="https://arxiv.org/abs/1911.11132",
)
def max_logit_score(logits: Tensor) -> Tensor:
    """Negated highest logit; used by Vaze et al. 2022 for open-set recognition.

    Args:
        logits: ``(N, C)``.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the logits are not a floating tensor ``(N, C)``, or the highest of a row is not finite.

    Note:
        Dividing all logits by one temperature does not change the order of samples, nor any detection metric.

    Example:
        >>> max_logit_score(torch.tensor([[1.0, 0.0], [5.0, 2.0]]))
        tensor([-1., -5.], dtype=torch.float64)

    Source:
        Hendrycks et al. 2022, section 3.
    """
    highest = _check_2d_logits(logits).detach().amax(dim=1).double()
    if not bool((highest.abs() <= LARGEST).all()):  # NaN and positive infinities reach the maximum
        check_finite("logits", logits.float())
    return -highest


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
    t = check_number("temperature", temperature, low=0.0, low_open=True, high=1e30)

    def score(rows: Tensor) -> Tensor:
        # Less the highest: z / t would overflow for a small t.
        highest = rows.amax(dim=1, keepdim=True)
        exponents = rows - highest
        exponents = exponents if t == 1 else exponents.div_(t)
        return -highest.squeeze(1).double() - t * exponents.exp_().sum(dim=1).double().log()

    # A high temperature multiplies the rounding of the sum.
    return _score_in_blocks(logits, score, double=t != 1)


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

    Example:
        >>> gen_score(torch.tensor([[0.0, 0.0], [9.0, 0.0]])).round(decimals=3)
        tensor([1.7410, 0.8130], dtype=torch.float64)

    Source:
        Liu, Lochman and Zach 2023, equation 4.
    """
    power = check_number("gamma", gamma, low=0.0, high=1.0, low_open=True)
    check_count("top", top)

    def score(rows: Tensor) -> Tensor:
        log_probs = rows.log_softmax(dim=1)
        log_probs = log_probs.topk(min(top, rows.shape[1]), dim=1).values
        # log(1 - p) without the cancellation of 1 - p near p = 1; a class of probability 1 contributes nothing.
        complement = torch.log(-torch.expm1(log_probs.clamp(max=-1e-300)))
        return (power * (log_probs + complement)).exp().sum(dim=1)

    return _score_in_blocks(logits, score, double=True)


def _shifted_exponents(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``z_k - max z``, and ``exp(z_k - max z)`` with 0 in place of one highest class."""
    highest, label = rows.max(dim=1, keepdim=True)
    exponents = rows - highest
    return exponents, exponents.exp().scatter_(1, label, 0.0)


def _score_in_blocks(
    logits: Tensor, score: Callable[[Tensor], Tensor], *, double: bool = False
) -> Tensor:
    """Return float64 scores ``(N,)`` of ``logits (N, C)``, computed in blocks, in float64 where float32 underflows."""
    logits = _check_2d_logits(logits)
    check_finite("logits", logits)
    scores = []
    size = max(
        1, (_BLOCK if logits.device.type == "cpu" else _ACCELERATOR_BLOCK) // logits.shape[1]
    )
    for block in logits.detach().split(size):
        rows = (
            block.double() if double else block if block.dtype == torch.float64 else block.float()
        )
        values = score(rows).double()
        # In float32, confident samples with a gap of 87 or more between their logits would all get the score 0.
        underflow = values.abs() < _UNDERFLOW
        if rows.dtype != torch.float64 and bool(underflow.any()):
            values[underflow] = score(block[underflow].double())
        scores.append(values)
    return torch.cat(scores)


def _check_2d_logits(logits: Tensor) -> Tensor:
    check_dense("logits", check_logits(logits))
    if logits.ndim != 2:
        raise InputError(
            "logits must be (N, C)",
            describe(logits),
            "Flatten dense logits to one row per position.",
        )
    # torch has no maximum of 8-bit floats
    return logits.float() if logits.dtype.itemsize == 1 else logits
