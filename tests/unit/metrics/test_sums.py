"""Exact sums: no order and no split changes a bit."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fedlas.metrics.row_mean import LIMBS, add_total, exact_total, total_of
from fedlas.metrics.sums import CellSums


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e12, 1e300])
def test_totals_are_exact_for_terms_of_any_size(scale):
    terms = np.random.default_rng(0).normal(0, scale, 501)
    limbs = torch.zeros(LIMBS, dtype=torch.int64)
    for part in np.array_split(terms, [1, 100, 350]):
        add_total(limbs, exact_total(part))
    assert (
        total_of(limbs)
        == exact_total(terms)
        == sum(round(Fraction(term) * 2**52) for term in terms.tolist())
    )


@pytest.mark.parametrize("size", [7, 5000])  # both ways in which cells are added
def test_cells_add_up_in_any_order(size):
    random = np.random.default_rng(0)
    cell, terms = (
        torch.from_numpy(random.integers(0, size, 999)),
        torch.from_numpy(random.random(999)),
    )
    whole, parts, weighted = CellSums(size, False), CellSums(size, False), CellSums(size, True)
    whole.add(cell, terms)
    for rows in torch.from_numpy(random.permutation(999)).split(100):
        parts.add(cell[rows], terms[rows])
    assert torch.equal(whole.values, parts.values)
    expected = torch.zeros(size, dtype=torch.float64).index_add_(0, cell, terms)
    torch.testing.assert_close(whole.floats(), expected, rtol=0, atol=1e-8)
    weighted.add(cell, terms, torch.full((999,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(weighted.floats(), 3 * expected)
