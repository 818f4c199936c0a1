"""Scores against distributions of labels; scikit-learn counts every class of a row with its probability as weight."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import (
    METRICS,
    StreamingMetrics,
    accuracy,
    ece,
    evaluate,
    nll,
    soft_accuracy,
    soft_brier,
    soft_nll,
    true_ece,
)
from fedlas.metrics import (
    brier as brier_score,
)
from fedlas.stats import bootstrap_interval, noise_floor

SOFT = ("soft_accuracy", "soft_nll", "soft_brier")


def drawn(samples=200, classes=4, **options):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    votes = torch.randint(0, 20, (samples, classes), generator=generator).double() + 0.5
    return Predictions(
        logits, logits.argmax(1), label_probs=votes / votes.sum(1, keepdim=True), **options
    )


def test_against_scikit_learn():
    weights = torch.rand(200, generator=torch.Generator().manual_seed(1))
    for p in (drawn(), drawn(weights=weights)):
        probs = p.probs.repeat(4, axis=0)
        target = np.tile(np.arange(4), 200)
        share = p.label_probs * (1 if p.weights is None else p.weights[:, None])
        options = {"sample_weight": share.ravel()}
        right = sklearn.metrics.accuracy_score(target, probs.argmax(1), **options)
        assert soft_accuracy(p) == pytest.approx(right, abs=1e-12)
        expected = sklearn.metrics.log_loss(target, probs, **options)
        assert soft_nll(p) == pytest.approx(expected, abs=1e-12)
        brier = sum(
            sklearn.metrics.brier_score_loss(target == k, probs[:, k], **options) for k in range(4)
        )
        assert soft_brier(p) == pytest.approx(brier, abs=1e-12)


def test_one_label_for_sure_is_the_plain_score():
    p = drawn()
    certain = Predictions(
        p.tensors().logits,
        p.tensors().target.flip(0),
        label_probs=torch.eye(4)[p.tensors().target.flip(0)],
    )
    assert soft_accuracy(certain) == accuracy(certain)
    assert soft_nll(certain) == pytest.approx(nll(certain), abs=1e-12)
    assert soft_brier(certain) == pytest.approx(brier_score(certain), abs=1e-12)


def test_the_distribution_itself_has_the_best_scores():
    p = drawn()
    best = p.with_logits(p.tensors().label_probs.log())
    entropy = -(p.tensors().label_probs * p.tensors().label_probs.log()).sum(1).mean()
    assert soft_nll(best) == pytest.approx(float(entropy), abs=1e-12)
    spread = (p.tensors().label_probs * (1 - p.tensors().label_probs)).sum(1).mean()
    assert soft_brier(best) == pytest.approx(float(spread), abs=1e-12)
    assert soft_brier(p) - float(spread) == pytest.approx(
        float(((p.tensors().probs - p.tensors().label_probs) ** 2).sum(1).mean())
    )
    assert true_ece(best) == pytest.approx(0, abs=1e-12)


def test_a_probability_that_underflows_has_a_finite_nll():
    p = Predictions([[0.0, 2000.0]], [0], label_probs=[[0.5, 0.5]])
    assert soft_nll(p) == 1000.0


@pytest.mark.parametrize("name", SOFT)
def test_soft_metrics_need_label_probs_and_are_optional(name):
    p = drawn()
    plain = Predictions(p.tensors().logits, p.tensors().target)
    with pytest.raises(InputError, match=r"must have label_probs; got none"):
        METRICS[name].value(plain)
    assert name not in evaluate(p)
    assert "true_ece" in evaluate(p)
    streaming = StreamingMetrics(4, metrics=[name])
    streaming.update(p.tensors().logits, p.tensors().target, label_probs=p.tensors().label_probs)
    assert streaming.compute() == {name: METRICS[name].value(p)}


@pytest.mark.parametrize("name", SOFT)
def test_soft_intervals_cover_value_and_floors_use_model(name):
    p = drawn()
    interval = bootstrap_interval(p, metric=name, replicates=99)
    assert interval.low < interval.value < interval.high
    # The model's own distribution is the best there can be for its probabilities.
    best = Predictions(p.tensors().logits, p.tensors().target, label_probs=p.tensors().probs)
    assert noise_floor(p, metric=name, replicates=9).mean == pytest.approx(
        METRICS[name].value(best), abs=1e-9
    )


def test_people_disagree_more_than_a_network_on_cifar10():
    """Published cross-validated predictions against their labels, and against the votes of about 50 people."""
    path = Path(__file__).parents[4] / "shared" / "real" / "cifar10_probs.npz"
    if not path.exists():
        pytest.skip("needs the predictions of published networks")
    found = np.load(path)
    logits = np.log(np.maximum(found["probs"], 1e-30))
    p = Predictions(logits, found["target"], label_probs=found["human_probs"])
    assert ece(p) == pytest.approx(0.03259, abs=1e-5)
    assert true_ece(p) == pytest.approx(0.0648, abs=5e-5)
    assert soft_accuracy(p) < accuracy(p) == 0.9294
