import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics.fine_grid import NUM_CELLS, WIDTH_BITS, FineGrid, cell_of
from fedlas.metrics.ranking import ranking


def filled(confidence, correct):
    grid = FineGrid(Predictions([[0.0]], [0]), 15)
    grid.add(confidence, correct)
    return grid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_ascend_with_confidence_and_are_all_reached(dtype):
    even = torch.arange(2**WIDTH_BITS + 1, dtype=torch.float64) / 2**WIDTH_BITS
    crowd = 1 - 2.0 ** -torch.linspace(7, 24, 200_001, dtype=torch.float64)
    values = torch.cat((even, crowd, torch.rand(100_000, dtype=torch.float64))).to(dtype).sort().values
    cells = cell_of(values)
    assert (cells.diff() >= 0).all()
    assert int(cells[0]) == 0
    assert int(cells[-1]) == NUM_CELLS - 1
    if dtype is torch.float64:  # float32 has fewer numbers next to 1 than there are cells
        assert len(cells.unique()) == NUM_CELLS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_are_narrow_and_within_one_step(dtype):
    values = torch.cat((torch.rand(300_000), 1 - torch.rand(300_000) ** 8 * 2**-6)).to(dtype).sort().values
    cells = cell_of(values)
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
    assert len(cell_of(below.float()).unique()) == 129


def test_ranking_and_masses_hold_the_samples():
    torch.manual_seed(0)
    confidence, correct = torch.rand(3000).clamp(min=0.1), torch.rand(3000) > 0.4
    grid = filled(confidence, correct)
    runs, masses = grid.ranking(), grid.masses()
    assert runs.num_samples == masses.num_samples == 3000
    assert float(runs.right.sum()) == int(correct.sum())
    assert float(runs.right_confidence.sum()) == pytest.approx(float(confidence[correct].double().sum()), rel=1e-12)
    assert float(runs.wrong_confidence.sum()) == pytest.approx(float(confidence[~correct].double().sum()), rel=1e-12)
    assert float(masses.gap.sum()) == pytest.approx(float((confidence.double() - correct.double()).sum()), rel=1e-12)
    assert (masses.position.sort().values.diff() >= 0).all()


def test_where_cells_hold_one_value_each_the_ranking_is_that_of_the_samples():
    values = torch.tensor([0.25, 0.5, 0.75, 0.875])
    confidence, correct = values[torch.randint(4, (200,))], torch.rand(200) > 0.5
    coarse, fine = filled(confidence, correct).ranking(), ranking(confidence, correct)
    for name in ("right", "wrong", "right_confidence", "wrong_confidence"):
        assert np.array_equal(getattr(coarse, name), getattr(fine, name)), name
