"""Likelihood indices: Nagelkerke's R2, and D, U and Q as in ``rms::val.prob``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedlas.binary.positive import Positive, positive_class
from fedlas.binary.recalibration import fit_recalibration

if TYPE_CHECKING:
    from fedlas.predictions import Predictions


@dataclass(frozen=True)
class LikelihoodIndices:
    """Likelihood gained over the prevalence, and likelihood that a recalibration would add.

    Attributes:
        r2: Nagelkerke's R2 of the probabilities: 1 at best, 0 as good as the prevalence, below 0 worse.
        d: Discrimination index, the likelihood-ratio statistic of the probabilities less 1, a sample.
        u: Unreliability index, the statistic of intercept and slope of a recalibration less 2, a sample; about 0 if
            calibrated.
        q: Quality index, ``d - u``.
    """

    r2: float
    d: float
    u: float
    q: float


def likelihood_indices(
    predictions: Predictions, *, event: int | str | None = None
) -> LikelihoodIndices:
    """Compute Nagelkerke's R2, D, U and Q, named as in ``rms::val.prob``.

    With the log-likelihoods ``l_0`` of the prevalence, ``l`` of the probabilities and ``l_r`` of the logistic
    recalibration of the outcomes on their log-odds: ``R2 = (1 - exp(2 (l_0 - l) / N)) / (1 - exp(2 l_0 / N))``,
    ``D = (2 (l - l_0) - 1) / N``, ``U = (2 (l_r - l) - 2) / N`` and ``Q = D - U``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        event: The positive class, by name or index; None: the event of two classes.

    Returns:
        The four numbers; with weights those of weighted sums.

    Raises:
        InputError: If only one outcome occurs, a threshold separates the outcomes, or as all functions here, for
            predictions of other than two classes without ``event``.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
        >>> happened = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> indices = likelihood_indices(Predictions(torch.stack([torch.zeros(4000), logits], dim=1), happened))
        >>> round(indices.r2, 2), abs(indices.u) < 0.001
        (0.48, True)

    Source:
        Nagelkerke, "A note on a general definition of the coefficient of determination", Biometrika 78 (1991); Cox,
        "Two further applications of a model for binary regression", Biometrika 45 (1958), for the recalibration;
        Harrell, "Regression Modeling Strategies" (2015), section 10.9, for D, U and Q.
    """
    return compute_likelihood_indices(positive_class(predictions, event, both_outcomes=True))


def compute_likelihood_indices(data: Positive) -> LikelihoodIndices:
    """Return the likelihood indices of samples with both outcomes."""
    fit = data.table(fit_recalibration)
    samples = fit.samples
    number = int(samples.size[0])
    share = float(samples.mean(samples.outcome)[0])
    constant = np.full(number, math.log(share) - math.log1p(-share))
    prior, model, best = (
        float(each[0])
        for each in (
            samples.log_likelihood(constant),
            samples.log_likelihood(samples.log_odds),
            fit.log_likelihood,
        )
    )
    # The exponential of a model far worse than the prevalence has no float.
    gain = -np.expm1(np.minimum(2 * (prior - model) / number, 700.0))
    r2 = float(gain) / -math.expm1(2 * prior / number)
    d = (2 * (model - prior) - 1) / number
    u = (2 * (best - model) - 2) / number
    return LikelihoodIndices(r2, d, u, d - u)
