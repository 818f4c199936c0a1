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
    return Predictions((2 * p.tensors().logits).round() / 2, p.tensors().target)


@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_scikit_learn_s(draw, weighted):
    p = tied(draw)
    weights = np.random.default_rng(0).random(500) + 0.1 if weighted else None
    p = Predictions(p.tensors().logits, p.tensors().target, weights=weights)
    score, outcome = p.tensors().logits[:, 1].numpy(), p.target
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
    expected = roc_auc_score(p.tensors().target, p.tensors().probs, multi_class="ovr")
    assert metrics.auroc(p) == pytest.approx(expected)
    assert binary.auroc(p, event=2).value == pytest.approx(
        roc_auc_score(p.tensors().target == 2, p.tensors().probs[:, 2])
    )


def nearly_certain(classes):
    """Probabilities of which most are below 1e-16 or a rounding of 1, as naive Bayes gives, and labels."""
    random = np.random.default_rng(0)
    logits = 20 * random.normal(size=(600, classes)) - 60 * (np.arange(classes) > 0)
    target = np.array([np.argmax(row + 40 * random.gumbel(size=classes)) for row in logits])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), target


@pytest.mark.parametrize("classes", [2, 3])
def test_nearly_certain_probabilities_rank_by_log_odds(classes):
    """Probabilities below 1e-38 and near 1 have ranks; both functions and scikit-learn see the same ones."""
    probs, target = nearly_certain(classes)
    assert (probs[:, 1] < 1e-40).any()
    assert (probs[:, 0] == 1).any()
    log_odds = np.log(probs[:, 1]) - np.log(np.delete(probs, 1, axis=1).sum(axis=1))
    p = Predictions.from_probs(probs, target)
    area = roc_auc_score(target == 1, log_odds)
    precision = average_precision_score(target == 1, log_odds)
    assert binary.auroc(p, event=1).value == pytest.approx(area, abs=1e-12)
    found = binary.average_precision(p, event=1, replicates=0).value
    assert found == pytest.approx(precision, abs=1e-12)
    for metric in (metrics.auroc, metrics.average_precision):
        one = {"auroc": binary.auroc, "average_precision": binary.average_precision}[
            metric.__name__
        ]
        events = [1] if classes == 2 else range(classes)
        mean = np.mean([one(p, event=event).value for event in events])
        assert metric(p) == pytest.approx(mean, abs=1e-12)


def test_a_column_ranks_as_scikit_learn_ranks_it():
    probs, target = nearly_certain(2)
    column = probs[:, 1]
    assert metrics.auroc(column, target) == pytest.approx(roc_auc_score(target, column), abs=1e-12)
    expected = average_precision_score(target, column)
    assert metrics.average_precision(column, target) == pytest.approx(expected, abs=1e-12)


def test_log_odds_near_minus_sixty_keep_their_ranks():
    random = np.random.default_rng(0)
    log_odds = random.normal(-60, 1, 2000)
    target = (random.random(2000) < expit(log_odds + 60)).astype(int)
    p = Predictions.from_probs(np.stack([expit(-log_odds), expit(log_odds)], axis=1), target)
    expected = roc_auc_score(target, log_odds)
    assert expected > 0.7
    assert metrics.auroc(p) == pytest.approx(expected, abs=1e-12)
    assert binary.auroc(p).value == pytest.approx(expected, abs=1e-12)


def test_equal_shares_of_votes_are_ties():
    """The others of .7 add up to .7 and to a rounding beside it."""
    random = np.random.default_rng(0)
    votes = random.multinomial(10, [0.3, 0.3, 0.2, 0.2], size=400) / 10
    target = np.array([random.choice(4, p=row) for row in votes])
    p = Predictions.from_probs(votes, target)
    for event in range(4):
        expected = roc_auc_score(target == event, votes[:, event])
        assert binary.auroc(p, event=event).value == pytest.approx(expected, abs=1e-12)
    assert metrics.auroc(p) == pytest.approx(roc_auc_score(target, votes, multi_class="ovr"))


def test_the_error_is_delong_s(draw):
    """Placements and their covariances as the paper defines them, by loops over pairs."""
    p = tied(draw, 80)
    score, outcome = p.tensors().logits[:, 1].numpy(), p.target > 0
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
    noisy = p.tensors().logits + torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
    other = Predictions(noisy, p.tensors().target)
    found = compare(p, other, ["auroc"], replicates=39)["auroc"]
    assert found.difference == pytest.approx(metrics.auroc(p) - metrics.auroc(other))
    outcome = p.target > 0
    errors = []
    for each in (p, other):
        score = (each.tensors().logits[:, 1] - each.tensors().logits[:, 0]).numpy()
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
    copied = Predictions(p.tensors().logits[index], p.tensors().target[index], clusters=index)
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
