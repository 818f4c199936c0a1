"""Replicates of cells add up the rows, or whole clusters, that were drawn."""

import numpy as np
import pytest

from fedlas.binary.cells import assign_cells, make_outcome_cells
from fedlas.binary.positive import Positive
from fedlas.stats.cell_sums import CellResampler


def data_of(*, weighted, clustered, samples=300):
    draw = np.random.default_rng(0)
    log_odds = draw.normal(size=samples).round(1)
    probability = 1 / (1 + np.exp(-log_odds))
    outcome = (draw.random(samples) < probability).astype(float)
    weights = draw.uniform(0.5, 1.5, samples)
    clusters = draw.integers(0, 40, samples)
    return Positive(
        log_odds,
        probability,
        outcome,
        weights / weights.mean() if weighted else None,
        np.unique(clusters, return_inverse=True)[1] if clustered else None,
    )


@pytest.mark.parametrize(("weighted", "clustered"), [(True, False), (False, True), (True, True)])
def test_sums_equal_sums_over_drawn_rows(weighted, clustered):
    data = data_of(weighted=weighted, clustered=clustered)
    cell = assign_cells(data, 2000)
    cells = make_outcome_cells(data, cell)
    counts, positives = CellResampler(cells, 5, 1).draw_bootstrap()
    units = np.arange(300) if data.clusters is None else data.clusters
    drawn = np.random.default_rng(1).integers(units.max() + 1, size=(5, units.max() + 1))
    for row, names in enumerate(drawn):
        times = np.bincount(names, minlength=units.max() + 1)[units] * data.counts
        times = times * 300 / times.sum()
        assert counts[row] == pytest.approx(np.bincount(cell, times))
        assert positives[row] == pytest.approx(np.bincount(cell, times * data.outcome))
    redrawn = CellResampler(cells, 2000, 2).draw_calibrated_outcomes()
    expected = np.bincount(cell, data.counts * data.probability)
    assert redrawn.mean(axis=0) == pytest.approx(expected, abs=0.3)
