"""What a card of several labels holds of its test samples, in which a monitor looks for a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedlas.predictions import MultiLabel
from fedlas.predictions.multi_label import UNKNOWN
from fedlas.stats.gap_sums import (
    GapSums,
    check_edges,
    quantile_edges,
    read_array,
    read_counts,
)
from fedlas.stats.rows import Floats

ALL_LABELS = "all labels"
"""Name of the mean over labels."""
_CELLS = 3
_BINS = 4
"""Cells of a label's probability in which its gap is followed, and bins of its distribution."""


@dataclass(frozen=True)
class LabelReference:
    """Sums over the test part for one of several labels, in cells and bins that validation predictions choose.

    Attributes:
        gaps: Of the samples that tell the label, in cells of its probability.
        scores: Of the probability of all samples, without outcomes.
        bin_edges: Ends of the bins of the probability ``(B + 1,)``.
        bin_counts: Samples in each bin ``(B,)``.
    """

    gaps: GapSums
    scores: GapSums
    bin_edges: Floats
    bin_counts: Floats
    subject: ClassVar[str] = "labels"
    thresholds: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> LabelReference:
        """Read what :func:`label_reference` holds of a label; refuse sums that do not agree."""
        gaps, scores = (GapSums.read(content[name]) for name in ("gaps", "scores"))
        edges = check_edges(read_array(content, "bin_edges"))
        counts = read_counts(content, "bin_counts")
        samples = scores.count[0]
        if edges.shape != (len(counts) + 1,) or not counts.sum() == samples >= gaps.count[0]:
            raise ValueError(f"bins of {counts.sum():g} of {samples:g} samples")
        return cls(gaps, scores, edges, counts)


def label_reference(val: MultiLabel, test: MultiLabel) -> dict[str, Any]:
    """Return sums over the test part for ``fedlas monitor``: of each label, and of the mean of all labels."""
    probability, chosen = (each.logits.double().sigmoid().numpy() for each in (test, val))
    target = test.target.numpy()
    labels = []
    for place, scores in enumerate(probability.T):
        cells, bins = (quantile_edges(chosen[:, place], number) for number in (_CELLS, _BINS))
        is_known = target[:, place] != UNKNOWN
        counts, _ = np.histogram(scores, bins)
        labels.append(
            {
                "gaps": GapSums.of(cells, scores[is_known], target[is_known, place] == 1).plain(),
                "scores": _sums(scores).plain(),
                "bin_edges": bins.tolist(),
                "bin_counts": counts.tolist(),
            }
        )
    complete = (target != UNKNOWN).all(axis=1)
    means = {
        name: _sums(
            mean(probability, target == 1)[slice(None) if name == "probability" else complete]
        )
        for name, mean in MEANS.items()
    }
    return {
        "part": "test",
        "subject": "labels",
        "all": {name: sums.plain() for name, sums in means.items()},
        "labels": labels,
    }


def _sums(values: Floats) -> GapSums:
    """Return the sums of values in ``[0, 1]``, without outcomes."""
    return GapSums.of((0.0, 1.0), values, np.zeros(len(values), dtype=bool))


def _probability(probability: Floats, _happened: NDArray[np.bool_]) -> Floats:
    return np.asarray(probability.mean(axis=1))


def _prevalence(_probability: Floats, happened: NDArray[np.bool_]) -> Floats:
    return np.asarray(happened.mean(axis=1))


def _calibration(probability: Floats, happened: NDArray[np.bool_]) -> Floats:
    # Moved from [-1, 1] to [0, 1], as sums are.
    return np.asarray((1.0 + (happened - probability).mean(axis=1)) / 2)


MEANS = {"calibration": _calibration, "prevalence": _prevalence, "probability": _probability}
"""By watch: the mean over the labels ``(n,)`` of probabilities and outcomes ``(n, L)``, in ``[0, 1]``."""
