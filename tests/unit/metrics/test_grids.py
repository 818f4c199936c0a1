"""Samples by confidence, alone or in cells of a fine grid: runs of ties, bins of equal mass, the size of a state."""

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.metrics import METRICS, StreamingMetrics, ace, classwise_adaptive
from fedlas.metrics.calibration_error import equal_mass_bins
from fedlas.metrics.grids import (
    NUM_CELLS,
    WIDTH_BITS,
    ClassGrid,
    FineGrid,
    confidence_cell_index,
    num_cells,
    octave_bits,
    probability_cell_index,
    softmax_float64,
)
from fedlas.metrics.ranking import SampleRuns, equal_mass_cuts, sum_between_cuts, tie_starts


def filled(confidence, correct):
    return FineGrid.from_predictions(TopLabel(confidence, correct)).table()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_ascend_with_confidence_and_are_all_reached(dtype):
    even = torch.arange(2**WIDTH_BITS + 1, dtype=torch.float64) / 2**WIDTH_BITS
    crowd = 1 - 2.0 ** -torch.linspace(7, 24, 200_001, dtype=torch.float64)
    values = (
        torch.cat((even, crowd, torch.rand(100_000, dtype=torch.float64))).to(dtype).sort().values
    )
    cells = confidence_cell_index(values)
    assert (cells.diff() >= 0).all()
    assert int(cells[0]) == 0
    assert int(cells[-1]) == NUM_CELLS - 1
    if dtype is torch.float64:  # float32 has fewer numbers next to 1 than there are cells
        assert len(cells.unique()) == NUM_CELLS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_are_narrow_and_within_one_step(dtype):
    values = (
        torch.cat((torch.rand(300_000), 1 - torch.rand(300_000) ** 8 * 2**-6))
        .to(dtype)
        .sort()
        .values
    )
    cells = confidence_cell_index(values)
    first = torch.searchsorted(cells, torch.arange(NUM_CELLS))
    last = torch.searchsorted(cells, torch.arange(NUM_CELLS), right=True) - 1
    held = last >= first
    low, high = values[first[held]].double(), values[last[held]].double()
    assert (high - low).max() < 2.0**-WIDTH_BITS
    crowded = (1 - high) >= 2.0**-23
    assert ((high - low) / (1 - low))[crowded & (low > 1 - 2**-7)].max() < 2.0**-6
    step = 2.0**WIDTH_BITS
    assert ((high * step).ceil() - (low * step).floor() <= 1).all()


def test_single_floats_are_told_apart_next_to_one():
    below = 1 - torch.arange(129, dtype=torch.float64) * 2.0**-24
    assert len(confidence_cell_index(below.float()).unique()) == 129


def test_cells_hold_the_samples():
    torch.manual_seed(0)
    confidence, correct = torch.rand(3000).clamp(min=0.1), torch.rand(3000) > 0.4
    runs = filled(confidence, correct)
    assert runs.num_samples == 3000
    assert float(runs.right.sum()) == int(correct.sum())
    assert float(runs.right_confidence.sum()) == pytest.approx(
        float(confidence[correct].double().sum()), rel=1e-12
    )
    assert float(runs.wrong_confidence.sum()) == pytest.approx(
        float(confidence[~correct].double().sum()), rel=1e-12
    )
    assert float(runs.gaps.sum()) == pytest.approx(
        float((confidence.double() - correct.double()).sum()), rel=1e-12
    )
    position = (runs.right_confidence + runs.wrong_confidence) / runs.count
    assert (np.diff(position) >= 0).all()


def test_grid_runs_equal_sample_runs_for_distinct_cells():
    values = torch.tensor([0.25, 0.5, 0.75, 0.875])
    confidence, correct = values[torch.randint(4, (200,))], torch.rand(200) > 0.5
    coarse = filled(confidence, correct)
    fine = SampleRuns(confidence.numpy(), correct.numpy(), None, 15)
    for name in ("count", "wrong", "gaps"):
        assert np.array_equal(getattr(coarse, name), getattr(fine, name)), name


@pytest.mark.parametrize("bits", [5, 7, 10])
def test_cells_ascend_with_the_probability_and_are_narrow(bits):
    small = 2.0 ** -torch.linspace(1, 30, 300_001, dtype=torch.float64)
    values = torch.cat(
        (small, 1 - small, torch.rand(100_000, dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0]))
    )
    values = values.sort().values
    cells = probability_cell_index(values, bits=bits)
    assert (cells.diff() >= 0).all()
    assert int(cells[0]) == 0
    assert int(cells[-1]) == num_cells(bits) - 1
    told_apart = (values > 2.0**-24) & (values < 1 - 2.0**-20)
    for cell, inside in (
        (c, values[told_apart & (cells == c)]) for c in cells.unique()[:: 97 if bits > 5 else 7]
    ):
        if len(inside):
            low, high = float(inside[0]), float(inside[-1])
            assert high - low <= 2.0**-bits * min(high, 1 - low) + 2.0**-23, cell


def test_float32_and_float64_agree_on_order():
    """A float64 is rounded first, which keeps the order: no cell holds what lies on both sides of another."""
    values = (0.5 + 2.0**-26 * torch.arange(-300, 300, dtype=torch.float64)).sort().values
    assert (probability_cell_index(values, bits=10).diff() >= 0).all()


@pytest.mark.parametrize("classes", [1, 2, 10, 127, 511])
def test_size_is_as_stated(classes):
    state = StreamingMetrics(classes, metrics=["ace"]).state_dict()
    assert sum(t.numel() * t.element_size() for t in state.values()) <= 35 * 2**20
    assert 48 * num_cells(octave_bits(2000)) < 72_000


def test_rankings_hold_the_samples():
    torch.manual_seed(0)
    logits = 2 * torch.randn(400, 4)
    p = Predictions(logits, torch.randint(4, (400,)))
    for label, found in enumerate(ClassGrid.from_predictions(p).table()):
        probs, own = softmax_float64(logits)[:, label], p.tensors().target == label
        assert found.num_samples == 400
        assert float(found.right.sum()) == int(own.sum())
        assert float(found.right_confidence.sum()) == pytest.approx(
            float(probs[own].sum()), abs=1e-7
        )
        assert float(found.wrong_confidence.sum()) == pytest.approx(
            float(probs[~own].sum()), abs=1e-7
        )
        position = (found.right_confidence + found.wrong_confidence) / found.count
        assert (np.diff(position) > 0).all()
        assert found.num_samples == SampleRuns(probs.numpy(), own.numpy(), None, 15).num_samples


def test_grid_metric_is_exact_for_constant_cells():
    """Eight kinds of rows; the bins of both are cut between the same ones."""
    torch.manual_seed(1)
    kinds = 2 * torch.randn(8, 5)
    p = Predictions(kinds[torch.randint(8, (300,))], torch.randint(5, (300,)))
    streaming = StreamingMetrics(5, metrics=["ace"])
    for rows in torch.arange(300).split(70):
        streaming.update(p.tensors().logits[rows], p.tensors().target[rows])
    assert streaming.compute()["ace"] == pytest.approx(ace(p), rel=1e-9)


def test_columns_and_rows_give_the_same_probabilities(monkeypatch):
    monkeypatch.setattr(classwise_adaptive, "_ELEMENTS", 130)
    p = Predictions(
        torch.tensor([1e4, 0, 1]) + torch.randn(50, 3), torch.zeros(50, dtype=torch.long)
    )
    np.testing.assert_allclose(
        np.stack(list(classwise_adaptive._iter_class_probs(p)), axis=1),
        softmax_float64(p.tensors().logits),
        rtol=1e-12,
    )


def test_runs_by_hand():
    correct = np.array([True, False, False, True])
    runs = SampleRuns(np.array([0.5, 0.9, 0.5, 0.75], np.float32), correct, None, 15)
    assert runs.wrong.tolist() == [1, 0, 1]
    assert runs.count.tolist() == [2, 1, 1]
    assert runs.gaps.tolist() == pytest.approx([0.0, -0.25, 0.9])


@pytest.mark.parametrize("num_bins", [1, 2, 7, 15, 60])
@pytest.mark.parametrize("values", [3, 10, 10_000])
def test_equal_mass_bins_match_edges(num_bins, values):
    """The same cuts, found once among runs and once among single confidences."""
    torch.manual_seed(values)
    for samples in (1, 5, 44, 300):
        confidence = (torch.randint(1, values + 1, (samples,)).float() / values).numpy()
        correct = torch.rand(samples).numpy() < confidence
        _, table = equal_mass_bins(confidence, correct, num_bins)
        runs = SampleRuns(confidence, correct, None, num_bins)
        gaps, expected = sum_between_cuts(equal_mass_cuts(runs), runs.gaps), table.gaps
        np.testing.assert_allclose(gaps[gaps != 0], expected[expected != 0], rtol=1e-9, atol=1e-9)
        assert np.abs(gaps).sum() == pytest.approx(np.abs(expected).sum(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_confidences_that_differ_by_rounding_are_equal(dtype):
    eps = torch.finfo(dtype).eps
    values = torch.tensor([0.5, 0.5 + eps, 0.6, 0.6 + 2 * eps, 0.7], dtype=dtype).numpy()
    assert tie_starts(values).tolist() == [0, 2, 4]
    crowded = (0.5 + 3 * eps * torch.arange(6, dtype=dtype)).repeat_interleave(2).numpy()
    assert tie_starts(crowded).tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_order_does_not_change_integer_logit_metrics(dtype):
    """A softmax adds in the order of the classes, so equal confidences differ in their last bits: 48 of 100 AURCs."""
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        logits = torch.randint(-4, 5, (200, 7), generator=random).to(dtype)
        target, order = (
            torch.randint(7, (200,), generator=random),
            torch.randperm(7, generator=random),
        )
        # of equal logits the first class is predicted
        unique = (logits == logits.amax(1, keepdim=True)).sum(1) == 1
        p, turned = (
            Predictions(logits, target),
            Predictions(logits[:, order], order.argsort()[target]),
        )
        p, turned = (each.rows(unique) for each in (p, turned))
        for name in ("aurc", "ks", "adaptive_ece", "ace", "ece"):
            assert METRICS[name].value(p) == pytest.approx(METRICS[name].value(turned), abs=1e-6), (
                name
            )
