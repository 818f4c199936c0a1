"""Accuracy and calibration of groups of samples, each tested, with the tests corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedlas._core.check import check_count
from fedlas.metrics import calibration_by_group
from fedlas.metrics.groups import check_two_a_group, group_labels
from fedlas.predictions import Predictions, TopLabel
from fedlas.stats.compare import holm
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, estimates

_REPLICATES_A_GROUP = 40
"""So many for each group, or Holm's correction leaves no p-value below 0.05."""
_MOST_REPLICATES = 10_000


@dataclass(frozen=True)
class GroupEstimate:
    """One group of samples.

    Attributes:
        num_samples: Samples in the group.
        confidence: Their mean confidence.
        accuracy: Share of correct predictions, with its interval; without one in a group of one sample.
        ece: ECE within the group, with interval, noise floor and the test that the model is calibrated there.
        p: P-value of that test after Holm's correction for all groups; None in a group of one sample.
    """

    num_samples: int
    confidence: float
    accuracy: Estimate
    ece: Estimate
    p: float | None = None

    @property
    def excess(self) -> float:
        """ECE less its noise floor, if there is one: by that groups of different sizes compare."""
        return self.ece.value - (self.ece.floor or 0.0)


def group_estimates(
    predictions: Predictions | TopLabel,
    groups: Sequence[Any],
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[Any, GroupEstimate]:
    """Estimate accuracy and ECE of each group with intervals, noise floors and calibration tests.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        groups: Group of each sample ``(N,)``, as in :func:`~fedlas.metrics.calibration_by_group`.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.
        confidence_level: Confidence level of the intervals, in ``(0, 1)``.
        replicates: At least so many, of intervals and floors; 40 for each group if that is more, up to 10,000. 0 leaves
            intervals, floors and tests out.
        seed: The same seed draws the same samples and labels.

    Returns:
        One entry for each group with samples that count, the one first whose ECE exceeds its noise floor most.

    Raises:
        InputError: If there is not one group for each sample, groups are floats, cannot be sorted or hold fewer than
            two samples on average, options are out of range, or the replicates are too few for the level.

    Note:
        The first group is chosen by the numbers that test it. Holm's correction allows for that: a group of a
        calibrated model has ``p <= 0.05`` in at most one data set in twenty, whichever is looked at. With more than 500
        groups no corrected p-value can be below 0.05.

    Example:
        >>> import torch
        >>> confidence = torch.full((400,), 0.8)
        >>> correct = torch.arange(400) % 10 < torch.tensor([8, 4]).repeat_interleave(200)
        >>> found = group_estimates(TopLabel(confidence, correct), ["here"] * 200 + ["there"] * 200, replicates=99)
        >>> next(iter(found)), round(found["there"].excess, 2), found["there"].p < 0.05 < found["here"].p
        ('there', 0.38, True)
    """
    check_count("replicates", replicates, low=0)
    table = calibration_by_group(predictions, groups, num_bins=num_bins)
    weights = predictions.weights
    clusters = predictions.clusters
    counted = np.arange(predictions.num_samples) if weights is None else np.flatnonzero(weights > 0)
    names, number = np.unique(group_labels(groups)[counted], return_inverse=True)
    check_two_a_group(names, len(number))
    num_replicates = max(replicates, min(_MOST_REPLICATES, _REPLICATES_A_GROUP * len(names)))
    options: dict[str, Any] = {
        "num_bins": num_bins,
        "confidence_level": confidence_level,
        "seed": seed,
    }
    confidence = predictions.confidence.cpu()
    correct = predictions.correct.cpu()
    groups_by_name = {}
    for place, name in enumerate(names.tolist()):
        row = table[name]
        rows = counted[number == place]
        # A single sample has no spread.
        measured = {
            "accuracy": Estimate(row.accuracy, 0.0, 1.0),
            "ece": Estimate(row.ece, 0.0, 1.0),
        }
        if len(rows) > 1 and replicates:
            shared: dict[str, Any] = {
                n: None if v is None else v[rows]
                for n, v in (("weights", weights), ("clusters", clusters))
            }
            part = TopLabel(confidence[rows], correct[rows], **shared)
            measured = estimates(part, ["accuracy", "ece"], replicates=num_replicates, **options)
        groups_by_name[name] = GroupEstimate(
            row.num_samples, row.confidence, measured["accuracy"], measured["ece"]
        )
    tested = [name for name, each in groups_by_name.items() if each.ece.p is not None]
    for name, p in zip(
        tested, holm([groups_by_name[name].ece.p or 0.0 for name in tested]), strict=True
    ):
        groups_by_name[name] = replace(groups_by_name[name], p=p)
    return dict(
        sorted(groups_by_name.items(), key=lambda item: (item[1].p is None, -item[1].excess))
    )
