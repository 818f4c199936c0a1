"""Of two classes ``ece`` and ``brier`` are those of the event, by one number in every function that returns them."""

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel, binary, metrics, stats
from fedlas.calibrators import TemperatureScaling
from fedlas.metrics import METRICS
from fedlas.stats import Estimate

RANDOM = np.random.default_rng(0)
P = RANDOM.beta(1.0, 4.0, 600)
HAPPENED = (RANDOM.random(600) < P / 2).astype(int)
PREDICTIONS = Predictions.from_probs(P, HAPPENED)
THREE = Predictions(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), [0, 1] * 25)


def ece(probability, outcome):
    bins = np.minimum(np.ceil(15 * probability - 1e-9).astype(int), 15)
    gaps = [(probability[bins == b] - outcome[bins == b]).sum() for b in range(1, 16)]
    return np.abs(gaps).sum() / len(probability)


ECE = ece(P, HAPPENED)
BRIER = ((P - HAPPENED) ** 2).mean()
CONFIDENCE = np.maximum(P, 1 - P)
TOP = ece(CONFIDENCE, (P > 0.5) == HAPPENED)


def both_of(values):
    return values["ece"], values["brier"]


def streamed(predictions):
    stream = metrics.StreamingMetrics(2, metrics=["ece", "brier", "top_label_ece"])
    for rows in torch.arange(600).split(100):
        part = predictions.rows(rows)
        stream.update(part.tensors().logits, part.tensors().target)
    return stream.compute()


def before(predictions):
    return fedlas.report(predictions, replicates=0).measured["as predicted"]


WAYS = {
    "evaluate": lambda p: both_of(fedlas.evaluate(p)),
    "functions": lambda p: (metrics.ece(p), metrics.brier(p)),
    "estimates": lambda p: tuple(
        each.value for each in fedlas.estimates(p, ["ece", "brier"], replicates=99).values()
    ),
    "streaming": lambda p: both_of(streamed(p)),
    "bootstrap_interval": lambda p: tuple(
        stats.bootstrap_interval(p, metric=name, replicates=99).value for name in ("ece", "brier")
    ),
    "noise_floor": lambda p: tuple(
        stats.noise_floor(p, metric=name, replicates=99).value for name in ("ece", "brier")
    ),
    "compare": lambda p: tuple(
        fedlas.compare(p, TemperatureScaling().fit(p).transform(p), replicates=99)[name].a
        for name in ("ece", "brier")
    ),
    "report": lambda p: both_of(before(p)),
    "binary": lambda p: (ECE, fedlas.binary.measures(p, replicates=0)["brier"].value),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_one_ece_and_one_brier_score(way):
    assert WAYS[way](PREDICTIONS) == pytest.approx((ECE, BRIER), abs=1e-6)


def test_swapping_the_event_keeps_the_value():
    other = Predictions.from_probs(P, HAPPENED, event=0)
    assert both_of(fedlas.evaluate(other)) == pytest.approx((ECE, BRIER), abs=1e-6)


def test_top_label_ece_is_ece_of_predicted_class():
    assert pytest.approx(ECE, rel=0.05) != TOP
    assert fedlas.evaluate(PREDICTIONS)["top_label_ece"] == pytest.approx(TOP, abs=1e-6)
    assert metrics.top_label_ece(PREDICTIONS) == pytest.approx(TOP, abs=1e-6)
    assert streamed(PREDICTIONS)["top_label_ece"] == pytest.approx(TOP, abs=1e-6)
    top = TopLabel(CONFIDENCE, (P > 0.5) == HAPPENED)
    assert fedlas.evaluate(top)["ece"] == pytest.approx(TOP, abs=1e-6)
    both = fedlas.compare(PREDICTIONS, top, ["ece"], replicates=99)["ece"]
    assert (both.a, both.b) == pytest.approx((TOP, TOP), abs=1e-6)
    told = fedlas.report(PREDICTIONS, top_label=True, replicates=99)
    assert f"{100 * TOP:.2f}" in next(
        line for line in told.text().split("\n") if "Top-label ECE" in line
    )


def test_more_classes_have_one_ece():
    values = fedlas.evaluate(THREE)
    assert "top_label_ece" not in values
    assert values["ece"] == metrics.top_label_ece(THREE)
    assert values["brier"] == pytest.approx(
        float(((THREE.tensors().probs - torch.eye(3)[THREE.tensors().target]) ** 2).sum(1).mean())
    )


def test_brier_parts_sum_to_brier_score():
    parts = metrics.brier_decomposition(PREDICTIONS)
    assert parts.brier == pytest.approx(BRIER)
    bins = fedlas.binary.positive_bins(PREDICTIONS, num_bins=15)
    spread = np.nansum(bins.count * bins.frequency * (1 - bins.frequency)) / 600
    assert metrics.brier_refinement(PREDICTIONS) == pytest.approx(spread, rel=1e-6)
    gaps = np.nansum(bins.count * (bins.frequency - bins.probability) ** 2) / 600
    assert metrics.brier_calibration(PREDICTIONS) == pytest.approx(gaps, rel=1e-5)


@pytest.fixture
def largest_gap(changeable):
    """A measure of an event that is registered here alone."""

    def value(predictions):
        return float((predictions.tensors().probs[:, 1] - predictions.tensors().target).abs().max())

    def estimate(predictions, *, event=None, confidence_level=0.95):
        found = value(predictions)
        return Estimate(found, found / 2, 1.0, confidence_level=confidence_level)

    fields = {"subject": "event", "title": "largest gap", "default": False, "percent": False}
    changeable(METRICS).add("largest_gap", value, estimate=estimate, order=2000, **fields)
    return estimate


def test_registered_measure_is_in_measures_reports_gates_and_cards(largest_gap):
    found = binary.measures(PREDICTIONS, confidence_level=0.9)["largest_gap"]
    assert found == largest_gap(PREDICTIONS, confidence_level=0.9)
    report = fedlas.report(PREDICTIONS, replicates=39)
    assert report.positive["as predicted"]["largest_gap"].value == found.value
    assert "largest gap" in report.text()
    assert report.require("largest_gap<=0.01").status == 3
