"""Reference statistics per label of a multi-label card, to which a monitor compares live predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlas.predictions.multi_label import UNKNOWN
from fedlas.stats.gap_sums import (
    GapSums,
    check_edges,
    quantile_edges,
    read_array,
    read_counts,
)

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import MultiLabel

ALL_LABELS = "all labels"
"""Name that stands for the mean over all labels."""
_CELLS = 3
_BINS = 4
"""Number of probability cells for the calibration gap of a label, and of bins for its distribution."""


@dataclass(frozen=True)
class LabelReference:
    """Reference statistics of one label on the test part, in cells and bins of validation quantiles.

    Attributes:
        gaps: Sums over the samples with a known label, in cells of the probability.
        scores: Sums of the probability over all samples, without outcomes.
        bin_edges: Edges of the probability bins ``(B + 1,)``.
        bin_counts: Number of samples per bin ``(B,)``.
    """

    gaps: GapSums
    scores: GapSums
    bin_edges: FloatArray
    bin_counts: FloatArray
    subject: ClassVar[str] = "labels"
    thresholds: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelReference:
        """Return a label's entry in the result of :func:`build_label_reference`; check its sums."""
        gaps, scores = (GapSums.from_dict(content[name]) for name in ("gaps", "scores"))
        edges = check_edges(read_array(content, "bin_edges"))
        counts = read_counts(content, "bin_counts")
        samples = scores.count[0]
        if edges.shape != (len(counts) + 1,) or not counts.sum() == samples >= gaps.count[0]:
            raise ValueError(f"bin_counts sum to {counts.sum():g}, not to {samples:g} samples")
        return cls(gaps, scores, edges, counts)


def build_label_reference(val: MultiLabel, test: MultiLabel) -> dict[str, Any]:
    """Return reference statistics of the test part for a monitor: per label, and for the mean over labels."""
    probability, chosen = (each.tensors().logits.double().sigmoid().numpy() for each in (test, val))
    target = test.target
    labels = []
    for place, scores in enumerate(probability.T):
        cells, bins = (quantile_edges(chosen[:, place], number) for number in (_CELLS, _BINS))
        is_known = target[:, place] != UNKNOWN
        counts, _ = np.histogram(scores, bins)
        labels.append(
            {
                "gaps": GapSums.from_samples(
                    cells, scores[is_known], target[is_known, place] == 1
                ).to_dict(),
                "scores": _sums_without_outcomes(scores).to_dict(),
                "bin_edges": bins.tolist(),
                "bin_counts": counts.tolist(),
            }
        )
    complete = (target != UNKNOWN).all(axis=1)
    means = {
        name: _sums_without_outcomes(
            mean(probability, target == 1)[slice(None) if name == "probability" else complete]
        )
        for name, mean in LABEL_MEANS.items()
    }
    return {
        "part": "test",
        "subject": "labels",
        "all": {name: sums.to_dict() for name, sums in means.items()},
        "labels": labels,
    }


def _sums_without_outcomes(values: FloatArray) -> GapSums:
    """Return the sums of values in ``[0, 1]`` in one cell, with all outcomes False."""
    return GapSums.from_samples((0.0, 1.0), values, np.zeros(len(values), dtype=bool))


def _mean_probability(probability: FloatArray, _happened: NDArray[np.bool_]) -> FloatArray:
    return np.asarray(probability.mean(axis=1))


def _mean_prevalence(_probability: FloatArray, happened: NDArray[np.bool_]) -> FloatArray:
    return np.asarray(happened.mean(axis=1))


def _mean_calibration_gap(probability: FloatArray, happened: NDArray[np.bool_]) -> FloatArray:
    # Mapped from [-1, 1] to [0, 1], the range of GapSums.
    return np.asarray((1.0 + (happened - probability).mean(axis=1)) / 2)


LABEL_MEANS = {
    "calibration": _mean_calibration_gap,
    "prevalence": _mean_prevalence,
    "probability": _mean_probability,
}
"""Functions by watch: mean over labels ``(n,)`` in ``[0, 1]``, from probabilities and outcomes ``(n, L)``."""
