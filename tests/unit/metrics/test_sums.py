"""Sums over cells: no order and no split changes more than rounding."""

import numpy as np
import pytest
import torch

from fedlas.metrics.sums import CellSums


@pytest.mark.parametrize("size", [7, 5000])
def test_cells_add_up_in_any_order(size):
    random = np.random.default_rng(0)
    cell = torch.from_numpy(random.integers(0, size, 999))
    terms, weights = torch.from_numpy(random.random((2, 999)))
    whole, parts = CellSums(size, "terms"), CellSums(size, "terms")
    whole.add(cell, weights, weights * terms)
    for rows in torch.from_numpy(random.permutation(999)).split(100):
        parts.add(cell[rows], weights[rows], (weights * terms)[rows])
    expected = [np.bincount(cell, each, size) for each in (weights, weights * terms)]
    for sums in (whole, parts):
        np.testing.assert_allclose(sums.arrays(), expected, rtol=1e-12)
