import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import StreamingMetrics, ace, classwise_adaptive_calibration_error
from fedlas.metrics.class_grid import ClassGrid, cell_of, class_probs, num_cells, octave_bits
from fedlas.metrics.ranking import ranking
from fedlas.metrics.scan import scan


@pytest.mark.parametrize("bits", [5, 7, 10])
def test_cells_ascend_with_the_probability_and_are_narrow(bits):
    small = 2.0 ** -torch.linspace(1, 30, 300_001, dtype=torch.float64)
    values = torch.cat((small, 1 - small, torch.rand(100_000, dtype=torch.float64), torch.tensor([0.0, 0.5, 1.0])))
    values = values.sort().values
    cells = cell_of(values, bits=bits)
    assert (cells.diff() >= 0).all()
    assert int(cells[0]) == 0
    assert int(cells[-1]) == num_cells(bits) - 1
    told_apart = (values > 2.0**-24) & (values < 1 - 2.0**-20)
    for cell, inside in ((c, values[told_apart & (cells == c)]) for c in cells.unique()[:: 97 if bits > 5 else 7]):
        if len(inside):
            low, high = float(inside[0]), float(inside[-1])
            assert high - low <= 2.0**-bits * min(high, 1 - low) + 2.0**-23, cell


def test_float32_and_float64_agree_on_order():
    """A float64 is rounded first, which keeps the order: no cell holds what lies on both sides of another."""
    values = (0.5 + 2.0**-26 * torch.arange(-300, 300, dtype=torch.float64)).sort().values
    assert (cell_of(values, bits=10).diff() >= 0).all()


@pytest.mark.parametrize("classes", [1, 2, 10, 127, 511])
def test_size_is_as_stated(classes):
    state = StreamingMetrics(classes, metrics=["ace"]).state_dict()
    assert sum(t.numel() * t.element_size() for t in state.values()) <= 35 * 2**20
    assert 48 * num_cells(octave_bits(2000)) < 72_000


def test_rankings_hold_the_samples():
    torch.manual_seed(0)
    logits = 2 * torch.randn(400, 4)
    p = Predictions(logits, torch.randint(4, (400,)))
    grid = ClassGrid(p, 15)
    scan(p, [grid])
    for label, found in enumerate(grid.rankings()):
        probs, own = class_probs(logits)[:, label], p.target == label
        assert found.num_samples == 400
        assert float(found.right.sum()) == int(own.sum())
        assert float(found.right_confidence.sum()) == pytest.approx(float(probs[own].sum()), abs=1e-7)
        assert float(found.wrong_confidence.sum()) == pytest.approx(float(probs[~own].sum()), abs=1e-7)
        position = (found.right_confidence + found.wrong_confidence) / found.count
        assert (np.diff(position) > 0).all()
        assert found.num_samples == ranking(probs, own).num_samples


def test_equals_the_exact_one_where_a_cell_holds_one_value():
    """Eight kinds of rows; the bins of both are cut between the same ones."""
    torch.manual_seed(1)
    kinds = 2 * torch.randn(8, 5)
    p = Predictions(kinds[torch.randint(8, (300,))], torch.randint(5, (300,)))
    streaming = StreamingMetrics(5, metrics=["ace"])
    for rows in torch.arange(300).split(70):
        streaming.update(p.logits[rows], p.target[rows])
    assert streaming.compute()["ace"] == pytest.approx(classwise_adaptive_calibration_error(p), rel=1e-9)


def test_columns_and_rows_give_the_same_probabilities(monkeypatch):
    monkeypatch.setattr(ace, "_ELEMENTS", 130)
    p = Predictions(torch.tensor([1e4, 0, 1]) + torch.randn(50, 3), torch.zeros(50, dtype=torch.long))
    assert torch.equal(torch.stack(list(ace._columns(p)), dim=1), class_probs(p.logits))
