import math

import pytest
import torch

from fedlas import Predictions
from fedlas.diagnose import (
    NormMonitor,
    binned_scores,
    failure_cases,
    indicator_report,
    indicator_statistics,
)


@pytest.fixture
def predictions():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=generator)
    target = torch.where(
        torch.rand(300, generator=generator) < 0.7, logits.argmax(1), torch.randint(4, (300,))
    )
    return Predictions(logits, target)


def test_confidence_as_the_score_is_its_own_baseline(predictions):
    found = indicator_report(predictions.tensors().confidence, predictions)
    assert found.confidence.spearman.value == pytest.approx(1)
    assert found.correctness == found.baseline
    assert found.gap.auroc is None
    gap = predictions.tensors().confidence.double() - predictions.tensors().correct.double()
    expected = torch.corrcoef(torch.stack((predictions.tensors().confidence.double(), gap)))[0, 1]
    assert found.gap.pearson.value == pytest.approx(float(expected))


def test_bins_hold_every_sample_once_and_rise(predictions):
    score = torch.randn(300)
    found = binned_scores(score, predictions, num_bins=7)
    assert sum(found.count) == 300
    assert found.score == sorted(found.score)
    mean = sum(a * n for a, n in zip(found.accuracy, found.count, strict=True)) / 300
    assert mean == pytest.approx(float(predictions.tensors().correct.double().mean()))
    first = score.argsort()[: found.count[0]]
    assert found.confidence[0] == pytest.approx(
        float(predictions.tensors().confidence[first].double().mean())
    )


def test_failure_cases_by_hand():
    logits = torch.tensor([[0.1, 0.0], [9.0, 0.0], [9.0, 0.0], [0.1, 0.0], [0.2, 0.0]])
    target = torch.tensor([0, 1, 0, 1, 0])
    score = torch.tensor([3.0, -3.0, 1.0, 2.0, 0.0])
    found = failure_cases(score, Predictions(logits, target))
    # high score, right but doubted; 3 is wrong, so over-confident as the score says
    assert found.high == [0]
    assert found.low == [1]  # low score, wrong and believed


def test_failure_cases_are_at_most_count(predictions):
    found = failure_cases(torch.randn(300), predictions, count=3)
    assert len(found.high) == len(found.low) == 3


def test_refuse_a_score_of_another_length(predictions):
    for function in (indicator_report, binned_scores, failure_cases):
        with pytest.raises(ValueError, match=r"score must have shape \(300,\)"):
            function(torch.ones(299), predictions)
        with pytest.raises(ValueError, match="predictions must be"):
            function(torch.ones(300), predictions.tensors().logits)
    with pytest.raises(ValueError, match="at most the number of samples, 300"):
        binned_scores(torch.ones(300), predictions, num_bins=301)


def test_epoch_numbers_equal_report_with_intervals(predictions):
    score = predictions.tensors().confidence + 0.3 * torch.randn(
        300, generator=torch.Generator().manual_seed(1)
    )
    numbers, report = indicator_statistics(score, predictions), indicator_report(score, predictions)
    assert numbers["auroc_correct"] == report.correctness.auroc.value
    assert numbers["spearman_gap_low"] == report.gap.spearman.low
    assert numbers["pearson_confidence_high"] == report.confidence.pearson.high
    assert len(numbers) == 3 * 7
    for name in (name for name in numbers if f"{name}_low" in numbers):
        assert numbers[f"{name}_low"] < numbers[name] < numbers[f"{name}_high"]


def test_numbers_skip_non_finite_scores(predictions):
    score = predictions.tensors().confidence.clone()
    score[7] = math.inf
    kept = torch.arange(300) != 7
    rest = Predictions(predictions.tensors().logits[kept], predictions.tensors().target[kept])
    assert indicator_statistics(score, predictions) == indicator_statistics(score[kept], rest)
    few = indicator_statistics(torch.full((300,), math.nan), predictions)
    assert all(math.isnan(number) for number in few.values())


def test_norms_are_watched_where_there_is_no_indicator(predictions):
    features = torch.randn(300, 5, generator=torch.Generator().manual_seed(2))
    monitor = NormMonitor()
    for part in torch.arange(300).chunk(4):
        monitor.on_held_out(predictions.tensors().logits[part], features[part])
    record = monitor.on_epoch(predictions)
    norms = features.abs().sum(1)
    assert set(record) == {"indicator"}
    assert record["indicator"]["mean"] == pytest.approx(float(norms.mean()))
    assert record["indicator"]["std"] == pytest.approx(float(norms.std(correction=0)))
    expected = indicator_statistics(norms, predictions)
    assert {name: record["indicator"][name] for name in expected} == expected
    monitor.on_held_out(
        predictions.tensors().logits, features
    )  # the epoch after starts from nothing
    assert monitor.on_epoch(predictions) == record
