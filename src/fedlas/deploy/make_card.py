"""Makes a calibration card: what a model may be trusted with, in numbers that a machine and a person can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas.calibrators import VennAbers
from fedlas.calibrators.base import fit_with_notes
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.card import FORMAT
from fedlas.deploy.card_limits import known_limits
from fedlas.metrics import evaluate, reliability_bins
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats.estimates import Estimate
from fedlas.stats.gap_sums import GapSums
from fedlas.stats.rows import Floats
from fedlas.stats.selective_risk import DEFAULT_RISKS, reject_option

LEVEL = 0.95
CELLS, BINS = 5, 100
"""Cells of confidence in which the gap is followed, and bins of its distribution, for ``fedlas monitor``."""
STAGES = ("as predicted", "calibrated")
METHOD = (
    "Learn then Test (Angelopoulos et al. 2021): fixed-sequence tests with exact binomial p-values over a fixed grid "
    "of thresholds, from ten starts; each row holds with {level:.0%} over the draw of the validation part."
)


Intervals = Callable[[Mapping[str, AnyPredictions], Sequence[str]], Mapping[str, Mapping[str, Estimate]]]
"""From predictions by stage and the names of metrics to interval and floor by stage and name, where there are any."""


def make_card(
    val: AnyPredictions,
    test: AnyPredictions,
    calibration: Calibration,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    num_bins: int = 15,
    risks: Sequence[float] = DEFAULT_RISKS,
    intervals: Intervals | None = None,
    replicates: int = 0,
    exported: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A calibration card, plain values for JSON.

    Args:
        val: Validation predictions, not calibrated. The thresholds are chosen on them.
        test: Test predictions, not calibrated. The numbers are of them.
        calibration: Fitted on ``val``.
        model: What is known of the model, plain values: ``run`` (its name) and, where they are known, ``classes``
            (names) and whatever else is to be recorded.
        data: What is known of its data: ``name`` and, where they are known, ``settings`` and ``samples`` (sizes of
            other parts).
        num_bins: Bins of the calibration errors and of the reliability table.
        risks: Wanted shares of wrong among accepted predictions, each in (0, 1).
        intervals: Computes interval, floor and p-value of the metrics; None leaves them out.
        replicates: Of these, for the record.
        exported: The file that the card lies beside, and how it was checked.

    Raises:
        InputError: If a risk is out of range, or predictions have weights, with which no threshold's bound holds.
    """
    for part in (val, test):
        check_takes_weights("make_card", part, takes_weights=False)
    # The card is about the calibrated model; the raw one stands next to it.
    stages = stages_of(test, calibration)
    val, test = calibration.transform(val), stages[STAGES[1]]
    measured = {stage: evaluate(each, num_bins=num_bins) for stage, each in stages.items()}
    noise = {} if intervals is None else intervals(stages, list(measured[STAGES[1]]))
    num_classes, class_counts, samples_of = 0, None, None
    if isinstance(test, Predictions):
        num_classes = test.num_classes
        class_counts, samples_of = (
            torch.bincount(each.cpu(), minlength=num_classes).tolist() for each in (test.predicted, test.target)
        )
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": {"classes": None, **model, "num_classes": num_classes},
        "calibration": {**calibration.plain(), "fitted on": calibration.fitted_on},
        "data": {**data, "samples": {**data.get("samples", {}), "val": val.num_samples, "test": test.num_samples}},
        "metrics": {stage: _with_estimates(measured[stage], noise.get(stage, {})) for stage in stages},
        "metrics_of": {"part": "test", "num_bins": num_bins, "interval": LEVEL, "replicates": replicates},
        "selective": {
            "method": METHOD.format(level=LEVEL),
            "level": LEVEL,
            "thresholds": [reject_option(val, test, risk=risk, confidence_level=LEVEL).plain() for risk in risks],
        },
        "width": _width(val, test),
        "reliability": _reliability(test, num_bins),
        "reference": _reference(val, test, class_counts),
        **({} if exported is None else {"exported": dict(exported)}),
    }
    return {**content, "limits": known_limits(content, samples_of or [], notes=calibration.notes)}


def stages_of(test: AnyPredictions, calibration: Calibration) -> dict[str, AnyPredictions]:
    """Test predictions of each of :data:`STAGES`: as predicted, and calibrated."""
    return dict(zip(STAGES, (test, calibration.transform(test)), strict=True))


def _with_estimates(measured: Mapping[str, float], noise: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: noise[name].plain() if name in noise else {"value": value} for name, value in measured.items()}


def _arrays(
    predictions: AnyPredictions,
) -> tuple[Floats, NDArray[np.bool_]]:
    return predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()


def _width(val: AnyPredictions, test: AnyPredictions) -> dict[str, Any]:
    """How far the validation samples leave the probability to be right open: Venn-ABERS bounds of test confidences."""
    val, test = (TopLabel(each.confidence, each.correct) for each in (val, test))
    venn_abers, _ = fit_with_notes(VennAbers(), val)
    low, high = venn_abers.interval(test).T
    return {"method": "venn-abers", "mean": float((high - low).mean()), "95 %": float((high - low).quantile(0.95))}


def _reliability(predictions: AnyPredictions, num_bins: int) -> list[dict[str, float]]:
    bins = reliability_bins(predictions, num_bins=num_bins)
    edges, count, confidence, accuracy = (
        v.cpu().double().tolist() for v in (bins.edges, bins.count, bins.confidence, bins.accuracy)
    )
    return [
        {"low": edges[i], "high": edges[i + 1], "samples": n, "confidence": confidence[i], "accuracy": accuracy[i]}
        for i, n in enumerate(count)
        if n > 0
    ]


def _reference(val: AnyPredictions, test: AnyPredictions, class_counts: list[int] | None) -> dict[str, Any]:
    """Sums over the test part for ``fedlas monitor``; cells come from validation, so that they fit no test sample."""
    confidence, correct = _arrays(test)
    cells, bins = (_quantile_edges(_arrays(val)[0], number) for number in (CELLS, BINS))
    counts, _ = np.histogram(confidence, bins)
    return {
        "part": "test",
        "gaps": GapSums.of(cells, confidence, correct).plain(),
        "bin_edges": bins.tolist(),
        "bin_counts": counts.tolist(),
        "class_counts": class_counts,
    }


def _quantile_edges(values: Floats, number: int) -> Floats:
    """From 0 over quantiles to 1, each once."""
    inner = np.unique(np.quantile(values, np.arange(1, number) / number))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])
