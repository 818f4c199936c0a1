import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS
from fedlas.metrics.calibration_error import equal_mass_bins
from fedlas.metrics.ranking import SampleRuns, equal_mass_cuts, starts_of_ties, sums_between


def test_runs_by_hand():
    correct = torch.tensor([True, False, False, True])
    runs = SampleRuns(torch.tensor([0.5, 0.9, 0.5, 0.75]), correct, None, 15)
    assert runs.wrong.tolist() == [1, 0, 1]
    assert runs.count.tolist() == [2, 1, 1]
    assert runs.gaps.tolist() == pytest.approx([0.0, -0.25, 0.9])


@pytest.mark.parametrize("num_bins", [1, 2, 7, 15, 60])
@pytest.mark.parametrize("values", [3, 10, 10_000])
def test_bins_of_equal_mass_are_those_of_the_edges(num_bins, values):
    """The same cuts, found once among runs and once among single confidences."""
    torch.manual_seed(values)
    for samples in (1, 5, 44, 300):
        confidence = torch.randint(1, values + 1, (samples,)).float() / values
        correct = torch.rand(samples) < confidence
        _, table = equal_mass_bins(confidence, correct, num_bins)
        runs = SampleRuns(confidence, correct, None, num_bins)
        gaps, expected = sums_between(equal_mass_cuts(runs), runs.gaps), table.gaps
        np.testing.assert_allclose(gaps[gaps != 0], expected[expected != 0], rtol=1e-9, atol=1e-9)
        assert np.abs(gaps).sum() == pytest.approx(np.abs(expected).sum(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_confidences_that_differ_by_rounding_are_equal(dtype):
    eps = torch.finfo(dtype).eps
    values = torch.tensor([0.5, 0.5 + eps, 0.6, 0.6 + 2 * eps, 0.7], dtype=dtype).numpy()
    assert starts_of_ties(values).tolist() == [0, 2, 4]
    crowded = (0.5 + 3 * eps * torch.arange(6, dtype=dtype)).repeat_interleave(2).numpy()
    assert starts_of_ties(crowded).tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_classes_moves_no_metric_of_whole_logits(dtype):
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
