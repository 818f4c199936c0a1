"""Paragraphs for a paper that report a validation as TRIPOD+AI asks."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.text import join_words
from fedlas.binary.positive import drop_zero_weights
from fedlas.predictions.any_predictions import AnyPredictions, require_predictions
from fedlas.predictions.event import event_index
from fedlas.present.metric_tables import left_out_text
from fedlas.resample.clusters import is_clustered

if TYPE_CHECKING:
    from fedlas.predictions import Predictions
    from fedlas.stats.estimates import Estimate

_MEASURE_SENTENCES = {
    "observed_to_expected": "the ratio of observed to expected events was {}",
    "slope": "the calibration slope was {}",
    "intercept": "the calibration intercept was {}",
    "in_the_large": "calibration-in-the-large was {}",
    "auroc": "the C statistic was {}",
}
_PLACES = {"observed_to_expected": 2, "slope": 2, "intercept": 2, "in_the_large": 2, "auroc": 3}
_METHODS_SENTENCE = (
    "Confidence intervals were calculated by Wald's method (slope and intercept), with White's robust variance "
    "(calibration-in-the-large), on the logarithmic scale (ratio of observed to expected events) and by DeLong's "
    "method on the logit scale (C statistic)."
)
_ROBUST_SENTENCE = (
    "Confidence intervals were calculated from the variance of sums over {}, those of the ratio of observed to "
    "expected events on the logarithmic scale and those of the C statistic on the logit scale."
)
_CLUSTERS = "clusters, with Student's t distribution and the effective number of clusters"
_SINGLE_CLUSTER_SENTENCE = (
    "All samples were of one cluster; confidence intervals were not calculated."
)


def tripod_paragraphs(
    stages: Mapping[str, tuple[AnyPredictions, Mapping[str, Estimate]]], event: str
) -> str:
    """Return a paragraph per stage; all but the first begin with the stage's name.

    Args:
        stages: Predictions and measures of the event, by stage.
        event: Its name.

    Raises:
        InputError: Without a stage: no event is the subject.
    """
    if not stages:
        fix = "Evaluate predictions of two classes, without top_label=True."
        raise InputError("a TRIPOD+AI paragraph requires an event of two classes", "no event", fix)
    texts = {
        name: tripod_paragraph(require_predictions(each[0]), each[1], event)
        for name, each in stages.items()
    }
    first = next(iter(texts))
    return "\n".join(
        text if name == first else f"{name[:1].upper()}{name[1:]}: {text}"
        for name, text in texts.items()
    )


def with_tripod_title(text: str) -> list[str]:
    """Return the paragraphs as lines under a title."""
    return ["To paste, by TRIPOD+AI:", *text.split("\n")]


def tripod_paragraph(predictions: Predictions, measures: Mapping[str, Estimate], event: str) -> str:
    """Return a paragraph on samples, events, calibration and discrimination, with intervals and their methods.

    Args:
        predictions: The samples of the validation.
        measures: Measures of the event.
        event: Its name.
    """
    is_weighted = predictions.weights is not None
    predictions = drop_zero_weights(predictions)
    events = int((predictions.tensors().target == event_index(predictions)).sum())
    samples = predictions.num_samples
    clusters = predictions.clusters
    of = f" of {len(np.unique(clusters)):,} clusters" if is_clustered(clusters) else ""
    level = 100 * next(iter(measures.values())).confidence_level
    numbers = [
        text.format(_format_with_interval(measures[name], _PLACES[name]))
        for name, text in _MEASURE_SENTENCES.items()
        if name in measures
    ]
    data = (
        f"The model was evaluated on {samples:,} samples{of}, of which {events:,} ({100 * events / samples:.1f}%) had "
        f"the event {event}."
    )
    if not numbers:
        return data
    weights = " Samples were weighted." if is_weighted else ""
    methods = _METHODS_SENTENCE
    if is_weighted or is_clustered(clusters):
        methods = _ROBUST_SENTENCE.format(
            _CLUSTERS if is_clustered(clusters) else "weighted samples"
        )
    if clusters is not None and len(np.unique(clusters)) == 1:
        methods = _SINGLE_CLUSTER_SENTENCE
    intervals = (
        ""
        if methods == _SINGLE_CLUSTER_SENTENCE
        else f"with {level:g}% confidence intervals in parentheses, "
    )
    text = f"{intervals}{join_words(numbers)}"
    left_out = max(each.left_out or 0 for each in measures.values())
    without = (
        f" Calibration slope, intercept and calibration-in-the-large leave out {left_out_text(left_out)}."
        if left_out
        else ""
    )
    return f"{data}{weights} {text[0].upper()}{text[1:]}.{without} {methods}"


def _format_with_interval(estimate: Estimate, places: int) -> str:
    value, low, high = (
        f"{each:.{places}f}" for each in (estimate.value, estimate.low, estimate.high)
    )
    if not isfinite(estimate.low):
        return value
    return f"{value} ({low} to {high})"
