"""Hyper-deep ensemble: greedy selection of members with different settings and initializations.

Source:
    Wenzel, Snoek, Tran, Jenatton: Hyperparameter Ensembles for Robustness and Uncertainty Quantification, NeurIPS 2020,
    section 3 and algorithm 1 ("hyper_ens"), after Caruana et al., ICML 2004. https://arxiv.org/abs/2006.13570
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from fedlas._core.check import check_count
from fedlas._core.kinds import check_argument_types
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty.ensemble import check_members

__all__ = ["MAX_PICKS", "greedy_selection"]

MAX_PICKS = 100
"""Maximum number of picks, so that weights are multiples of 1 % or coarser."""
_ROUNDING = 1e-9  # nats; smaller gains are rounding


@check_argument_types
def greedy_selection(pool: Sequence[Predictions], *, size: int) -> list[int]:
    """Return how often each candidate is picked by greedy selection with replacement for the lowest ensemble NLL.

    The ensemble starts empty. Each pick is the candidate that gives the mean of the probabilities the lowest NLL. The
    selection ends when no pick lowers the NLL, or as soon as ``size`` different candidates are picked.

    Args:
        pool: Predictions of each candidate on the same held-out samples.
        size: Largest number of different members.

    Returns:
        One count >= 0 for each candidate. Divided by their sum they are weights for
        :func:`~fedlas.zoo.uncertainty.average`.

    Raises:
        InputError: If the pool is empty, its samples differ, or the size is not a whole number of at least 1.

    Note:
        It also ends after 100 picks, unlike in the paper. Among equal candidates the first is picked.

    Example:
        >>> good, bad = Predictions([[2.0, 0.0]], [0]), Predictions([[0.0, 2.0]], [0])
        >>> greedy_selection([bad, good], size=2)
        [0, 1]
    """
    check_members(pool)
    check_count("size", size)
    log_p = torch.stack([
        -F.cross_entropy(p.tensors().logits.double(), pool[0].tensors().target, reduction="none")
        for p in pool
    ])  # fmt: skip
    # A member may be picked again: then it has a larger weight in the mean.
    counts = [0] * len(pool)
    lowest = math.inf
    total = torch.full_like(log_p[0], -math.inf)  # log of the sum of the picked label probabilities
    for picks in range(1, MAX_PICKS + 1):
        # The NLL of the ensemble with each candidate added, all candidates at once.
        nll = math.log(picks) - torch.logaddexp(total, log_p).mean(dim=1)
        best = int(nll.argmin())
        if not float(nll[best]) < lowest - _ROUNDING:
            break
        lowest = float(nll[best])
        counts[best] += 1
        if sum(count > 0 for count in counts) == size:
            break
        total = torch.logaddexp(total, log_p[best])
    return counts
