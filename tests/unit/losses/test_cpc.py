"""CPC pair by pair, and in blocks."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import CPC

WEIGHTS = {"lambda1": 0.7, "lambda2": 1.3}


def inputs(samples=5, classes=6, *, soft=False):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (samples,), generator=generator)
    if soft:
        target = (
            torch.rand(samples, classes, generator=generator, dtype=torch.float64)
            .softmax(1)
            .requires_grad_()
        )
    return logits.requires_grad_(), target


def constraints(logits, target, **options):
    """What the loss adds to cross-entropy."""
    added = CPC(**(WEIGHTS | options), reduction="none")(logits, target)
    return added - F.cross_entropy(logits, target, reduction="none")


def by_pairs(row, y, *, lambda1, lambda2):
    others = [k for k in range(len(row)) if k != y]
    duels = [-F.logsigmoid(row[y] - row[k]) for k in others]
    draws = [-0.5 * F.logsigmoid(row[j] - row[k]) for j in others for k in others if j != k]
    mean = [lambda1 * sum(duels) / len(duels), lambda2 * sum(draws) / len(draws) if draws else 0.0]
    return sum(mean)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_by_pairs(classes):
    logits, target = inputs(classes=classes)
    expected = torch.stack(
        [by_pairs(row, y, **WEIGHTS) for row, y in zip(logits, target, strict=True)]
    )
    value = constraints(logits, target)
    torch.testing.assert_close(value, expected)
    upstream = torch.linspace(-1, 2, 5, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(each @ upstream, logits)[0] for each in (value, expected))
    torch.testing.assert_close(ours, theirs)


def test_one_class_has_no_pairs():
    for variant in ("paper", "reference"):
        value = constraints(torch.ones(2, 1), torch.tensor([0, 0]), variant=variant)
        torch.testing.assert_close(value, torch.zeros(2))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_popular_code_adds_a_constant(classes):
    logits, target = inputs(classes=classes)
    paper, reference = (constraints(logits, target, variant=v) for v in ("paper", "reference"))
    # the pairs j = k add C - 1 times log(2) / 2 to the sum over these
    pairs = (classes - 1) * (classes - 2)
    constant = 1.3 * (classes - 1) * math.log(2) / 2 / pairs if pairs else 0.0
    torch.testing.assert_close(reference - paper, torch.full_like(paper, constant))


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_soft_target_is_the_expectation(variant):
    logits, soft = inputs(soft=True)
    soft = soft * torch.linspace(0.5, 1.5, 5)[:, None]  # linear in the target, for any sum
    each = [constraints(logits, torch.full((5,), y), variant=variant) for y in range(6)]
    value = constraints(logits, soft, variant=variant)
    torch.testing.assert_close(value, (torch.stack(each, 1) * soft).sum(1))


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_derivatives_for_logits_and_soft_target(variant):
    logits, soft = inputs(3, 4, soft=True)

    def function(z, t):
        return constraints(z, t, variant=variant)

    assert torch.autograd.gradcheck(function, (logits, soft))
    assert torch.autograd.gradgradcheck(function, (logits, soft))


@pytest.mark.parametrize("soft", [False, True])
def test_blocks_change_nothing(soft):
    """A block has 2^18 pairs on a CPU: three for all rows here, one for each row by itself."""
    logits, target = inputs(150, 64, soft=soft)
    wanted = (logits, target) if soft else (logits,)
    value = constraints(logits, target)
    rows = [constraints(logits[i : i + 1], target[i : i + 1]) for i in range(150)]
    torch.testing.assert_close(value, torch.cat(rows))
    ours, theirs = (
        torch.autograd.grad(each.square().sum(), wanted) for each in (value, torch.cat(rows))
    )
    torch.testing.assert_close(ours, theirs)


def test_no_tensor_exceeds_a_block(largest_tensor):
    logits, target = torch.randn(150, 64, requires_grad=True), torch.randint(64, (150,))
    with largest_tensor() as seen:
        CPC()(logits, target).backward()
    assert 2**17 < seen.numel <= 2**18  # all pairs: 614,400


def test_first_penalty_vanishes_for_confident_correct_predictions():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    value = constraints(logits, torch.tensor([0]), lambda1=1.0, lambda2=0.0)
    value.backward()
    assert value.abs().item() < 1e-6
    assert logits.grad.abs().max().item() == 0


def test_without_a_gradient():
    logits, target = inputs(2, 3)
    with torch.no_grad():
        value = CPC()(logits, target)
    torch.testing.assert_close(value, CPC()(logits, target))
    assert not value.requires_grad


def test_class_weights_weigh_the_penalty():
    logits, target = inputs()
    weight = torch.linspace(0.5, 2, 6)
    each = CPC(**WEIGHTS, reduction="none")(logits, target)
    torch.testing.assert_close(CPC(**WEIGHTS)(logits, target), each.mean())
    share = weight[target].double()
    torch.testing.assert_close(
        CPC(**WEIGHTS, weight=weight)(logits, target), (each * share).sum() / share.sum()
    )


@pytest.mark.parametrize("options", [{"lambda1": -1.0}, {"lambda2": -1.0}, {"variant": "papre"}])
def test_invalid_cpc_arguments_raise(options):
    with pytest.raises(InputError, match=f"CPC: {next(iter(options))}"):
        CPC(**options)
