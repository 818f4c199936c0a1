import numpy as np
import pytest
import torch

from fedlas.metrics.binning import BinSums, equal_mass_edges
from fedlas.metrics.ranking import equal_mass_gaps, ranking


def test_runs_by_hand():
    runs = ranking(torch.tensor([0.5, 0.9, 0.5, 0.75]), torch.tensor([True, False, False, True]))
    assert runs.right.tolist() == [1, 1, 0]
    assert runs.wrong.tolist() == [1, 0, 1]
    assert runs.count.tolist() == [2, 1, 1]
    assert runs.right_confidence.tolist() == [0.5, 0.75, 0]
    assert runs.gaps.tolist() == pytest.approx([0.0, -0.25, 0.9])


@pytest.mark.parametrize("num_bins", [1, 2, 7, 15, 60])
@pytest.mark.parametrize("values", [3, 10, 10_000])
def test_bins_of_equal_mass_are_those_of_the_edges(num_bins, values):
    """The same cuts, found once among runs and once among single confidences."""
    torch.manual_seed(values)
    for samples in (1, 5, 44, 300):
        confidence = torch.randint(1, values + 1, (samples,)).float() / values
        correct = torch.rand(samples) < confidence
        sums = BinSums(equal_mass_edges(confidence.sort().values, num_bins))
        sums.add(confidence, correct)
        gaps, expected = equal_mass_gaps(ranking(confidence, correct), num_bins), sums.table().gaps
        np.testing.assert_allclose(gaps[gaps != 0], expected[expected != 0], rtol=1e-9, atol=1e-9)
        assert np.abs(gaps).sum() == pytest.approx(np.abs(expected).sum(), abs=1e-9)
