"""Every metric that the top label decides gives the same of it; all others say what they lack."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, TopLabel
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics
from fedlas.metrics.metric import lacks_inputs
from fedlas.stats import (
    bootstrap_interval,
    bootstrap_intervals,
    class_estimates,
    estimates,
    noise_floor,
)

NEEDS_ALL = r"needs the probabilities of all classes; got a TopLabel.*Pass Predictions"
ONE = TopLabel([0.5], [True])
ENOUGH = [entry.name for entry in METRICS.entries() if not lacks_inputs(entry, ONE)]
OTHERS = [entry.name for entry in METRICS.entries() if lacks_inputs(entry, ONE)]


def predictions(samples=300, classes=5, dtype=torch.float32, seed=0):
    """Coarse logits, so that there are ties between classes and between confidences."""
    generator = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(samples, classes, generator=generator, dtype=torch.float64) * 4
    ).round() / 2
    target = torch.multinomial((logits / 1.5).softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits.to(dtype), target)


def top(p):
    return TopLabel(p.tensors().confidence, p.tensors().correct, p.tensors().weights)


def test_which_are_enough():
    assert {
        "accuracy",
        "ece",
        "adaptive_ece",
        "mce",
        "smooth_ece",
        "rmsce",
        "ks",
        "debiased_ece2",
        "aurc",
    } < {*ENOUGH}
    assert {"nll", "brier", "classwise_ece", "ace", "true_ece", "top5"} <= {*OTHERS}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_are_equal(dtype):
    p = predictions(dtype=dtype)
    entries = [METRICS[name] for name in ENOUGH]
    for num_bins in (1, 15, 400):
        assert compute_metrics(top(p), entries, num_bins) == compute_metrics(
            p, entries, num_bins
        ), num_bins
    assert {entry.name: entry.value(top(p)) for entry in entries} == {
        entry.name: entry.value(p) for entry in entries
    }


@pytest.mark.parametrize("samples", [2, 60, 3000])
def test_intervals_and_floors_are_equal(samples):
    p = predictions(samples)
    options = {"replicates": 60, "seed": 3, "num_bins": 7}
    assert estimates(top(p), ENOUGH, **options) == estimates(p, ENOUGH, **options)
    assert bootstrap_intervals(top(p), metrics=ENOUGH, **options) == bootstrap_intervals(
        p, metrics=ENOUGH, **options
    )


def test_weighted_samples_are_equal():
    p = replace(predictions(), weights=torch.arange(300) % 4)  # some are 0
    options = {"replicates": 60, "seed": 3, "num_bins": 7}
    assert estimates(top(p), ENOUGH, **options) == estimates(p, ENOUGH, **options)
    assert fedlas.evaluate(top(p)) != fedlas.evaluate(top(replace(p, weights=None)))
    other = replace(predictions(seed=1), target=p.tensors().target, weights=p.tensors().weights)
    assert fedlas.compare(top(p), top(other), replicates=60) == fedlas.compare(
        p, other, ["accuracy", "ece"], replicates=60
    )
    with pytest.raises(ValueError, match="the same weights"):
        fedlas.compare(top(p), TopLabel(other.tensors().confidence, other.tensors().correct))


@pytest.mark.parametrize("name", ENOUGH)
def test_the_noise_floor_is_equal(name):
    p = predictions(200)
    options = {"metric": name, "replicates": 60, "seed": 1}
    assert noise_floor(top(p), **options) == noise_floor(p, **options)


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_say_what_they_lack(name):
    t = top(predictions())
    calls = [
        lambda: METRICS[name].value(t),
        lambda: estimates(t, [name], replicates=60),
        lambda: bootstrap_interval(t, metric=name, replicates=60),
        lambda: noise_floor(t, metric=name, replicates=60),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=NEEDS_ALL):
            call()


def test_evaluate_gives_what_can_be_had():
    p = predictions()
    whole, part = fedlas.evaluate(p), fedlas.evaluate(top(p))
    assert part == {name: whole[name] for name in whole if name in ENOUGH}
    assert list(fedlas.estimates(top(p), replicates=60)) == list(part)
    with pytest.raises(ValueError, match=r"class_estimates: .*probabilities of all"):
        class_estimates(top(p), replicates=60)


def test_a_metric_of_somebody_can_say_that_the_top_label_is_enough(changeable):
    def mean(predictions):
        return float(predictions.tensors().confidence.double().mean())

    settings = {
        "title": "Mean",
        "higher_is_better": None,
        "percent": True,
        "paper": "none",
        "default": False,
    }
    changeable(METRICS).register("somebodys", top_label=True, **settings)(mean)
    t = top(predictions(50))
    found = estimates(t, ["somebodys"], replicates=60)["somebodys"]
    assert found.low <= found.value == mean(t) <= found.high
    assert found.floor == pytest.approx(found.value)


def test_diagrams_and_groups_are_equal():
    from fedlas.metrics import calibration_by_group, reliability_bins
    from fedlas.plots import consistency_band, risk_coverage

    p = predictions()
    group = np.arange(300) % 3
    assert calibration_by_group(top(p), group) == calibration_by_group(p, group)
    for scheme in ("equal-width", "equal-mass"):
        one, other = (reliability_bins(each, scheme=scheme) for each in (top(p), p))
        assert all(
            np.array_equal(*pair) for pair in ((one.count, other.count), (one.edges, other.edges))
        )
    assert np.array_equal(consistency_band(top(p)).low, consistency_band(p).low, equal_nan=True)
    assert all(
        np.array_equal(*pair) for pair in zip(risk_coverage(top(p)), risk_coverage(p), strict=True)
    )
