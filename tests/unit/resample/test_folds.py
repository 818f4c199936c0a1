import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import AutoCalibration
from fedlas.calibrators._fit.folds import best_temperature, effective_count
from fedlas.resample import folds as resample_folds
from fedlas.resample.folds import (
    canonical_order,
    chronological_folds,
    factorize_rows,
    systematic_sample,
)


def sample_numbers(logits, target, features=None):
    return resample_folds.original_sample_ids(logits, target, best_temperature, features)


def stratified_folds(logits, target, count, *others, **named):
    return resample_folds.stratified_folds(
        logits, target, count, best_temperature, *others, **named
    )


def sample(samples=103, classes=4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(samples, classes, generator=random), torch.randint(
        classes, (samples,), generator=random
    )


def test_sizes_and_shares_are_even():
    logits, target = sample()
    folds = stratified_folds(logits, target, 5)
    assert torch.bincount(folds).tolist() == [21, 21, 21, 20, 20]
    for label in range(4):
        counts = torch.bincount(folds[target == label], minlength=5)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_samples_does_not_matter(seed):
    logits, target = sample()
    shuffle = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(
        stratified_folds(logits[shuffle], target[shuffle], 5),
        stratified_folds(logits, target, 5)[shuffle],
    )
    order, other = (
        canonical_order(logits, target),
        canonical_order(logits[shuffle], target[shuffle]),
    )
    assert torch.equal(logits[order], logits[shuffle][other])


def test_equal_samples_may_change_places():
    logits, target = sample(20)
    logits, target = torch.cat([logits, logits]), torch.cat([target, target])
    back = torch.arange(39, -1, -1)
    for fold in range(3):
        one, two = (
            rows[stratified_folds(rows, labels, 3) == fold]
            for rows, labels in ((logits, target), (logits[back], target[back]))
        )
        assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, two.tolist()))


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_share_a_fold(copies):
    logits, target = sample(200)
    logits, target = logits.repeat(copies, 1), target.repeat(copies)
    folds = stratified_folds(logits, target, 5)
    assert bool((folds.view(copies, 200) == folds[:200]).all())
    sizes = torch.bincount(folds)
    assert sizes.max() - sizes.min() <= 2 * copies
    shuffle = torch.randperm(len(target), generator=torch.Generator().manual_seed(2))
    assert torch.equal(stratified_folds(logits[shuffle], target[shuffle], 5), folds[shuffle])
    for label in range(4):
        counts = torch.bincount(folds[target == label], minlength=5)
        assert counts.max() - counts.min() <= copies


def test_a_few_copies_hardly_change_sizes_and_shares():
    logits, target = sample(500)
    logits, target = (
        torch.cat([logits, logits[:100], logits[:20]]),
        torch.cat([target, target[:100], target[:20]]),
    )
    folds = stratified_folds(logits, target, 5)
    assert np.ptp(torch.bincount(folds).numpy()) <= 2
    for label in range(4):
        assert np.ptp(torch.bincount(folds[target == label], minlength=5).numpy()) <= 1


def test_there_are_no_more_folds_than_samples():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]).repeat(4, 1)
    assert stratified_folds(logits, (torch.arange(3) % 2).repeat(4), 5).unique().tolist() == [
        0,
        1,
        2,
    ]


def test_frequent_rows_with_mixed_labels_are_independent():
    random = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0]])[
        torch.randint(3, (300,), generator=random)
    ]
    target = torch.randint(2, (300,), generator=random)
    folds = stratified_folds(logits, target, 5)
    counts = torch.stack([torch.bincount(folds[logits[:, 0] == value]) for value in range(3)])
    assert counts.min() > 10
    assert len(set(sample_numbers(logits, target).tolist())) == 300
    assert effective_count(sample_numbers(logits, target * 0), torch.ones(300)) < 3.1
    # Labels vary at random within a value: a systematic split would hide how much a curve over-fits.
    shares = torch.stack(
        [target[(folds == fold) & (logits[:, 0] == 0)].double().mean() for fold in range(5)]
    )
    assert shares.std() > 0.02


def test_a_score_that_saturates_is_no_copy():
    """A fifth of the rows have one score, all of one label; others are distinct, a few are copies."""
    logits, target = sample(400)
    sure = torch.tensor([[9.0, 0.0, 0.0, 0.0]]).repeat(100, 1)
    rows = torch.cat([logits, sure, logits[:5]])
    labels = torch.cat([target, torch.zeros(100, dtype=torch.long), target[:5]])
    number = sample_numbers(rows, labels)
    assert len(set(number.tolist())) == 500
    assert (number[-5:] == number[:5]).all()


def test_numbers_of_distinct_rows():
    rows = torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0], [3.0, 0.0], [1.0, 0.0]])
    assert factorize_rows(rows).tolist() == [0, 1, 0, 2, 1]
    assert factorize_rows(rows.double()).tolist() == [0, 1, 0, 2, 1]


def test_order_within_class_is_pseudo_random():
    """The folds must not follow the logits: a systematic draw would make training and held-out parts too alike."""
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(4000, 2, generator=random)
    folds = stratified_folds(logits, torch.zeros(4000, dtype=torch.long), 2).numpy()
    ordered = folds[np.argsort(logits[:, 0].numpy())]
    runs = 1 + (ordered[1:] != ordered[:-1]).sum()
    assert abs(runs - 2000) < 4 * np.sqrt(1000)  # Wald-Wolfowitz: mean N/2, variance N/4


def test_folds_ignore_precision_and_signed_zero():
    logits, target = sample()
    logits[:10] = 0.0
    same = logits.clone()
    same[:10] = -0.0
    folds = stratified_folds(logits, target, 5)
    assert torch.equal(stratified_folds(same, target, 5), folds)
    assert torch.equal(stratified_folds(logits.double(), target, 5), folds)


@pytest.mark.parametrize("factor", [2.5, 0.1, 1 / 3, 1e6])
def test_only_ratios_of_weights_matter_to_folds(factor):
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(90, 3, generator=draw, dtype=torch.float64)
    target = torch.randint(3, (90,), generator=draw)
    weights = torch.randint(1, 8, (90,), generator=draw).double() / 10
    clusters = torch.arange(90) // 2
    for names in ({}, {"clusters": clusters}):
        folds = stratified_folds(logits, target, 5, weights, **names)
        again = stratified_folds(logits, target, 5, factor * weights, **names)
        assert torch.equal(folds, again)
    assert torch.equal(
        stratified_folds(logits, target, 5, torch.full((90,), 2.5, dtype=torch.float64)),
        stratified_folds(logits, target, 5),
    )


@pytest.mark.parametrize("ratio", [2, 5, 5.001, 6, 10])
def test_thinned_rows_are_of_all_folds_and_classes(ratio):
    """Every fifth row of the order in which folds are dealt would be of one fold."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(int(400 * ratio), 3, generator=draw)
    target = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
    folds = stratified_folds(logits, target, 5)
    rows = systematic_sample(canonical_order(logits, target), 400)
    assert len(rows.unique()) == 400
    shares = torch.bincount(target, minlength=3) / len(target)
    for fold in range(5):
        inside = target[rows[folds[rows] == fold]]
        assert (torch.bincount(inside, minlength=3) - 80 * shares).abs().max() <= 12


@pytest.mark.parametrize(("classes", "features"), [(2, 3), (3, 0), (6, 4)])
def test_the_order_of_the_classes_does_not_matter(classes, features):
    """Folds, and with them auto, are the same whatever number a class has."""
    draw = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(300, classes, generator=draw, dtype=torch.float64)
    side = torch.randn(300, features, generator=draw, dtype=torch.float64) if features else None
    target = torch.multinomial((logits / 2).softmax(1), 1, generator=draw)[:, 0]
    other = torch.randperm(classes, generator=draw).roll(1)
    renamed = logits[:, other], other.argsort()[target]
    assert torch.equal(
        stratified_folds(*renamed, 5, features=side),
        stratified_folds(logits, target, 5, features=side),
    )
    probs, moved = (
        AutoCalibration().fit(val).transform(val).tensors().probs
        for val in (
            Predictions(logits, target, features=side),
            Predictions(*renamed, features=side),
        )
    )
    assert torch.allclose(moved, probs[:, other], atol=1e-6)


def test_stretches_of_time_have_equal_weight():
    """They were cut by rows: with weights a fit was left out of others' time than with as many copies."""
    draw = torch.Generator().manual_seed(0)
    time = torch.randint(400, (300,), generator=draw)
    copies = torch.randint(1, 9, (300,), generator=draw) * (time < 100).long().mul(4).add(1)
    rows = torch.arange(300)
    repeated = rows.repeat_interleave(copies)
    weighted = chronological_folds(time, 5, rows, copies.double())
    copied = chronological_folds(time[repeated], 5, rows[repeated])
    assert torch.equal(weighted.number[repeated], copied.number)
    plain = chronological_folds(time, 5, rows)
    assert not torch.equal(weighted.number, plain.number)
    assert torch.equal(
        chronological_folds(time, 5, rows, torch.full((300,), 0.1)).number, plain.number
    )
