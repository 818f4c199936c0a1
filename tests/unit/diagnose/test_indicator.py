import pytest
import torch

from fedlas import Predictions
from fedlas.diagnose import binned_scores, failure_cases, indicator_report


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=generator)
    target = torch.where(torch.rand(300, generator=generator) < 0.7, logits.argmax(1), torch.randint(4, (300,)))
    return Predictions(logits, target)


def test_confidence_as_the_score_is_its_own_baseline(predictions):
    found = indicator_report(predictions.confidence, predictions, replicates=50)
    assert found.confidence.spearman.value == pytest.approx(1)
    assert found.correctness == found.baseline
    assert found.gap.auroc is None
    gap = predictions.confidence.double() - predictions.correct.double()
    expected = torch.corrcoef(torch.stack((predictions.confidence.double(), gap)))[0, 1]
    assert found.gap.pearson.value == pytest.approx(float(expected))


def test_bins_hold_every_sample_once_and_rise(predictions):
    score = torch.randn(300)
    found = binned_scores(score, predictions, num_bins=7)
    assert sum(found.count) == 300
    assert found.score == sorted(found.score)
    mean = sum(a * n for a, n in zip(found.accuracy, found.count, strict=True)) / 300
    assert mean == pytest.approx(float(predictions.correct.double().mean()))
    first = score.argsort()[: found.count[0]]
    assert found.confidence[0] == pytest.approx(float(predictions.confidence[first].double().mean()))


def test_failure_cases_by_hand():
    logits = torch.tensor([[0.1, 0.0], [9.0, 0.0], [9.0, 0.0], [0.1, 0.0], [0.2, 0.0]])
    target = torch.tensor([0, 1, 0, 1, 0])
    score = torch.tensor([3.0, -3.0, 1.0, 2.0, 0.0])
    found = failure_cases(score, Predictions(logits, target))
    assert found.high == [0]  # high score, right but doubted; 3 is wrong, so over-confident as the score says
    assert found.low == [1]  # low score, wrong and believed


def test_failure_cases_are_at_most_count(predictions):
    found = failure_cases(torch.randn(300), predictions, count=3)
    assert len(found.high) == len(found.low) == 3


def test_refuse_a_score_of_another_length(predictions):
    for function in (indicator_report, binned_scores, failure_cases):
        with pytest.raises(ValueError, match=r"score must be \(300,\)"):
            function(torch.ones(299), predictions)
    with pytest.raises(ValueError, match="at most 300"):
        binned_scores(torch.ones(300), predictions, num_bins=301)
