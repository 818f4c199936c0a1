import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.metrics import (
    Bins,
    adaptive_ece,
    ece,
    mce,
    reliability_bins,
)


def two_class(confidences, correct=None):
    """Predictions of class 0 with the given confidences (>= 0.5), labeled 0 where correct."""
    confidences = torch.tensor(confidences, dtype=torch.float64)
    correct = (
        torch.ones(len(confidences), dtype=torch.bool) if correct is None else torch.tensor(correct)
    )
    logits = torch.stack(
        [confidences.logit(), torch.zeros(len(confidences), dtype=torch.float64)], 1
    )
    return Predictions(logits, (~correct).long())


def counts_of(confidence, num_bins, scheme="equal-width"):
    """How many samples of these confidences each bin holds."""
    samples = TopLabel(confidence, torch.zeros(len(confidence), dtype=torch.bool))
    return reliability_bins(samples, num_bins=num_bins, scheme=scheme).count.tolist()


def test_bins_are_open_below_and_closed_above():
    values = torch.tensor([0.0, 0.25, 0.250001, 0.5, 0.75, 0.9, 1.0])
    assert counts_of(values, 4) == [2, 2, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_bins", [1, 2, 3, 7, 10, 15, 20, 100])
def test_edges_belong_to_lower_bin_in_any_precision(dtype, num_bins):
    values = (torch.arange(num_bins + 1, dtype=torch.float64) / num_bins).to(dtype)
    assert counts_of(values, num_bins) == [2] + [1] * (num_bins - 1)


def test_uniform_predictions_fall_into_bin_below_edge():
    bins = reliability_bins(
        Predictions(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)), num_bins=15
    )
    assert np.flatnonzero(bins.count).tolist() == [2]  # 1/5 is the upper edge 3/15


def test_confidence_one_is_in_the_last_bin():
    saturated = Predictions([[200.0, 0.0], [200.0, 0.0]], [0, 1])
    assert saturated.confidence.tolist() == [1.0, 1.0]
    for scheme in ("equal-width", "equal-mass"):
        bins = reliability_bins(saturated, num_bins=10, scheme=scheme)
        assert int(bins.count.sum()) == 2
        assert bins.accuracy[bins.count > 0].tolist() == [0.5]
    assert reliability_bins(saturated, num_bins=10).count[-1] == 2


def test_empty_bins_are_nan_and_add_no_error():
    bins = reliability_bins(two_class([0.9, 0.9], [True, False]), num_bins=15)
    assert isinstance(bins, Bins)
    assert bins.num_bins == 15
    assert np.isnan(bins.confidence).sum() == np.isnan(bins.accuracy).sum() == 14
    assert mce(two_class([0.9, 0.9], [True, False])) == pytest.approx(0.4)


def test_bins_reproduce_both_errors():
    torch.manual_seed(0)
    predictions = Predictions(torch.randn(501, 7) * 2, torch.randint(7, (501,)))
    for scheme, metric in (
        ("equal-width", ece),
        ("equal-mass", adaptive_ece),
    ):
        bins = reliability_bins(predictions, num_bins=11, scheme=scheme)
        gap = np.nansum(bins.count / 501 * np.abs(bins.confidence - bins.accuracy))
        assert float(gap) == pytest.approx(metric(predictions, num_bins=11), rel=1e-12)
        assert bins.edges[0] == 0
        assert bins.edges[-1] == 1
        assert (np.diff(bins.edges) >= 0).all()
        filled = bins.count > 0
        assert (bins.confidence[filled] <= bins.edges[1:][filled]).all()
        assert (bins.confidence[filled] > bins.edges[:-1][filled]).all()


@pytest.mark.parametrize(
    ("samples", "num_bins"), [(37, 15), (15, 15), (4, 15), (1, 15), (16, 15), (1000, 15), (7, 1)]
)
def test_equal_mass_splits_by_rank_like_numpy(samples, num_bins):
    confidence = np.sort(np.random.default_rng(0).uniform(0.5, 1, samples))
    sizes = [len(part) for part in np.array_split(confidence, num_bins)]
    assert counts_of(torch.from_numpy(confidence), num_bins, "equal-mass") == sizes


@pytest.mark.parametrize(
    ("ordered", "num_bins", "counts"),
    [
        ([0.5] * 6, 3, [0, 6, 0]),  # nothing but ties
        ([0.2, 0.5, 0.5, 0.5, 0.5, 0.9], 2, [5, 1]),  # cut in the middle of the run: the upper end
        ([0.2, 0.5, 0.5, 0.9], 2, [3, 1]),  # as near to both ends: the upper one
        ([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4], 2, [3, 5]),  # the lower end is nearer
        ([0.4, 0.4, 0.4, 0.4, 0.4, 0.6, 0.7, 0.8], 2, [5, 3]),
        ([0.5, 0.5, 0.5, 1.0, 1.0, 1.0], 6, [0, 3, 0, 0, 3, 0]),
    ],
)
def test_ties_stay_together_at_the_nearer_end(ordered, num_bins, counts):
    assert counts_of(torch.tensor(ordered), num_bins, "equal-mass") == counts


def test_bins_hold_the_samples():
    confidence = torch.rand(2**16 + 3)
    bins = reliability_bins(TopLabel(confidence, confidence > 0.5), num_bins=3)
    assert int(bins.count.sum()) == 2**16 + 3
    assert float((bins.confidence * bins.count).sum()) == pytest.approx(
        float(confidence.double().sum()), rel=1e-9
    )


@pytest.mark.parametrize("num_bins", [0, -1, 2.5, True, "15", None])
def test_num_bins_must_be_a_count(num_bins):
    with pytest.raises(ValueError, match=r"reliability_bins: num_bins .*whole number"):
        reliability_bins(Predictions([[0.0, 1.0]], [0]), num_bins=num_bins)


def test_a_misspelt_scheme_names_the_right_one():
    with pytest.raises(ValueError, match="Did you mean 'equal-mass'"):
        reliability_bins(Predictions([[0.0, 1.0]], [0]), scheme="equal_mass")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_on_an_edge_lie_on_it(dtype):
    """As logits, 0.6 of (0.1, 0.3, 0.6) becomes the next float above it; 482 of 15,000 such rows changed their bin."""
    tenths = torch.tensor(
        [(a, b, 10 - a - b) for a in range(11) for b in range(11 - a)], dtype=dtype
    )
    target = torch.zeros(len(tenths), dtype=torch.int64)
    given = Predictions.from_probs(tenths / 10, target)
    bins = (tenths.amax(1) - 1).long()
    for p in (given, Predictions((tenths / 10).clamp(min=1e-30).log(), target)):
        counts = reliability_bins(p, num_bins=10).count
        assert counts.tolist() == torch.bincount(bins, minlength=10).tolist()
    assert torch.equal(given.tensors().probs, tenths / 10)
    assert torch.equal(given.tensors().confidence, (tenths / 10).amax(1))
    torch.testing.assert_close(
        given.tensors().logits, (tenths / 10).clamp(min=torch.finfo(torch.float32).tiny).log()
    )
