"""AUROC and average precision against scikit-learn, and their intervals against definitions."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from fedlas import Predictions, binary, compare, estimates, metrics


def tied(draw, samples=500, seed=0):
    """Predictions of which many have equal scores."""
    p = draw(samples, seed=seed)
    return Predictions((2 * p.logits).round() / 2, p.target)


@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_scikit_learn_s(draw, weighted):
    p = tied(draw)
    weights = np.random.default_rng(0).random(500) + 0.1 if weighted else None
    p = Predictions(p.logits, p.target, weights=weights)
    score, outcome = p.logits[:, 1].numpy(), p.target.numpy()
    assert metrics.auroc(p) == pytest.approx(roc_auc_score(outcome, score, sample_weight=weights))
    expected = average_precision_score(outcome, score, sample_weight=weights)
    assert metrics.average_precision(p) == pytest.approx(expected)
    found = binary.measures(p, replicates=99)
    assert found["auroc"].value == pytest.approx(metrics.auroc(p))
    assert found["average_precision"].value == pytest.approx(expected)
    assert found["average_precision"].low < expected < found["average_precision"].high


def test_more_classes_are_each_against_the_rest():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 4, generator=generator, dtype=torch.float64)
    p = Predictions(logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0])
    expected = roc_auc_score(p.target, p.probs, multi_class="ovr")
    assert metrics.auroc(p) == pytest.approx(expected)
    assert binary.auroc(p, event=2).value == pytest.approx(
        roc_auc_score(p.target == 2, p.probs[:, 2])
    )


def test_the_error_is_delong_s(draw):
    """Placements and their covariances as the paper defines them, by loops over pairs."""
    p = tied(draw, 80)
    score, outcome = p.logits[:, 1].numpy(), p.target.numpy() > 0
    psi = (score[outcome][:, None] > score[~outcome]) + 0.5 * (
        score[outcome][:, None] == score[~outcome]
    )
    variance = psi.mean(1).var(ddof=1) / outcome.sum() + psi.mean(0).var(ddof=1) / (~outcome).sum()
    area = binary.auroc(p)
    # Welch's degrees of freedom of a sum of two variances; the interval is symmetric in log-odds.
    parts = (psi.mean(1).var(ddof=1) / outcome.sum(), psi.mean(0).var(ddof=1) / (~outcome).sum())
    degrees = variance**2 / sum(
        v**2 / (n - 1) for v, n in zip(parts, (outcome.sum(), (~outcome).sum()), strict=True)
    )
    reach = stats.t.ppf(0.975, degrees) * variance**0.5 / (area.value * (1 - area.value))
    ends = expit(logit(area.value) + np.array([-reach, reach]))
    assert [area.low, area.high] == pytest.approx(list(ends), rel=1e-5)
    both = estimates(p, ["auroc"], replicates=39)["auroc"]
    assert [both.low, both.high] == pytest.approx([area.low, area.high])


def test_the_interval_holds_the_area_of_few_events():
    """Of 300 samples about 9 are events; one standard error to both sides holds it in 88 % of the sets."""
    hits = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        event = random.random(300) < 0.03
        event[:2] = True  # at least two
        score = random.normal(event * 1.0, 1.0)
        p = Predictions(np.stack([np.zeros(300), score], axis=1), event.astype(int))
        area = binary.auroc(p)
        hits += area.low <= stats.norm.cdf(2**-0.5) <= area.high
    assert hits >= 0.93 * 300


def test_a_perfect_ranking_is_not_certain(two_class):
    """Four events above all others: an area below 0.025 ** (1 / 4) would show this in 2.5 % of the samples."""
    area = binary.auroc(two_class([4.0, 3.0, 2.0, 1.0, *[-1.0] * 6], [1] * 4 + [0] * 6))
    assert (area.value, area.high) == (1.0, 1.0)
    assert area.low == pytest.approx(0.025**0.25)
    below = binary.auroc(two_class([-4.0, -3.0, *[1.0] * 6], [1] * 2 + [0] * 6))
    assert (below.value, below.low) == (0.0, 0.0)
    assert below.high == pytest.approx(1 - 0.025**0.5)


def test_a_paired_difference_is_delong_s(draw):
    p = tied(draw, 300)
    noisy = p.logits + torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    other = Predictions(noisy, p.target)
    found = compare(p, other, ["auroc"], replicates=39)["auroc"]
    assert found.difference == pytest.approx(metrics.auroc(p) - metrics.auroc(other))
    outcome = p.target.numpy() > 0
    errors = []
    for each in (p, other):
        score = (each.logits[:, 1] - each.logits[:, 0]).numpy()
        psi = (score[outcome][:, None] > score[~outcome]) + 0.5 * (
            score[outcome][:, None] == score[~outcome]
        )
        errors.append((psi.mean(1), psi.mean(0)))
    (a, b), (c, d) = errors
    variance = (a - c).var(ddof=1) / outcome.sum() + (b - d).var(ddof=1) / (~outcome).sum()
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * variance**0.5, rel=1e-6)
    assert set(compare(p, other, replicates=39)) == {"auroc", "nll", "brier", "ece"}


def test_copies_in_clusters_leave_the_error(draw):
    p = draw(300)
    index = torch.arange(300).repeat_interleave(3)
    copied = Predictions(p.logits[index], p.target[index], clusters=index)
    one, three = binary.auroc(p), binary.auroc(copied)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.02)


def test_many_events_change_replicates_little(draw):
    p = draw(6000, seed=3)
    found = binary.average_precision(p, replicates=199)
    assert 0.01 < found.high - found.low < 0.1
    assert found.low < found.value < found.high


def test_one_label_alone(two_class):
    for function in (metrics.auroc, metrics.average_precision):
        with pytest.raises(
            ValueError, match="at least two classes must occur as labels; got only class 1"
        ):
            function(two_class([0.0, 1.0], [1, 1]))
