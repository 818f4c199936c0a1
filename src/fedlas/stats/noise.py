"""How much of a metric is noise: its interval over the samples, and what it would be for a calibrated model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fedlas._core.check import InputError
from fedlas.metrics import METRICS
from fedlas.predictions import Predictions
from fedlas.stats.bootstrap import bootstrap_intervals
from fedlas.stats.class_errors import class_errors
from fedlas.stats.forms import ZERO_IF_CALIBRATED
from fedlas.stats.intervals import LEVEL, fewest_replicates
from fedlas.stats.noise_floor import least_p, noise_floor

REPLICATES = 1000
"""Replicates of every interval and every noise floor, where nothing else is asked for."""
CLASS_REPLICATES = 199
"""At most so many for the ECE of each class: all classes together cost as much as classwise ECE does once more."""
COSTLY = {"smooth_ece": 99}
"""At most so many replicates of metrics that take a hundred times as long as the others on small test sets."""
CONFIDENCE = 1.0 - LEVEL
"""Level of the intervals."""


@dataclass(frozen=True)
class Noise:
    """What chance does to a metric of one test set.

    Attributes:
        value: The metric.
        low: Lower end of its bootstrap interval.
        high: Upper end.
        replicates: How many there were.
        floor: Its mean for a perfectly calibrated model with the same confidences; None for what is no calibration
            error.
        p_value: Of the test that the model is calibrated, in ``(0, 1]``; None where there is no floor.
        least_p: The smallest p-value that so many replicates can give; None where there is no floor.
    """

    value: float
    low: float
    high: float
    replicates: int
    floor: float | None = None
    p_value: float | None = None
    least_p: float | None = None

    def plain(self) -> dict[str, float]:
        """Its numbers by name, as JSON has them; without those that there are not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class RunNoise:
    """What chance does to the metrics of one run.

    Attributes:
        stages: :class:`Noise` by stage (``"test"``, ``"test_scaled"``), then by registry name.
        classes: Of the ECE of each class's probability, by label, at stage ``"test"``; none where it is not known.
        reasons: Why something is missing, as sentences.
    """

    stages: Mapping[str, Mapping[str, Noise]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    classes: Mapping[int, Noise] = field(default_factory=dict)

    def get(self, metric: str, stage: str = "test") -> Noise | None:
        """Of ``metric`` at ``stage``; None where it is not known."""
        return self.stages.get(stage, {}).get(metric)


def check_replicates(owner: str, replicates: int) -> None:
    """Check a number of replicates before anything long begins.

    Raises:
        InputError: If it is neither 0 nor enough for an interval.
    """
    least = fewest_replicates(CONFIDENCE)
    if replicates and replicates < least:
        raise InputError(
            owner,
            f"replicates must be 0 or at least {least} for {100 * CONFIDENCE:g} % intervals",
            replicates,
            "Ask for more, such as 1000, or for none with 0.",
        )


def is_calibration_error(metric: str) -> bool:
    """Whether 0 is what a calibrated model has of ``metric``, but for chance: what a noise floor says something of.

    Example:
        >>> [name for name in ("accuracy", "ece", "classwise_ece", "debiased_ece2") if is_calibration_error(name)]
        ['ece', 'classwise_ece', 'debiased_ece2']
    """
    if metric not in METRICS:
        return False
    entry = METRICS[metric]
    return entry.value in ZERO_IF_CALIBRATED or entry.metadata["higher_is_better"] is None


def is_unbiased(metric: str) -> bool:
    """Whether ``metric`` is registered as an unbiased estimator, whose intervals are centred."""
    return metric in METRICS and bool(METRICS[metric].metadata.get("unbiased", False))


def least_p_value(metric: str, replicates: int) -> float:
    """:attr:`fedlas.stats.NoiseFloor.least_p` of the test of ``metric``, where only the number of replicates is kept.

    Example:
        >>> least_p_value("ece", 999), least_p_value("debiased_ece2", 999)
        (0.001, 0.002)
    """
    both_ways = metric in METRICS and METRICS[metric].metadata["higher_is_better"] is None
    return least_p(replicates, "different" if both_ways else "worse")


def measurable(metrics: Sequence[str], predictions: Predictions) -> list[str]:
    """Those of ``metrics`` that are registered and need nothing that ``predictions`` lack."""
    known = [name for name in metrics if name in METRICS]
    needs = {name: METRICS[name].metadata.get("needs", ()) for name in known}
    return [name for name in known if all(getattr(predictions, need) is not None for need in needs[name])]


def noise_of(
    predictions: Predictions, metrics: Sequence[str], *, num_bins: int = 15, replicates: int = REPLICATES, seed: int = 0
) -> Iterator[tuple[str, Noise]]:
    """Name and :class:`Noise` of each of ``metrics``, as they are found, so that a caller can show how far it is.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 2 samples.
        metrics: Registry names.
        num_bins: Bins of the metrics that have any.
        replicates: At least 39, see :func:`fedlas.stats.bootstrap_interval`; those of :data:`COSTLY` have fewer.
        seed: The same seed draws the same samples and labels.

    Raises:
        InputError: As :func:`fedlas.stats.bootstrap_intervals`.
    """
    costly = [name for name in metrics if name in COSTLY]
    for names in ([name for name in metrics if name not in COSTLY], *([name] for name in costly)):
        if not names:
            continue
        drawn = min(replicates, *(COSTLY.get(name, replicates) for name in names))
        options: dict[str, Any] = {"replicates": drawn, "seed": seed, "num_bins": num_bins}
        found = bootstrap_intervals(predictions, metrics=names, level=CONFIDENCE, **options)
        for name, interval in found.items():
            floor = p_value = least_p = None
            if is_calibration_error(name):
                calibrated = noise_floor(predictions, metric=name, **options)
                floor, p_value, least_p = calibrated.mean, calibrated.p_value, calibrated.least_p
            # A moved end can lie beyond what a fraction can be; to cut it off there loses no coverage.
            high = min(interval.high, 1.0) if METRICS[name].metadata["percent"] else interval.high
            yield name, Noise(interval.value, interval.low, high, drawn, floor, p_value, least_p)


def class_noise(predictions: Predictions, *, num_bins: int, replicates: int, seed: int = 0) -> dict[int, Noise]:
    """:class:`Noise` of the ECE of each class's probability, by label, from at most :data:`CLASS_REPLICATES`.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, at least 2 samples.
        num_bins: Of each class.
        replicates: At least 39.
        seed: The same seed draws the same samples and labels.
    """
    drawn = min(replicates, CLASS_REPLICATES)
    found = class_errors(predictions, num_bins=num_bins, level=CONFIDENCE, replicates=drawn, seed=seed)
    least = least_p_value("classwise_ece", drawn)
    return {
        label: Noise(e.interval.value, e.interval.low, e.interval.high, drawn, e.floor, e.p_value, least)
        for label, e in found.items()
    }
