"""Calibration of several labels per sample: each label and means over labels, with intervals and tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count
from fedlas._core.kinds import check_argument_types
from fedlas._core.ops import Floats, sigmoid, softplus
from fedlas._core.threads import run_single_threaded
from fedlas.binary.discrimination import auroc_with_influence
from fedlas.binary.grouped_samples import GroupedSamples
from fedlas.binary.positive import Positive
from fedlas.binary.recalibration import GroupRow, iter_group_rows
from fedlas.metrics.evaluation import EVALUATIONS
from fedlas.metrics.ranking_scores import auroc_and_influence
from fedlas.predictions.multi_label import UNKNOWN, require_known_labels, require_multi_label
from fedlas.predictions.probabilities import is_zero_or_one
from fedlas.stats.bootstrap import calibration_error_interval
from fedlas.stats.compare import holm
from fedlas.stats.degrees import degrees_of_freedom
from fedlas.stats.estimates import (
    CONFIDENCE_LEVEL,
    REPLICATES,
    RESAMPLING,
    Estimate,
    check_replicates,
)
from fedlas.stats.intervals import check_confidence_level, normal_interval, standard_error
from fedlas.stats.label_bins import LabelErrors, compute_label_errors
from fedlas.stats.noise_floor import least_p, monte_carlo_p_value
from fedlas.stats.result_table import ResultTable

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray, IntArray
    from fedlas.predictions import MultiLabel

_CHUNK_ROWS = 2**17
"""Labels of samples that are measured in one pass, whose numbers stay in the cache of a processor."""
MIN_OUTCOMES = 5
"""Samples with, and without, a label below which its slope is not tested."""


@dataclass(frozen=True)
class LabelMeasures:
    """Prevalence, calibration and AUROC of one label.

    Attributes:
        num_samples: Samples of which the label is known.
        positives: How many of them have it.
        prevalence: Their share, with its interval.
        expected: Mean probability of the label.
        ratio: Observed over expected, with the p-value of the number of positives given the probabilities.
        slope: Calibration slope; None where a threshold separates the samples, or all are alike.
        ece: ECE of the label's probability, with noise floor and p-value.
        auroc: Area under the ROC curve; None where all samples are alike.
        p: P-value of the number of positives and the slope together, after Holm's correction for all labels; None where
            neither can be tested.

    Example:
        >>> from fedlas import MultiLabel
        >>> several = MultiLabel([[0.0, 2.0], [1.0, -1.0], [-1.0, 0.0]], [[1, 1], [0, 0], [0, 1]], names=("cat", "dog"))
        >>> dog = label_measures(several, replicates=0)["dog"]
        >>> dog.num_samples, dog.positives, round(dog.expected, 3)
        (3, 2, 0.55)
    """

    num_samples: int
    positives: int
    prevalence: Estimate
    expected: float
    ratio: Estimate
    slope: Estimate | None
    ece: Estimate
    auroc: Estimate | None
    p: float | None = None


class LabelTable(ResultTable[str, LabelMeasures]):
    """Measures of each label, ordered by evidence of miscalibration, and means over labels.

    Attributes:
        overall: Means over labels (``macro_``), of all labels in one (``micro_``), and ``worst_label_ece``.
        unknown: Names of labels that no sample tells, which have no line.
    """

    overall: Mapping[str, Estimate]
    unknown: tuple[str, ...]

    def __init__(
        self,
        content: Mapping[str, LabelMeasures],
        overall: Mapping[str, Estimate] | None = None,
        unknown: tuple[str, ...] = (),
    ) -> None:
        super().__init__(content)
        self.overall = overall or {}
        self.unknown = unknown


@check_argument_types
@run_single_threaded
def label_measures(
    predictions: MultiLabel,
    *,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> LabelTable:
    """Measure the calibration of each label of multi-label predictions, and the means over labels.

    Args:
        predictions: Logits and labels ``(N, L)``; unknown labels count for nothing.
        num_bins: Bins of equal width of the ECE, at least 1.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: For the ECE, at least 39 for level 0.95; 0 makes no interval and no floor.
        seed: The same seed draws the same samples.

    Returns:
        A line for each label that a sample tells, the strongest evidence of miscalibration first; ``overall`` has the
        means.

    Raises:
        InputError: For no known label, an option out of range, or too few replicates.

    Note:
        Samples, or whole clusters, are drawn with all of their labels, which depend on each other: intervals of means
        over labels allow for that. The p-value of a label is twice the smaller one of the number of positives and of
        the slope (Bonferroni), the latter where at least 5 samples have the label and 5 do not.

    Example:
        >>> import torch
        >>> from fedlas.predictions import MultiLabel
        >>> logits = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> scale = torch.tensor([1.0, 3.0, 1.0])
        >>> found = label_measures(MultiLabel(scale * logits, target, names=("cat", "dog", "fox")), replicates=99)
        >>> next(iter(found)), round(found["dog"].slope.value, 1), found["dog"].p < 0.001 < found["cat"].p
        ('dog', 0.3, True)
    """
    require_multi_label(predictions)
    check_count("num_bins", num_bins)
    check_count("seed", seed, low=0)
    check_replicates(replicates, check_confidence_level(confidence_level))
    data = LabelData.from_predictions(predictions)
    errors = data.errors(num_bins=num_bins, replicates=replicates, seed=seed)
    lines: list[LabelMeasures] = []
    for place, (row, positive) in enumerate(data.iter_labels(confidence_level)):
        area = None
        if 0 < row.events < row.num_samples:
            area, influence = auroc_with_influence(positive, confidence_level)
            data.add_auroc(place, area.value, influence)
        lines.append(
            LabelMeasures(
                row.num_samples,
                row.events,
                _prevalence_estimate(positive, confidence_level),
                row.expected,
                row.ratio,
                row.slope,
                _label_ece_estimate(errors, place, data.degrees, confidence_level),
                area,
            )
        )
    p_values = [_combined_p_value(line) for line in lines]
    corrected = holm([p for p in p_values if p is not None])
    tested = {place for place, p in enumerate(p_values) if p is not None}
    adjusted = dict(zip(sorted(tested), corrected, strict=True))
    order = sorted(
        range(len(lines)),
        key=lambda place: (
            2.0 if (p := p_values[place]) is None else p,
            -abs(math.log(max(lines[place].ratio.value, 1e-300))),
        ),
    )
    content = {
        data.names[place]: LabelMeasures(**{**vars(lines[place]), "p": adjusted.get(place)})
        for place in order
    }
    overall = data.overall(errors, confidence_level)
    return LabelTable(content, overall, data.unknown)


@EVALUATIONS.register("several labels")
@run_single_threaded
def means_over_labels(predictions: MultiLabel, num_bins: int) -> dict[str, float]:
    """Return macro and micro metrics and the worst label's ECE, by name."""
    data = LabelData.from_predictions(predictions)
    errors = data.errors(num_bins=num_bins, replicates=0, seed=0)
    measured = data.means() | summarize_errors(errors)
    return {name: value for name, (value, *_) in measured.items()}


class LabelData:
    """Arrays of multi-label predictions, without samples of weight 0 and without labels that are never known.

    Attributes:
        names: Names of the labels that are known of some sample.
        unknown: Names of the others.
        degrees: Degrees of freedom of a variance over the clusters.
        clusters: Number of each sample's cluster ``(N,)``; None if samples are independent.
        predictions: The samples.
    """

    def __init__(self, predictions: MultiLabel, has_label: NDArray[np.bool_]) -> None:
        weights = predictions.weights
        inside = has_label.any(axis=0)
        names = np.array(predictions.names)
        self.names: list[str] = names[inside].tolist()
        self.unknown = tuple(names[~inside].tolist())
        self.predictions = predictions
        self._logits: Floats = predictions.logits[:, inside]
        self.positives: NDArray[np.bool_] = predictions.target[:, inside] == 1
        self.known = has_label[:, inside]
        each = np.ones(len(has_label)) if weights is None else weights / weights.mean()
        self._weights: FloatArray | None = None if weights is None else each
        self.counts: FloatArray = each[:, None] * self.known
        clusters = predictions.clusters
        self.clusters: IntArray | None = (
            None if clusters is None else np.unique(clusters, return_inverse=True)[1]
        )
        self.degrees = degrees_of_freedom(each, self.clusters)
        self._areas: list[float] = []
        self._moved: FloatArray = np.zeros(len(has_label))

    @classmethod
    def from_predictions(cls, predictions: MultiLabel) -> LabelData:
        """Return the arrays of ``predictions``, without samples of weight 0.

        Raises:
            InputError: If no label is known.
        """
        require_known_labels(predictions)
        if (weights := predictions.weights) is not None and not weights.all():
            predictions = predictions.rows(weights > 0)
        has_label = predictions.target != UNKNOWN
        if not has_label.any():
            fix = "Pass samples whose labels are known."
            raise InputError("at least one label must be known", f"{UNKNOWN} everywhere", fix)
        return cls(predictions, has_label)

    def errors(self, *, num_bins: int, replicates: int, seed: int) -> LabelErrors:
        """Return the ECE of each label with replicates; without replicates if there is only one sample or cluster."""
        import torch

        return compute_label_errors(
            torch.from_numpy(sigmoid(self._logits.astype(np.float64))),
            self.positives,
            self.counts,
            self.clusters,
            num_bins=num_bins,
            replicates=replicates if self.has_several_units else 0,
            seed=seed,
        )

    @property
    def has_several_units(self) -> bool:
        """Whether there are at least two samples, or two clusters, to resample."""
        return len(self.known) > 1 and self.degrees > 0

    def iter_labels(self, confidence_level: float) -> Iterator[tuple[GroupRow, Positive]]:
        """Yield events and estimates, and the samples, of each label."""
        for part in self._label_slices():
            has_label = self.known[:, part].T
            label, sample = np.nonzero(has_label)
            log_odds = self._logits[:, part].T.astype(np.float64)[has_label]
            whole = Positive(
                log_odds,
                sigmoid(log_odds),
                self.positives[:, part].T[has_label].astype(np.float64),
                None if self._weights is None else self._weights[sample],
                None if self.clusters is None else self.clusters[sample],
                is_zero_or_one(log_odds),
            )
            ends = np.bincount(label, minlength=len(has_label)).cumsum()
            rows = iter_group_rows(GroupedSamples.from_positive(whole, label), confidence_level)
            for row, end in zip(rows, ends.tolist(), strict=True):
                yield row, whole.rows(np.arange(end - row.num_samples, end))

    def overall(self, errors: LabelErrors, confidence_level: float) -> dict[str, Estimate]:
        """Return estimates of the macro and micro means."""
        means = {}
        for name, (value, influence) in self.means().items():
            error = (
                standard_error(influence, self.predictions) if self.has_several_units else math.nan
            )
            ends = normal_interval(
                value, error, confidence_level=confidence_level, degrees=self.degrees
            )
            high = 1.0 if name.endswith("auroc") else math.inf
            means[name] = Estimate(
                value, max(ends.low, 0.0), min(ends.high, high), confidence_level=confidence_level
            )
        for name, parts in summarize_errors(errors).items():
            means[name] = _ece_estimate(*parts, self.degrees, confidence_level, tested=False)
        return means

    @property
    def probability(self) -> FloatArray:
        """Probability of each label ``(N, L)``."""
        probability: FloatArray = sigmoid(self._logits.astype(np.float64))
        return probability

    def means(self, *, areas: bool = True) -> dict[str, tuple[float, FloatArray]]:
        """Return macro and micro NLL and Brier score, and macro AUROC, each with influences ``(N,)``.

        Args:
            areas: Whether to compute the AUROC, which takes longest.
        """
        sums = {name: np.zeros((2, len(self.known))) for name in ("nll", "brier")}
        by_label: dict[str, list[FloatArray]] = {name: [] for name in sums}
        for part in self._label_slices():
            counts = self.counts[:, part]
            logits = self._logits[:, part].astype(np.float64)
            happened = self.positives[:, part]
            rows = {
                "nll": softplus((1.0 - 2.0 * happened) * logits),
                "brier": (sigmoid(logits) - happened) ** 2,
            }
            total = counts.sum(axis=0)
            for name, values in rows.items():
                weighted = counts * values
                mean = weighted.sum(axis=0) / total
                by_label[name].append(mean)
                sums[name][0] += ((weighted - counts * mean) / total).sum(axis=1)
                sums[name][1] += weighted.sum(axis=1)
        means: dict[str, tuple[float, FloatArray]] = {}
        of_samples = self.counts.sum(axis=1)
        whole = of_samples.sum()
        for name, (influence, values) in sums.items():
            labels = np.concatenate(by_label[name])
            means[f"macro_{name}"] = float(labels.mean()), influence / len(labels)
            mean = values.sum() / whole
            means[f"micro_{name}"] = float(mean), (values - mean * of_samples) / whole
        if areas and not self._areas:
            for place in range(len(self.names)):
                self._add_label_auroc(place)
        if areas and self._areas:
            count = len(self._areas)
            means["macro_auroc"] = float(np.mean(self._areas)), self._moved / count
        return means

    def add_auroc(self, index: int, auroc: float, influence: FloatArray) -> None:
        """Add the AUROC of a label, and its influences on the samples with a known label."""
        self._areas.append(auroc)
        self._moved[self.known[:, index]] += influence

    def _add_label_auroc(self, index: int) -> None:
        """Compute and add the AUROC of a label, if both outcomes occur."""
        has_label = self.known[:, index]
        happened = self.positives[has_label, index]
        if happened.any() and not happened.all():
            scores = self._logits[:, index].astype(np.float64)[has_label]
            counts = self.counts[has_label, index]
            self.add_auroc(index, *auroc_and_influence(scores, happened, counts))

    def _label_slices(self) -> Iterator[slice]:
        step = max(1, _CHUNK_ROWS // len(self.known))
        return (slice(start, start + step) for start in range(0, len(self.names), step))


def summarize_errors(errors: LabelErrors) -> dict[str, tuple[float, FloatArray, FloatArray]]:
    """Return macro, worst-label and micro ECE, each with bootstrap and null replicates."""
    mean: Callable[..., Any] = np.mean
    most: Callable[..., Any] = np.max
    by_label = (errors.values, errors.samples, errors.floors)
    value, samples, floors = errors.pooled
    return {
        "macro_ece": (float(errors.values.mean()), *(mean(each, axis=1) for each in by_label[1:])),
        "worst_label_ece": (
            float(errors.values.max()),
            *(most(each, axis=1) for each in by_label[1:]),
        ),
        "micro_ece": (float(value[0]), samples, floors),
    }


def _label_ece_estimate(
    errors: LabelErrors, index: int, degrees: float, confidence_level: float
) -> Estimate:
    """Return the ECE of one label as an estimate."""
    parts = float(errors.values[index]), errors.samples[:, index], errors.floors[:, index]
    return _ece_estimate(*parts, degrees, confidence_level, tested=True)


def _ece_estimate(
    value: float,
    replicates: FloatArray,
    null_replicates: FloatArray,
    degrees: float,
    confidence_level: float,
    *,
    tested: bool,
) -> Estimate:
    if not len(replicates):
        return Estimate(value, math.nan, math.nan, confidence_level=confidence_level)
    interval = calibration_error_interval(
        value, replicates, null_replicates, confidence_level=confidence_level, degrees=degrees
    )
    count = len(replicates)
    return Estimate(
        value,
        interval.low,
        min(interval.high, 1.0),
        floor=float(null_replicates.mean()),
        p=monte_carlo_p_value(null_replicates, value) if tested else None,
        least_p=least_p(count, "worse") if tested else None,
        replicates=count,
        confidence_level=confidence_level,
        test=RESAMPLING if tested else "",
    )


def _prevalence_estimate(positive: Positive, confidence_level: float) -> Estimate:
    every = np.arange(positive.num_samples)
    share = positive.share(positive.outcome > 0, every, confidence_level)
    return Estimate(*share, confidence_level=confidence_level)


def _combined_p_value(line: LabelMeasures) -> float | None:
    """Return the Bonferroni-combined p-value of the number of positives and the slope, or None if untested."""
    rare = min(line.positives, line.num_samples - line.positives)
    tested = [line.ratio.p]
    if line.slope is not None and rare >= MIN_OUTCOMES:
        tested.append(line.slope.p)
    p_values = [p for p in tested if p is not None]
    return min(1.0, len(p_values) * min(p_values)) if p_values else None
