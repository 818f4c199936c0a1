import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.metrics import (
    augrc,
    aurc,
    e_aurc,
)


def area(wrong):
    """Mean risk of the first k of a list in descending confidence."""
    errors = itertools.accumulate(wrong)
    return sum(Fraction(n, k) for k, n in enumerate(errors, 1)) / len(wrong)


def predictions(confidence, correct):
    confidence = torch.tensor(confidence, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    return Predictions(logits, [0 if right else 1 for right in correct])


def test_by_hand():
    p = predictions([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert aurc(p) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4, rel=1e-12)
    assert e_aurc(p) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 - 1 / 3 - 1 / 2) / 4, rel=1e-12)


@pytest.mark.parametrize(
    "confidence",
    [[0.9, 0.8, 0.8, 0.8, 0.6], [0.7] * 5, [0.9, 0.9, 0.8, 0.7, 0.7], [0.6, 0.9, 0.8, 0.75, 0.7]],
)
@pytest.mark.parametrize(
    "correct", [[1, 0, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
)
def test_ties_are_the_mean_over_all_their_orders(confidence, correct):
    orders = [
        area([not correct[i] for i in order])
        for order in itertools.permutations(range(5))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    expected = sum(orders) / len(orders)
    assert aurc(predictions(confidence, correct)) == pytest.approx(float(expected), rel=1e-12)
    least = min(area(list(order)) for order in itertools.permutations([not c for c in correct]))
    excess = e_aurc(predictions(confidence, correct))
    assert excess == pytest.approx(float(expected - least), abs=1e-12)


def test_confidence_that_says_nothing_has_the_error_rate():
    p = Predictions(torch.zeros(1000, 2), [0] * 700 + [1] * 300)
    assert aurc(p) == pytest.approx(0.3, rel=1e-12)


def test_large_ties_are_summed_exactly():
    torch.manual_seed(0)
    confidence = torch.linspace(1.0, 0.0, 20_000, dtype=torch.float64)
    wrong = torch.rand(20_000) < torch.linspace(0.0, 0.5, 20_000)
    assert aurc(TopLabel(confidence, ~wrong)) == pytest.approx(
        float(area(wrong.int().tolist())), rel=1e-13
    )
    confidence = torch.tensor([0.9] * 700 + [0.6] * 300)
    wrong = torch.tensor([True] * 7 + [False] * 693 + [True] * 30 + [False] * 270)
    rates = [7 * k / 700 / k for k in range(1, 701)] + [
        (7 + 30 * j / 300) / (700 + j) for j in range(1, 301)
    ]
    assert aurc(TopLabel(confidence, ~wrong)) == pytest.approx(sum(rates) / 1000, rel=1e-12)


def test_the_least_area_tends_to_the_papers_limit():
    right, wrong = 80_000, 20_000
    p = predictions([0.9] * right + [0.6] * wrong, [True] * right + [False] * wrong)
    assert e_aurc(p) == 0.0
    assert aurc(p) == pytest.approx(0.2 + 0.8 * math.log(0.8), rel=1e-4)


def test_only_the_order_of_confidences_matters():
    torch.manual_seed(0)
    margin = torch.rand(500, dtype=torch.float64) * 5
    target = torch.randint(2, (500,))
    logits = torch.stack([margin, torch.zeros_like(margin)], 1)
    value = aurc(Predictions(logits, target))
    assert aurc(Predictions(logits / 3, target)) == value


def generalized_area(confidence, correct):
    """Trapezoids of the errors among the accepted, over all samples, at every threshold; O(N**2)."""
    coverage, harm = [0.0], [0.0]
    for threshold in sorted(set(confidence), reverse=True):
        accepted = [right for c, right in zip(confidence, correct, strict=True) if c >= threshold]
        coverage.append(len(accepted) / len(correct))
        harm.append(accepted.count(False) / len(correct))
    return np.trapezoid(harm, coverage)


def test_generalized_risk_by_hand():
    """Right, wrong, right, wrong: 0, 1/4, 1/4, 1/2 are wrong and accepted, with the means of neighbors between."""
    p = predictions([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    expected = (0 + 1 / 8 + 1 / 4 + 3 / 8) / 4
    assert augrc(p) == pytest.approx(expected, rel=1e-12)
    # by AUROC, in which 3 of 4 pairs are in order: 1/4 * 1/2 * 1/2 + 1/2 * 1/4
    assert expected == 1 / 16 + 1 / 8


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [3, 1000])
def test_generalized_risk_is_the_area_by_trapezoids(seed, levels):
    generator = np.random.default_rng(seed)
    samples = int(generator.integers(1, 60))
    confidence = (0.5 + generator.integers(0, levels, samples) / (2.1 * levels)).tolist()
    correct = (generator.random(samples) < generator.random()).tolist()
    found = augrc(predictions(confidence, correct))
    assert found == pytest.approx(generalized_area(confidence, correct), abs=1e-12)


@pytest.mark.parametrize(("wrong_first", "expected"), [(True, 0.3 - 0.045), (False, 0.045)])
def test_augrc_of_worst_and_best_order(wrong_first, expected):
    correct = [False] * 30 + [True] * 70
    confidence = np.linspace(0.9, 0.6, 100) if wrong_first else np.linspace(0.6, 0.9, 100)
    assert augrc(predictions(confidence, correct)) == pytest.approx(expected, rel=1e-12)
    nothing = predictions([0.7] * 100, correct)
    assert augrc(nothing) == pytest.approx(0.15, rel=1e-12)
