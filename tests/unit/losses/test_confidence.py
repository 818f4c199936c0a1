"""Cross-entropy, confidence and correctness from one pass, against the plain formulas."""

import pytest
import torch
import torch.nn.functional as F

from batches import batch_of
from fedlas.losses import DCA, MDCA, MMCE, WeightedMMCE

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 1.5], dtype=torch.float64)


def batch(*, soft=False, weight=None):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (7,), generator=generator)
    if soft:
        target = torch.rand(7, 4, generator=generator, dtype=torch.float64).softmax(1)
    return batch_of(logits.requires_grad_(), target, weight=weight)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("soft", [False, True])
def test_plain_formulas(soft, weight):
    given = batch(soft=soft, weight=weight)
    nll, confidence, correct = given.nll_and_confidence()
    expected = F.cross_entropy(given.logits, given.target, weight=weight, reduction="none")
    probs, top = given.logits.softmax(1).max(1)
    torch.testing.assert_close(nll, expected)
    torch.testing.assert_close(confidence, probs)
    assert torch.equal(correct, top == (given.target.argmax(1) if soft else given.target))
    assert not correct.requires_grad
    first, second = (
        torch.linspace(-1, 1, 7, dtype=torch.float64),
        torch.linspace(2, -3, 7, dtype=torch.float64),
    )
    ours = torch.autograd.grad(nll @ first + confidence @ second, given.logits)
    theirs = torch.autograd.grad(expected @ first + probs @ second, given.logits)
    torch.testing.assert_close(ours, theirs)


def test_of_equal_logits_the_first_is_the_prediction():
    *_, correct = batch_of(torch.zeros(3, 3), torch.tensor([0, 1, 2])).nll_and_confidence()
    assert correct.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "criterion", [DCA(), MDCA(), MMCE(), WeightedMMCE()], ids=lambda c: type(c).__name__
)
def test_ignored_positions_have_no_effect(criterion):
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, -100, 1])
    clean, dirty = logits.clone().requires_grad_(), logits.clone()
    dirty[4] = float("nan")
    dirty.requires_grad_()
    expected, value = criterion(clean, target), criterion(dirty, target)
    expected.backward()
    value.backward()
    kept = target != -100
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(dirty.grad[kept], clean.grad[kept])


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5]], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", [DCA, MDCA, MMCE, WeightedMMCE])
def test_batch_penalty_is_added_to_every_position(kind, weight):
    """It is weighted like the cross-entropy, so that the weighted mean of the losses contains alpha times the term."""
    logits, target = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 1])
    options = {"weight": weight, "reduction": "none"}
    added = kind(alpha=3.0, **options)(logits, target) - kind(alpha=0.0, **options)(logits, target)
    term = kind(alpha=1.0)(logits, target) - F.cross_entropy(logits, target)
    assert term > 0.01
    each = torch.ones(6) if weight is None else torch.tensor(weight)[target]
    torch.testing.assert_close(added, 3 * term * each.double())
    values = torch.linspace(0, 5, 6, dtype=torch.float64)
    given = batch_of(logits, target)
    both = kind(alpha=1.0).with_strength(given, values)
    torch.testing.assert_close(
        both, F.cross_entropy(logits, target, reduction="none") + values * term
    )
