"""How much of the calibration error of one class's probability is chance: its interval, noise floor and test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from fedlas.metrics import calibration_by_class
from fedlas.predictions import Predictions
from fedlas.stats.intervals import Interval, check_bootstrap, floor_interval
from fedlas.stats.noise_floor import rejects, share_at_least
from fedlas.stats.replicates import Replicates, Resampled, redrawn, resampled_weights, rows_for
from fedlas.stats.rows import Floats


@dataclass(frozen=True)
class ClassError:
    """The ECE of one class's probability, and what chance has to do with it.

    Attributes:
        interval: As of :func:`~fedlas.stats.bootstrap_interval` with ``method="auto"``; ``value`` is the ECE.
        floor: Its mean if all probabilities were those of the labels.
        p_value: Of the test that they are, in ``(0, 1]``: probability of an ECE of this class as large as observed.
        replicates: Of floor and test.
    """

    interval: Interval
    floor: float
    p_value: float
    replicates: int


def class_errors(
    predictions: Predictions, *, num_bins: int = 15, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> dict[int, ClassError]:
    """Interval, noise floor and calibration test of every class's ECE.

    The ECE is that of :func:`~fedlas.metrics.calibration_by_class`, whose mean is the classwise ECE.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 2 samples.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        level: Confidence level in ``(0, 1)``.
        replicates: Of the bootstrap and of the floor, at least 39 for level 0.95.
        seed: The same seed draws the same samples and labels.

    Returns:
        One entry for each of the ``C`` classes, in their order.

    Raises:
        InputError: For options out of range, too few replicates for the level, or fewer than 2 samples.

    Note:
        All samples count for every class. Of ``C`` p-values of a calibrated model one in twenty is below 0.05: correct
        them, for instance by :func:`~fedlas.stats.holm`, before a class is singled out. No p-value is below
        ``1 / (1 + R)``, so that after Holm's correction none is below 0.05 with fewer than ``20 C`` replicates.

    Example:
        >>> import torch
        >>> logits = 2 * torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> found = class_errors(Predictions(logits, target), replicates=199)[0]
        >>> found.p_value > 0.05, found.interval.low, found.floor > 0.01
        (True, 0.0, True)
    """
    check_bootstrap("class_errors", level=level, replicates=replicates, seed=seed, method="auto")
    rows = rows_for("class_errors", predictions, num_bins)
    values = [entry.ece for entry in calibration_by_class(predictions, num_bins=num_bins).values()]
    resampled = (Resampled(rows, weights) for weights in resampled_weights(rows, replicates=replicates, seed=seed))
    samples, floors = _errors(resampled), _errors(redrawn(rows, replicates=replicates, seed=seed))
    return {
        label: _error(value, samples[:, label], floors[:, label], level=level) for label, value in enumerate(values)
    }


def _errors(blocks: Iterable[Replicates]) -> Floats:
    """The ECE of every class in every replicate ``(R, C)``."""
    return np.concatenate([_of_block(block) for block in blocks])


def _of_block(block: Replicates) -> Floats:
    gaps = np.abs(block.class_probs - block.class_labels)
    return gaps.reshape(len(gaps), block.rows.num_classes, block.rows.num_bins).sum(axis=2) / block.rows.num_samples


def _error(value: float, samples: Floats, floors: Floats, *, level: float) -> ClassError:
    p_value, floor = share_at_least(floors, value), float(floors.mean())
    interval = floor_interval(value, samples, floor=floor, level=level)
    low = max(0.0, interval.low) if rejects(p_value, 1.0 - level) else 0.0
    return ClassError(replace(interval, low=low, high=min(1.0, interval.high)), floor, p_value, len(floors))
