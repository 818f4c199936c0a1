"""Estimates of several metrics: the numbers of the single functions, from one set of samples and one of labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, evaluate
from fedlas.metrics import METRICS
from fedlas.metrics.equal_width import EqualWidth
from fedlas.stats import (
    Estimate,
    bootstrap_interval,
    class_estimates,
    draws,
    estimates,
    noise_floor,
)
from fedlas.stats.estimates import is_calibration_error, metric_and_class_estimates
from fedlas.stats.rows import Rows
from fedlas.stats.tables import evaluate_replicates


def sampled(samples=300, classes=4, sharpness=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(sharpness * logits, target)


@pytest.mark.parametrize("sharpness", [1.0, 1.5])
def test_each_is_what_the_single_functions_return(sharpness):
    p = sampled(sharpness=sharpness)
    found = fedlas.estimates(p, replicates=120, num_bins=9, seed=3)
    assert {name: each.value for name, each in found.items()} == evaluate(p, num_bins=9)
    for name, each in found.items():
        options = {"metric": name, "replicates": 120, "num_bins": 9, "seed": 3}
        interval = bootstrap_interval(p, **options)
        high = min(interval.high, 1.0) if METRICS[name].percent else interval.high
        assert (each.low, each.high, each.replicates) == (interval.low, high, options["replicates"])
        if is_calibration_error(name):
            floor = noise_floor(p, **options)
            assert (each.floor, each.p, each.least_p) == (floor.mean, floor.p_value, floor.least_p)
        else:
            assert (each.floor, each.p, each.least_p) == (None, None, None)


def test_samples_and_labels_are_drawn_once_for_all(monkeypatch):
    purposes = []
    real = draws._iter_uniforms

    def counted(purpose, rows, replicates, seed):
        purposes.append((purpose, replicates))
        return real(purpose, rows, replicates, seed)

    monkeypatch.setattr(draws, "_iter_uniforms", counted)
    names = [
        entry.name for entry in METRICS.entries() if not entry.needs and entry.subject != "event"
    ]
    table, classes = metric_and_class_estimates(
        sampled(), names, num_bins=15, replicates=100, by_class=True
    )
    assert sorted(purposes) == [
        (draws.DrawPurpose.BOOTSTRAP, 100),
        (draws.DrawPurpose.NOISE_FLOOR, 100),
    ]
    assert list(table) == names
    assert classes == class_estimates(sampled(), replicates=100)


def test_progress_sums_to_one(monkeypatch):
    monkeypatch.setattr(draws, "BLOCK_ELEMENTS", 3000)
    done = []
    metric_and_class_estimates(
        sampled(), ["ece", "smooth_ece"], num_bins=15, replicates=120, advance=done.append
    )
    assert len(done) > 10
    assert sum(done) == pytest.approx(1.0)


DRAWN_BY_ROW = ["auroc", "average_precision"]
"""Metrics that no group has: their replicates are the same rows, however many there are."""


def test_group_replicates_vary_like_row_replicates(monkeypatch):
    """Ends, floors and p-values agree with those of rows drawn one by one, up to the chance of 1,000 replicates."""
    p = sampled(2000, 3, 1.5)
    names = [
        e.name
        for e in METRICS.entries()
        if not (e.needs or e.subject == "event" or e.name in ("ace", "top5", *DRAWN_BY_ROW))
    ]
    rows, rows_by_class = metric_and_class_estimates(p, names, num_bins=15, by_class=True)
    row_by_row = estimates(p, DRAWN_BY_ROW, replicates=39)
    monkeypatch.setattr("fedlas.stats.rows.MANY_SAMPLES", 1000)
    assert estimates(p, DRAWN_BY_ROW, replicates=39) == row_by_row
    groups, groups_by_class = metric_and_class_estimates(p, names, num_bins=15, by_class=True)
    for name, expected in (*rows.items(), *rows_by_class.items()):
        each = groups[name] if isinstance(name, str) else groups_by_class[name]
        width = expected.high - expected.low
        assert each.value == expected.value, name
        assert (each.low, each.high) == pytest.approx(
            (expected.low, expected.high), abs=0.15 * width
        ), name
        if expected.floor is not None:
            assert each.floor == pytest.approx(expected.floor, rel=0.1, abs=0.001), name
            assert each.p == pytest.approx(expected.p, abs=0.1), name
    assert groups["ece"] != rows["ece"]


def test_groups_vary_as_known_label_probabilities_do(monkeypatch):
    """Probabilities of rows with one confidence differ, which a group's mean does not show."""
    p = sampled(20_000, 2, 1.0)
    random = torch.Generator().manual_seed(0)
    known = (p.tensors().probs[:, 1] + torch.rand(20_000, generator=random).sub(0.5)).clamp(
        0.01, 0.99
    )
    p = replace(p, label_probs=torch.stack([1 - known, known], dim=1))
    widths = []
    for limit in (10**6, 1000):
        monkeypatch.setattr("fedlas.stats.rows.MANY_SAMPLES", limit)
        monkeypatch.setattr("fedlas.stats.rows.MANY_PROBS", 10**9)
        each = estimates(p, ["true_ece"], replicates=500)["true_ece"]
        widths.append(each.high - each.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_groups_draw_the_same_whatever_the_block(monkeypatch):
    monkeypatch.setattr("fedlas.stats.rows.MANY_SAMPLES", 100)
    p = sampled()
    whole = estimates(p, replicates=60)
    assert estimates(p, replicates=60) == whole
    assert estimates(p, replicates=60, seed=1) != whole
    monkeypatch.setattr(draws, "BLOCK_ELEMENTS", 3000)
    for name, each in estimates(p, replicates=60).items():
        assert (each.low, each.high) == pytest.approx(
            (whole[name].low, whole[name].high), rel=1e-9, abs=1e-12
        ), name


def test_results_convert_to_html_and_data_frame():
    results = estimates(sampled(), ["accuracy", "ece"], replicates=39)
    html = results._repr_html_()
    assert html.count("<tr>") == 3
    assert f"<td>{results['ece'].value:.4g}</td>" in html
    frame = results.to_frame()
    assert list(frame.index) == ["accuracy", "ece"]
    assert frame.loc["ece", "floor"] == results["ece"].floor


def test_as_json_and_back():
    found = estimates(sampled(), ["accuracy", "ece"], replicates=39)
    assert set(found["accuracy"].to_dict()) == {
        "value",
        "low",
        "high",
        "replicates",
        "confidence_level",
    }
    assert set(found["ece"].to_dict()) == {
        "value", "low", "high", "floor", "p", "least_p", "replicates", "confidence_level", "test",
    }  # fmt: skip
    for each in found.values():
        assert Estimate.from_dict(each.to_dict()) == each
    for wrong in (
        {},
        {**found["ece"].to_dict(), "low": None},
        {**found["ece"].to_dict(), "p": "<b>"},
    ):
        with pytest.raises(ValueError, match=r"(value|low|p) must be"):
            Estimate.from_dict(wrong)


def test_formula_without_replicate_axis_is_called_per_replicate(changeable):
    changeable(METRICS)

    @METRICS.register("largest", statistic=EqualWidth, formula=lambda bins: bins.gaps.max())
    def largest(predictions, *, num_bins=15):
        """Largest sum of gaps."""
        return float(EqualWidth.from_predictions(predictions, num_bins).table().gaps.max())

    block = next(draws.iter_bootstrap(Rows(sampled(), 15), replicates=5, seed=0))
    one_by_one = [largest(p) for p in block.predictions()]
    np.testing.assert_allclose(
        evaluate_replicates(METRICS["largest"], block), one_by_one, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"replicates": 20}, "estimates: replicates must be at least 39"),
        ({"metrics": ["nonsense"]}, "nonsense"),
        ({"num_bins": 0}, "num_bins"),
        ({"confidence_level": 1.0}, "confidence_level"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises((ValueError, KeyError), match=match):
        estimates(sampled(20), **{"replicates": 39, **options})
    with pytest.raises(ValueError, match="at least 2 samples"):
        estimates(Predictions([[0.0, 1.0]], [0]))
