"""The share of chance in classwise calibration errors, by hand and where cells hold few samples."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS
from fedlas.metrics.classwise import ClassTable, class_errors, mean_class_error
from fedlas.metrics.decomposition import calibration_part
from fedlas.stats import bootstrap_intervals, estimates
from fedlas.stats import cell_bias as module
from fedlas.stats.cell_bias import (
    bias_bounds,
    class_bias_upper_bounds,
    metric_bias_bounds,
    shrink_label_counts,
)
from fedlas.stats.rows import ClassCellSums, Rows

SHARPNESS = 1.5


def draw(samples, classes, seed, sharpness=SHARPNESS):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    probs = logits.softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return Predictions((sharpness * logits).float(), target, label_probs=probs)


def truth(classes):
    """Both errors without the chance of labels; all classes are alike, so that they can share their bins."""
    p = draw(2_000_000 // classes, classes, seed=10**6).tensors()
    probs, known = p.probs.double().flatten(), p.label_probs.flatten()
    cell = (probs * 15).ceil().long().clamp(1, 15) - 1
    gaps, count = (
        torch.zeros(15, dtype=torch.float64).index_add_(0, cell, v)
        for v in (probs - known, probs * 0 + 1)
    )
    classwise, brier = (
        gaps.abs().sum() / len(probs),
        (gaps**2 / count.clamp(min=1)).sum() / p.num_samples,
    )
    return {"classwise_ece": float(classwise), "brier_calibration": float(brier)}


@pytest.mark.system
def test_intervals_cover_truth_with_sparse_cells():
    """Without what cells tell: 18 of 100 for Brier calibration, and all of the others lie above the truth."""
    true = truth(classes=100)
    held = dict.fromkeys(true, 0)
    for seed in range(30):
        found = bootstrap_intervals(
            draw(1000, 100, seed), metrics=list(held), replicates=79, seed=seed
        )
        for name, interval in found.items():
            held[name] += interval.low <= true[name] <= interval.high
    assert min(held.values()) >= 26, held  # binomial(30, 0.95): mean 28.5, sd 1.2


@pytest.mark.parametrize("metric", ["classwise_ece", "brier_calibration", "ace"])
def test_bias_of_calibrated_model_is_mean_metric(metric, monkeypatch):
    """Labels drawn sample by sample, and the metric's own function of each set, against binomial numbers of cells."""
    monkeypatch.setattr(
        module,
        "shrink_label_counts",
        lambda table, **_: table.probs.reshape(table.num_classes, -1),
    )
    p = draw(400, 6, seed=1, sharpness=1.0)
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(p.tensors().probs, 300, replacement=True, generator=generator).T
    expected = np.mean(
        [METRICS[metric].value(Predictions(p.tensors().logits, each)) for each in labels]
    )
    assert metric_bias_bounds(METRICS[metric], Rows(p, 15))[1] == pytest.approx(expected, rel=0.05)


def test_of_cells_of_one_sample_by_hand():
    """A thousand classes of one cell with p = 0.8 of which 0.6 come true: |0.8 - y| is 0.44, the gap 0.2."""
    count, probs = np.ones(1000), np.full(1000, 0.8)
    labels = (np.arange(1000) % 10 < 6).astype(float)
    table = ClassTable(probs, labels, lambda: count, 1, 1000)
    # The ratio of 0.75 has a standard error of sqrt(0.24 / 1000) / 0.8 = 0.019.
    error = (0.24 / 1000) ** 0.5
    assert shrink_label_counts(table).ravel() == pytest.approx(0.6)
    assert shrink_label_counts(table, max_shift=1.0).ravel() == pytest.approx(0.6 + error)
    # Chance adds 0.4 times the share of labels, which may be two of its standard errors higher.
    assert bias_bounds(table, mean_class_error)[1] == pytest.approx(
        0.4 * (0.6 + 2 * error), rel=0.02
    )
    # The variance falls from 0.6 upwards, so that nothing is added.
    assert bias_bounds(table, calibration_part)[1] == pytest.approx(1000 * 0.6 * 0.4, rel=0.02)
    by_class = bias_bounds(table, class_errors)[1]
    assert by_class.shape == (1000,)
    assert by_class.mean() == pytest.approx(0.24, rel=0.08)


def test_shrinkage_keeps_labels_of_large_cells_only():
    apart = np.array([0.2, 0.4] * 50)  # in cells that the bin's common ratio fits on average
    for samples, kept in ((10_000.0, 0.99), (1.0, 0.0)):
        count = np.full(100, samples)
        labels = np.round(apart * count) if samples > 1 else (np.arange(100) % 10 < 3).astype(float)
        table = ClassTable(0.3 * count, labels, lambda count=count: count, int(samples), 100)
        share = shrink_label_counts(table).ravel() / count
        if kept:
            assert share == pytest.approx(apart, abs=0.01)
        else:
            assert np.ptp(share) == 0.0


def test_errors_of_bins_add_in_quadrature():
    """Two bins as in the case above, twice the chance and the square root of two times its standard error."""
    count, probs = np.ones(2000), np.full(2000, 0.8)
    labels = np.repeat((np.arange(1000) % 10 < 6).astype(float), 2)
    table = ClassTable(probs, labels, lambda: count, 1, 1000)
    expected = 2 * 0.4 * 0.6 + 2 * 2**0.5 * 0.4 * (0.24 / 1000) ** 0.5
    assert bias_bounds(table, mean_class_error)[1] == pytest.approx(expected, rel=0.02)


def test_ace_interval_covers_truth_with_many_classes():
    """1,000 classes and 500 samples: the lower end was above the truth in 9 of 52 sets."""
    table = Rows(draw(500, 1000, seed=5), 15).table(module._equal_mass_table)
    bias = float(bias_bounds(table, mean_class_error)[1])
    # the truth, from 2e7 probabilities without labels
    assert float(mean_class_error(table)) - bias < 0.000465


def test_bias_is_zero_without_cells_or_label_noise():
    p = draw(200, 4, seed=0)
    assert [
        metric_bias_bounds(METRICS[name], Rows(p, 15)) for name in ("ece", "accuracy", "smooth_ece")
    ] == [(0.0, 0.0)] * 3
    sure = Predictions(1e6 * torch.eye(3)[torch.arange(60) % 3], torch.arange(60) % 3)
    for name in ("classwise_ece", "brier_calibration", "ace"):
        assert metric_bias_bounds(METRICS[name], Rows(sure, 15)) == (0.0, 0.0)
    assert class_bias_upper_bounds(Rows(sure, 15), class_errors).tolist() == [0.0] * 3


def test_estimates_take_it_off_the_lower_end():
    p = draw(500, 100, seed=3)
    interval = bootstrap_intervals(p, metrics=["brier_calibration"], replicates=79)[
        "brier_calibration"
    ]
    estimate = estimates(p, ["brier_calibration"], replicates=79)["brier_calibration"]
    assert (estimate.low, estimate.high) == (interval.low, interval.high)
    bias = metric_bias_bounds(METRICS["brier_calibration"], Rows(p, 15))[1]
    assert interval.low <= max(0.0, interval.value - bias)


def test_brier_calibration_upper_end_subtracts_lower_bias_bound():
    """Squares of gaps have their variance added whatever the truth is: 0.037 here, of a value of 0.19."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 300, generator=generator, dtype=torch.float64)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    p = Predictions(1.5 * logits, target)
    least, most = metric_bias_bounds(METRICS["brier_calibration"], Rows(p, 15))
    assert 0 < least < most
    interval = bootstrap_intervals(p, metrics=["brier_calibration"], replicates=99)[
        "brier_calibration"
    ]
    assert interval.low < 0.05 < interval.high < interval.value
    assert metric_bias_bounds(METRICS["classwise_ece"], Rows(p, 15))[0] == 0.0


def test_no_interval_ends_below_zero():
    logits = 30 * torch.randn(5, 3, generator=torch.Generator().manual_seed(15))
    p = Predictions(logits, logits.argmax(1))
    name = "brier_calibration"
    interval = bootstrap_intervals(p, metrics=[name], replicates=99)[name]
    assert 0 <= interval.low <= interval.high


@pytest.mark.parametrize("metric", ["ece", "classwise_ece", "brier_calibration"])
def test_with_weights_a_bin_without_rows_counts_nothing(metric):
    """Sums of weights that average 1 left -9e-14 samples in the first bin of both classes."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        log_odds = torch.from_numpy(random.normal(size=1000).clip(-2.0, 2.0))
        logits = torch.stack([torch.zeros_like(log_odds), log_odds], dim=1)
        weights = torch.from_numpy(random.integers(1, 5, 1000).astype(float))
        p = Predictions(logits, (log_odds > 0).long(), weights=weights)
        counts = ClassCellSums(Rows(p, 15)).counts(np.ones((1, 1000))).reshape(2, 15)
        assert (counts[:, 0] == 0.0).all()
        assert estimates(p, [metric], replicates=39)[metric].low >= 0.0
