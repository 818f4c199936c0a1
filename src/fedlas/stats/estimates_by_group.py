"""Accuracy and calibration of groups of samples, with tests corrected for the number of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import check_count
from fedlas.metrics import calibration_by_group
from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.groups import GroupCalibration, check_group_sizes, to_label_array
from fedlas.predictions import Predictions, TopLabel
from fedlas.stats.compare import holm
from fedlas.stats.draws import has_several_units
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, estimates

_REPLICATES_PER_GROUP = 40
"""So many for each group, or Holm's correction leaves no p-value below 0.05."""
_MAX_REPLICATES = 10_000
MAX_TESTED = 500
"""Groups with intervals and tests; with more no corrected p-value can be below 0.05."""


@dataclass(frozen=True)
class GroupEstimate:
    """Accuracy and ECE of one group of samples.

    Attributes:
        num_samples: Samples in the group.
        confidence: Their mean confidence.
        accuracy: Share of correct predictions, with its interval; in a group of one sample, or cluster, it is [0, 1].
        ece: ECE within the group, with interval, noise floor and the test that the model is calibrated there.
        p: P-value of that test after Holm's correction for all groups; None in a group of one sample or cluster, and
            of more than 500 groups in those nearest to their floor.
    """

    num_samples: int
    confidence: float
    accuracy: Estimate
    ece: Estimate
    p: float | None = None

    @property
    def excess(self) -> float:
        """ECE minus its noise floor, for comparing groups of different sizes."""
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
        groups no corrected p-value can be below 0.05: intervals, floors and tests are then those of the 500 whose ECE
        exceeds a normal approximation of its floor most, and the others follow without.

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
    weights = predictions.tensors().weights
    clusters = predictions.tensors().clusters
    used_rows = (
        np.arange(predictions.num_samples) if weights is None else np.flatnonzero(weights > 0)
    )
    names, codes = np.unique(to_label_array(groups)[used_rows], return_inverse=True)
    check_group_sizes(names, len(codes))
    num_replicates = max(replicates, min(_MAX_REPLICATES, _REPLICATES_PER_GROUP * len(names)))
    options: dict[str, Any] = {
        "num_bins": num_bins,
        "confidence_level": confidence_level,
        "seed": seed,
    }
    confidence = predictions.tensors().confidence
    correct = predictions.tensors().correct
    parts = np.split(used_rows[np.argsort(codes, kind="stable")], np.bincount(codes).cumsum()[:-1])
    tested = _groups_to_test(predictions, used_rows, codes, table, num_bins)
    groups_by_name = {}
    for index, (name, rows) in enumerate(zip(names.tolist(), parts, strict=True)):
        row = table[name]
        # A single sample, or cluster, has no spread.
        measured = {
            "accuracy": Estimate(row.accuracy, 0.0, 1.0),
            "ece": Estimate(row.ece, 0.0, 1.0),
        }
        if index in tested and replicates:
            shared: dict[str, Any] = {
                n: None if v is None else v[rows]
                for n, v in (("weights", weights), ("clusters", clusters))
            }
            part = TopLabel(confidence[rows], correct[rows], **shared)
            if has_several_units(part):
                measured = estimates(
                    part, ["accuracy", "ece"], replicates=num_replicates, **options
                )
        groups_by_name[name] = GroupEstimate(
            row.num_samples, row.confidence, measured["accuracy"], measured["ece"]
        )
    # Groups that are not tested count in the correction, too.
    others = max(0, sum(len(rows) > 1 for rows in parts) - MAX_TESTED)
    p_values = {name: p for name, each in groups_by_name.items() if (p := each.ece.p) is not None}
    for name, p in zip(p_values, holm([*p_values.values(), *[1.0] * others]), strict=False):
        groups_by_name[name] = replace(groups_by_name[name], p=p)
    return dict(
        sorted(groups_by_name.items(), key=lambda item: (item[1].p is None, -item[1].excess))
    )


def _groups_to_test(
    predictions: Predictions | TopLabel,
    used_rows: NDArray[np.int64],
    codes: NDArray[np.int64],
    table: Mapping[Any, GroupCalibration],
    num_bins: int,
) -> set[int]:
    """Return the indices of the groups to test: the largest excess over the floor, with at least two samples."""
    several = np.flatnonzero(np.bincount(codes) > 1)
    if len(several) <= MAX_TESTED:
        return set(several.tolist())
    # A bin's sum of gaps is nearly normal, and its mean size then the root of 2 / pi standard deviations.
    confidence = predictions.tensors().confidence.double()[used_rows]
    weights = np.ones(len(used_rows))
    if predictions.weights is not None:
        weights = predictions.weights[used_rows]
    cell = codes * num_bins + equal_width_index(confidence, num_bins).numpy()
    chance = confidence.numpy() * (1.0 - confidence.numpy())
    variance = np.bincount(cell, weights**2 * chance, len(table) * num_bins)
    floor = np.sqrt(2 / np.pi * variance).reshape(-1, num_bins).sum(axis=1)
    excess = np.array([row.ece for row in table.values()]) - floor / np.bincount(codes, weights)
    return set(several[np.argsort(-excess[several], kind="stable")[:MAX_TESTED]].tolist())
