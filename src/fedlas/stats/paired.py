"""Two models on one test set: the bootstrap of their difference, with the same samples drawn for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.metrics import METRICS
from fedlas.metrics.evaluate import values_of
from fedlas.metrics.scan import MetricEntry
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats.draws import resampled_weights, rows_for
from fedlas.stats.intervals import Interval, check_bootstrap, interval_from
from fedlas.stats.noise_floor import share_at_least
from fedlas.stats.proportion import paired_shares
from fedlas.stats.replicates import Resampled
from fedlas.stats.rows import Floats, Rows
from fedlas.stats.tables import replicate_values, share_of


@dataclass(frozen=True)
class PairedBootstrap:
    """Difference of a metric between two models on the same samples.

    Attributes:
        metric: Registry name.
        a: The metric of the first model.
        b: The metric of the second.
        interval: Of the difference ``a - b``.
        p_value: Two-sided, of no difference, in ``(0, 1]``.
    """

    metric: str
    a: float
    b: float
    interval: Interval
    p_value: float


def paired_bootstrap(
    a: Predictions | TopLabel,
    b: Predictions | TopLabel,
    *,
    metric: str = "ece",
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    num_bins: int = 15,
    method: str = "auto",
) -> PairedBootstrap:
    """Bootstrap interval and p-value of the difference ``a - b`` of a metric between two models on one test set.

    Each replicate draws ``N`` samples and computes the metric of both models on them, so what makes a sample easy or
    hard for both cancels. For the p-value the replicates are moved so that their mean is 0, as if there were no
    difference: it is ``(1 + k) / (R + 1)``, where ``k`` of them are then at least as far from 0 as the difference is.

    Args:
        a: Predictions of the first model, or a ``TopLabel``.
        b: Those of the second for the same samples in the same order.
        metric: Name of a registered metric.
        confidence_level: Confidence level in ``(0, 1)``.
        replicates: Number of replicates; at least 39 for level 0.95.
        seed: The same seed draws the same samples.
        num_bins: Bins of the metrics that have any.
        method: ``"percentile"``, ``"basic"`` or ``"auto"``, which is the basic interval where the bootstrap finds a
            bias of the difference of more than a quarter of a standard error, else the percentile interval. Of shares
            of samples, such as accuracy, it is Newcombe's interval with every method; with weights it is not.

    Returns:
        Both values, the interval of their difference, and the p-value.

    Raises:
        InputError: For different targets or weights, an unknown metric, options out of range, or fewer than 2 samples.

    Note:
        Two models, not two methods: whether another training would give the same order only seeds can tell. With more
        than two models correct the p-values with :func:`~fedlas.stats.holm`.

        How often an interval of level 0.95 holds the true difference, from 400 pairs each of 500 and of 2,000 samples
        (``benchmarks/stats.py``): of accuracy, NLL and Brier score 0.93 to 0.97 (and 4 to 6 of 100 p-values of equally
        good models are up to 0.05); of ECE and adaptive ECE of equally good models 0.87 to 0.96. Their p-values are on
        the safe side: at most 4 of 100 are up to 0.05. **The difference of a calibrated model from another comes out
        too small**, because chance adds more to the smaller of two calibration errors: with 0.000 against 0.046, the
        interval holds it 5 to 6 times in 10. See :func:`~fedlas.stats.noise_floor` of each model beside it.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> result = paired_bootstrap(Predictions(2 * logits, target), Predictions(logits, target))
        >>> result.interval.low > 0.05, result.p_value < 0.01
        (True, True)

    Source:
        Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 and 15.
    """
    options: dict[str, Any] = {
        "confidence_level": confidence_level,
        "replicates": replicates,
        "seed": seed,
        "num_bins": num_bins,
    }
    return paired_bootstraps("paired_bootstrap", a, b, [METRICS[metric]], method=method, **options)[metric]


def paired_bootstraps(
    owner: str,
    a: AnyPredictions,
    b: AnyPredictions,
    entries: Sequence[MetricEntry],
    *,
    confidence_level: float,
    replicates: int,
    seed: int,
    num_bins: int,
    method: str,
) -> dict[str, PairedBootstrap]:
    """:func:`paired_bootstrap` of several metrics by name, from the same draws; ``owner`` asks."""
    check_bootstrap(owner, confidence_level=confidence_level, replicates=replicates, seed=seed, method=method)
    both = rows_for(owner, a, num_bins), rows_for(owner, b, num_bins)
    check_same_samples(owner, a, b)
    first, second = (values_of(each, entries, num_bins) for each in (a, b))
    parts: dict[str, list[Floats]] = {entry.name: [] for entry in entries}
    for drawn in resampled_weights(*both, replicates=replicates, seed=seed):
        blocks = [Resampled(rows, drawn) for rows in both]
        for entry in entries:
            one, other = (replicate_values(entry, block) for block in blocks)
            parts[entry.name].append(one - other)
        for block in blocks:
            block.release()
    found = {}
    for entry in entries:
        name, differences = entry.name, np.concatenate(parts[entry.name])
        interval = interval_from(
            first[name] - second[name], differences, confidence_level=confidence_level, method=method
        )
        hits, other_hits = (None if rows.weights is not None else share_of(entry, rows) for rows in both)
        # Equal outcomes of different models may differ on other samples; equal scores cannot.
        if hits is not None and other_hits is not None and not np.array_equal(_scores(both[0]), _scores(both[1])):
            low, high = paired_shares(hits, other_hits, confidence_level=confidence_level)
            interval = replace(interval, low=low, high=high, method="paired shares")
        # Replicates are centered at their own mean, so that the bias that all share is not taken for a difference.
        p_value = share_at_least(np.abs(differences - differences.mean()), abs(interval.value))
        found[name] = PairedBootstrap(name, first[name], second[name], interval, p_value)
    return found


def _scores(rows: Rows) -> NDArray[Any]:
    return rows.confidence if isinstance(rows.predictions, TopLabel) else rows.all_classes.logits.cpu().numpy()


def check_same_samples(owner: str, a: AnyPredictions, b: AnyPredictions) -> None:
    """Check that two sets of predictions are of the same samples, as far as they tell: a top label has no labels.

    Raises:
        InputError: If their numbers of samples, their weights or their targets differ.
    """
    got = "" if a.num_samples == b.num_samples else f"{a.num_samples:,} and {b.num_samples:,} samples"
    if not got and isinstance(a, Predictions) and isinstance(b, Predictions):
        differ = (a.target.cpu() != b.target.cpu()).nonzero().flatten()
        if len(differ):
            got = f"different targets in {len(differ):,} of {a.num_samples:,} rows, first in row {int(differ[0]) + 1:,}"
    if got:
        expected = "a and b must be predictions for the same samples, in the same order"
        raise InputError(owner, expected, got, "Predict one test set with both models, without shuffling.")
    if not _equal_weights(a.weights, b.weights):
        raise InputError(
            owner,
            "a and b must have the same weights, as they are of the same samples",
            "different ones",
            "Pass both with weights=weights, or none.",
        )


def _equal_weights(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)
