"""Hyper-deep ensemble: which of a pool of networks, of different settings and starts, to average.

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
from fedlas.predictions import Predictions
from fedlas.uncertainty.ensemble import check_same_samples

MOST_PICKS = 100
"""Picks after which the selection ends, so that no weight is finer than 1 %."""
_ROUNDING = 1e-9  # nats; a smaller gain is none


def greedy_selection(pool: Sequence[Predictions], *, size: int) -> list[int]:
    """How often each of a pool is picked, greedily and with replacement, to lower the ensemble's NLL.

    Starts empty. Each pick is the candidate whose probabilities, put into the mean, give the lowest NLL. It ends when
    no pick lowers the NLL any more, or as soon as ``size`` different candidates are in.

    Args:
        pool: Predictions of each candidate on the same held-out samples.
        size: Most different members the ensemble may have.

    Returns:
        One count >= 0 a candidate; divided by their sum they are the weights for :func:`~fedlas.uncertainty.average`.

    Raises:
        InputError: If the pool is empty, its samples differ, or the size is no whole number of at least 1.

    Note:
        It also ends after 100 picks, which the paper's does not. Among equals the first of the pool is picked.

    Example:
        >>> good, bad = Predictions([[2.0, 0.0]], [0]), Predictions([[0.0, 2.0]], [0])
        >>> greedy_selection([bad, good], size=2)
        [0, 1]
    """
    check_same_samples("greedy_selection", pool)
    check_count("greedy_selection", "size", size)
    log_p = torch.stack([
        -F.cross_entropy(p.logits.to(pool[0].logits.device, torch.float64), pool[0].target, reduction="none")
        for p in pool
    ])  # fmt: skip
    counts, lowest = [0] * len(pool), math.inf
    total = torch.full_like(log_p[0], -math.inf)  # log of the sum of the picked ones' probabilities of the label
    for picks in range(1, MOST_PICKS + 1):
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
