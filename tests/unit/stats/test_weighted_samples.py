"""Weights of samples in intervals, noise floors and paired comparisons."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.stats import (
    bootstrap_interval,
    bootstrap_intervals,
    class_estimates,
    effective_sample_size,
    estimates,
    noise_floor,
    paired_bootstrap,
)

ENTRIES = [e for e in METRICS.entries() if e.subject != "event"]


def drawn(samples, classes, *, sharpness=1.0, ties=False, zeros=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    logits = logits.round() if ties else logits
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    weights = torch.rand(samples, generator=generator, dtype=torch.float64) ** 2 + 0.01
    if zeros:
        weights[::3] = 0.0
    return Predictions(sharpness * logits, target, label_probs=logits.softmax(1), weights=weights)


def test_only_weight_ratios_matter_and_zero_weights_drop():
    p = drawn(90, 3, sharpness=1.5, zeros=True)
    names = [entry.name for entry in ENTRIES if not entry.needs]
    options = {"metrics": names, "replicates": 99}
    found = estimates(p, **options)
    for other in (replace(p, weights=1e-6 * p.tensors().weights), p.rows(p.tensors().weights > 0)):
        for name, estimate in estimates(other, **options).items():
            plain, expected = estimate.to_dict(), found[name].to_dict()
            assert plain.pop("test", None) == expected.pop("test", None)
            assert plain == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    by_class, scaled = (
        class_estimates(replace(p, weights=c * p.tensors().weights), replicates=99) for c in (1, 3)
    )
    for label, estimate in by_class.items():
        plain, expected = scaled[label].to_dict(), estimate.to_dict()
        assert plain.pop("test", None) == expected.pop("test", None)
        assert plain == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_equal_weights_are_no_weights():
    p = drawn(90, 3, sharpness=1.5)
    names = [entry.name for entry in ENTRIES if entry.name not in ("accuracy", "top5")]
    plain = bootstrap_intervals(replace(p, weights=None), metrics=names, replicates=99)
    equal = bootstrap_intervals(
        replace(p, weights=torch.full((90,), 0.3)), metrics=names, replicates=99
    )
    for name in names:
        numbers, expected = (
            {key: value for key, value in vars(interval[name]).items() if value is not None}
            for interval in (equal, plain)
        )
        assert numbers.pop("method") == expected.pop("method")
        assert numbers == pytest.approx(expected, rel=1e-6, abs=1e-9), name
    floor, other = (
        noise_floor(replace(p, weights=w), replicates=99) for w in (None, torch.full((90,), 0.3))
    )
    assert other.mean == pytest.approx(floor.mean)
    assert other.p_value == floor.p_value


def test_unequal_weights_widen_interval_and_raise_floor():
    p = drawn(2000, 3)
    uneven = replace(p, weights=torch.where(torch.arange(2000) % 10 == 0, 9.0, 1.0))
    assert effective_sample_size(uneven.tensors().weights) == pytest.approx(
        3600**2 / (200 * 81 + 1800)
    )
    for metric in ("nll", "accuracy"):
        wide, narrow = (
            bootstrap_interval(each, metric=metric) for each in (uneven, replace(p, weights=None))
        )
        # The standard error grows by the root of 2000 / 720.
        assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(1.67, abs=0.25)
    assert noise_floor(uneven).mean > 1.2 * noise_floor(replace(p, weights=None)).mean


def test_effective_samples():
    assert effective_sample_size(torch.ones(7)) == pytest.approx(7)
    assert effective_sample_size([2.0, 0.0, 0.0]) == 1.0
    assert effective_sample_size(np.array([1e-200, 1e-200])) == 2.0
    for nonsense in (
        [],
        [0.0, 0.0],
        [1.0, -1.0],
        [[1.0]],
        [1.0, np.nan],
        ["a"],
        None,
        torch.ones(2, dtype=torch.cfloat),
    ):
        with pytest.raises(InputError, match="effective_sample_size: weights must have shape"):
            effective_sample_size(nonsense)


def test_paired_comparison_of_weighted_samples():
    a, b = drawn(300, 3, sharpness=1.5), drawn(300, 3)
    found = paired_bootstrap(a, b, metric="nll", replicates=199)
    nll = [
        torch.nn.functional.cross_entropy(p.tensors().logits, p.tensors().target, reduction="none")
        for p in (a, b)
    ]
    share = a.tensors().weights / a.tensors().weights.sum()
    assert found.difference == pytest.approx(float((share * (nll[0] - nll[1])).sum()))
    # The spread of a weighted mean, linearized.
    error = (share**2 * (nll[0] - nll[1] - found.difference) ** 2).sum().sqrt()
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(float(error), rel=0.2)
    with pytest.raises(InputError, match="the same weights"):
        paired_bootstrap(a, replace(b, weights=None))
    with pytest.raises(InputError, match="the same weights"):
        paired_bootstrap(a, replace(b, weights=b.tensors().weights + 1))


def test_metric_without_weight_support_raises(changeable):
    changeable(METRICS)
    options = {
        "title": "t",
        "higher_is_better": False,
        "percent": False,
        "paper": "none",
        "default": False,
    }
    METRICS.register("ignorant", **options)(
        lambda predictions: float(predictions.tensors().confidence[0])
    )
    p = drawn(20, 3)
    with pytest.raises(InputError, match=r"bootstrap_interval: .*no weights"):
        bootstrap_interval(p, metric="ignorant", replicates=99)
    assert bootstrap_interval(replace(p, weights=None), metric="ignorant", replicates=99).high <= 1


def test_zero_weight_samples_do_not_count():
    with pytest.raises(InputError, match="at least 2 samples"):
        bootstrap_interval(Predictions(torch.zeros(3, 2), [0, 1, 0], weights=[1, 0, 0]))
