import itertools

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import average, greedy_selection
from fedlas.zoo.uncertainty import hyper_ensemble as room


def pool(count, samples=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(classes, size=samples)
    return [
        Predictions(
            1.2 * np.eye(classes)[target] + (1 + 0.3 * i) * rng.normal(size=(samples, classes)),
            target,
        )
        for i in range(count)
    ]


def nll(members, counts):
    target = members[0].target
    probs = sum(c * m.probs for m, c in zip(members, counts, strict=True)) / sum(counts)
    return -np.log(probs[np.arange(len(target)), target]).mean()


def by_hand(members, size):
    """The same picks by trying every candidate in full."""
    counts, lowest = [0] * len(members), np.inf
    while sum(c > 0 for c in counts) < size:
        tried = [
            nll(members, [c + (i == j) for j, c in enumerate(counts)]) for i in range(len(members))
        ]
        best = int(np.argmin(tried))
        if tried[best] >= lowest - 1e-9:
            break
        lowest, counts[best] = tried[best], counts[best] + 1
    return counts


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_picks_are_those_of_trying_all(size, seed):
    members = pool(6, seed=seed)
    assert greedy_selection(members, size=size) == by_hand(members, size)


def test_something_is_picked_more_than_once():
    """Or replacement would not be tested above."""
    found = [greedy_selection(pool(6, seed=seed), size=6) for seed in range(4)]
    assert any(max(counts) > 1 for counts in found)


def test_selection_beats_best_member_within_size():
    members = pool(5)
    alone = min(nll(members, np.eye(5)[i]) for i in range(5))
    values = []
    for size in range(1, 6):
        counts = greedy_selection(members, size=size)
        assert 1 <= sum(c > 0 for c in counts) <= size
        values.append(nll(members, counts))
    assert values[0] == pytest.approx(alone)
    assert values == sorted(values, reverse=True)
    assert values[-1] < alone - 0.01


def test_counts_are_weights_of_the_average():
    members = pool(4)
    counts = greedy_selection(members, size=3)
    found = average(*members, weights=counts)
    expected = nll(members, counts)
    assert torch.nn.functional.cross_entropy(
        found.tensors().logits, found.tensors().target
    ).item() == pytest.approx(expected, rel=1e-6)


def test_copies_add_nothing():
    members = pool(1) * 3
    assert greedy_selection(members, size=3) == [1, 0, 0]


def test_ends_at_the_most_picks(monkeypatch):
    monkeypatch.setattr(room, "MAX_PICKS", 2)
    found = [sum(greedy_selection(pool(6, seed=seed), size=6)) for seed in range(4)]
    assert max(found) == 2


@pytest.mark.parametrize(
    ("members", "size", "message"),
    [
        ([], 1, "at least one"),
        (pool(2), 0, "size"),
        ([*pool(1), *pool(1, seed=1)], 1, "other targets"),
    ],
)
def test_invalid_pool_or_size_is_refused(members, size, message):
    with pytest.raises(InputError, match=rf"greedy_selection.*{message}"):
        greedy_selection(members, size=size)


def test_order_of_the_pool_does_not_matter():
    members = pool(4)
    whole = greedy_selection(members, size=3)
    for order in itertools.permutations(range(4)):
        found = greedy_selection([members[i] for i in order], size=3)
        assert [found[order.index(i)] for i in range(4)] == whole
