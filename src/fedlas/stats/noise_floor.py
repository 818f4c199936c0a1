"""Noise floor: the distribution of a metric for a perfectly calibrated model, and the calibration test from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import check_choice, check_count, check_number
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import run_single_threaded
from fedlas.metrics.evaluation import compute_metrics
from fedlas.metrics.metric import Metric, resolve_metric
from fedlas.predictions.any_predictions import require_top_label
from fedlas.stats.draws import DrawPurpose, metrics_over_replicates, prepare_rows

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions, TopLabel

_TIE = 1e-9
"""Relative difference up to which a replicate counts as equal to the observed value: rounding, in another order."""


@dataclass(frozen=True)
class NoiseFloor:
    """Distribution of a metric under perfect calibration with the same probabilities, and the test of calibration.

    Attributes:
        metric: Registry name.
        value: The metric as observed.
        mean: Its mean if the model were calibrated: the noise floor.
        standard_deviation: Its spread then, from test set to test set.
        quantiles: Its quantiles then, by probability.
        p_value: Probability in ``(0, 1]`` of a value as bad as the observed one (``alternative="worse"``), or as far
            out (``"different"``), if the model is calibrated. One that equals ``least_p`` is a bound, not an estimate.
        alternative: What ``p_value`` is about.
        replicates: Number of replicates.
    """

    metric: str
    value: float
    mean: float
    standard_deviation: float
    quantiles: Mapping[float, float]
    p_value: float
    alternative: str
    replicates: int

    @property
    def excess(self) -> float:
        """``value - mean``: the part of the value beyond noise; can be negative."""
        return self.value - self.mean

    @property
    def least_p(self) -> float:
        """Smallest p-value that this number of replicates can give."""
        return least_p(self.replicates, self.alternative)


@check_argument_types
@run_single_threaded
def noise_floor(
    predictions: Predictions | TopLabel,
    *,
    metric: str = "ece",
    replicates: int = 1000,
    seed: int = 0,
    num_bins: int = 15,
    alternative: str | None = None,
    quantiles: Sequence[float] = (0.025, 0.05, 0.5, 0.95, 0.975),
) -> NoiseFloor:
    """Return the metric's distribution under perfect calibration, and a test of calibration.

    Each replicate keeps all logits and draws every label from the model's own probabilities, so that in it the model is
    calibrated by construction. For metrics of the predicted class that is: correct with probability equal to the
    confidence. The p-value is ``(1 + b) / (1 + R)``, where ``b`` of ``R`` replicates are at least as bad as the
    observed value. It tests *calibrated* in the sense that matters to the metric: for ECE that the confidences are the
    probabilities of being right, for classwise ECE that all probabilities are those of the labels.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; at least 2 samples.
        metric: Name of a registered metric.
        replicates: Number of replicates ``R``; the p-value cannot be below ``1 / (1 + R)``.
        seed: The same seed draws the same labels.
        num_bins: Bins of the metrics that have any.
        alternative: ``"worse"``: small p-values for a metric worse than calibration explains. That is the test for
            calibration errors. ``"different"``: for a metric that is worse or better, twice the smaller tail. An
            under-confident model has better accuracy, NLL and Brier score than its own probabilities promise, which
            only ``"different"`` notices. None: ``"worse"`` if the metric has a worse direction, else ``"different"``.
        quantiles: Probabilities in ``[0, 1]`` for ``NoiseFloor.quantiles``.

    Returns:
        The noise floor.

    Raises:
        InputError: For an unknown metric, options out of range, or fewer than 2 samples.

    Note:
        A metric that needs ``label_probs`` gets the model's probabilities as the known ones. Weights stay with their
        rows: fewer effective samples have a higher floor.

        A p-value above the level does not show that the model is calibrated: with few samples only large errors are
        found. Fitting a calibrator on the very samples that are tested makes the test meaningless.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> calibrated = noise_floor(Predictions(logits, target))
        >>> overconfident = noise_floor(Predictions(2 * logits, target))
        >>> calibrated.value > 0.01, calibrated.p_value > 0.05, overconfident.p_value < 0.001
        (True, True, True)

    Source:
        Bröcker & Smith, "Increasing the reliability of reliability diagrams" (2007), for resampled labels;
        Vaicenavicius et al., "Evaluating model calibration in classification" (2019), for the test; Davison
        & Hinkley, "Bootstrap Methods and their Application" (1997), section 4.2, for the p-value.
    """
    check_count("replicates", replicates, low=2)
    check_count("seed", seed, low=0)
    probabilities = [check_number("quantiles", q, low=0.0, high=1.0) for q in quantiles]
    predictions = require_top_label(predictions)
    entry = resolve_metric(metric, predictions)
    # A metric with a sign, of which 0 is best, is not worse in one direction.
    choices = ("different",) if entry.higher_is_better is None else ("worse", "different")
    alternative = check_choice(
        "alternative", choices[0] if alternative is None else alternative, choices
    )
    rows = prepare_rows(predictions, num_bins)
    value = compute_metrics(predictions, [entry], num_bins)[entry.name]
    values = metrics_over_replicates(
        DrawPurpose.NOISE_FLOOR, rows, [entry], replicates=replicates, seed=seed
    )[entry.name]
    return NoiseFloor(
        metric=metric,
        value=value,
        mean=float(values.mean()),
        standard_deviation=float(values.std(ddof=1)),
        quantiles=MappingProxyType(
            {
                q: float(at)
                for q, at in zip(probabilities, np.quantile(values, probabilities), strict=True)
            }
        ),
        p_value=p_value(entry, value, values, alternative),
        alternative=alternative,
        replicates=replicates,
    )


def p_value(entry: Metric, value: float, values: FloatArray, alternative: str) -> float:
    """Return the p-value of calibration, from the metric's null values ``(R,)``."""
    above = monte_carlo_p_value(values, value)
    below = monte_carlo_p_value(-values, -value)
    if alternative == "different":
        return min(1.0, 2.0 * min(above, below))
    return below if entry.higher_is_better else above


def monte_carlo_p_value(null_values: FloatArray, observed: float) -> float:
    """Return the Monte Carlo p-value ``(1 + #{values >= observed}) / (1 + R)``."""
    reached = null_values >= observed - _TIE * max(1.0, abs(observed))
    return (1 + int(reached.sum())) / (1 + len(null_values))


def least_p(replicates: int, alternative: str) -> float:
    """Return the smallest possible p-value: ``1 / (1 + R)``, or twice that for ``"different"``."""
    return min(1.0, (2.0 if alternative == "different" else 1.0) / (1.0 + replicates))


def is_significant(p_value: float, significance: float) -> bool:
    """Return whether ``p_value`` is at most ``significance``, up to rounding."""
    return p_value <= significance * (1.0 + _TIE)


def format_p_digits(p_value: float) -> str:
    """Return a p-value with two significant digits, or one below 0.01: ``0.31``, ``0.001``, ``<0.0001``.

    Example:
        >>> format_p_digits(0.3141), format_p_digits(0.001), format_p_digits(1.0), format_p_digits(1e-9)
        ('0.31', '0.001', '1', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.1g}" if p_value < 0.01 else f"{p_value:.2g}"


def format_p(p_value: float, least_p: float | None) -> str:
    """Return ``"p = 0.31"``, or ``"p ≤ 0.001"`` at the smallest p-value that the replicates can give.

    Example:
        >>> format_p(0.3141, 0.001), format_p(0.001, 0.001), format_p(0.001, None), format_p(1e-9, None)
        ('p = 0.31', 'p ≤ 0.001', 'p = 0.001', 'p < 0.0001')
    """
    bound = least_p is not None and is_significant(p_value, least_p)
    return f"p {'≤' if bound else '='} {format_p_digits(p_value)}".replace("= <", "< ").replace(
        "≤ <", "< "
    )
