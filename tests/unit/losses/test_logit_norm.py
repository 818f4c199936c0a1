"""LogitNorm by hand, at zero, and as published code computes it."""

import math

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import LogitNorm


def inputs():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(4, (6,), generator=generator)


def test_by_hand():
    # (3, 4) has length 5: (0.6, 0.8) / 0.5 = (1.2, 1.6).
    logits = torch.tensor([[3.0, 4.0]])
    expected = -math.log(math.exp(1.2) / (math.exp(1.2) + math.exp(1.6)))
    assert LogitNorm(temperature=0.5)(logits, torch.tensor([0])).item() == pytest.approx(expected)


@pytest.mark.parametrize(("variant", "eps"), [("paper", 0.0), ("reference", 1e-7)])
def test_gradients_are_autograds(variant, eps):
    logits, target = inputs()
    plain = F.cross_entropy(logits / (torch.norm(logits, dim=1, keepdim=True) + eps) / 0.04, target)
    value = LogitNorm(variant=variant)(logits, target)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        torch.autograd.grad(value, logits), torch.autograd.grad(plain, logits)
    )
    assert torch.autograd.gradcheck(
        lambda z: LogitNorm(temperature=2.0, variant=variant)(z, target), (logits,)
    )


def test_gradient_of_published_code_where_its_constant_matters():
    logits, target = torch.tensor([[3e-7, 4e-7]], dtype=torch.float64), torch.tensor([0])
    logits.requires_grad_()
    plain = F.cross_entropy(logits / (torch.norm(logits, dim=1, keepdim=True) + 1e-7), target)
    value = LogitNorm(temperature=1.0, variant="reference")(logits, target)
    ours, theirs = (torch.autograd.grad(each, logits) for each in (value, plain))
    torch.testing.assert_close(ours, theirs)


def test_the_variants_differ_for_short_logits():
    logits, target = torch.tensor([[3e-7, 4e-7]], dtype=torch.float64), torch.tensor([0])
    for variant, scaled in (("paper", [0.6, 0.8]), ("reference", [0.5, 4 / 6])):
        value = LogitNorm(temperature=1.0, variant=variant)(logits, target)
        assert value.item() == pytest.approx(math.log1p(math.exp(scaled[1] - scaled[0])))


def test_the_length_has_no_effect():
    logits, target = inputs()
    value = LogitNorm()(logits, target)
    torch.testing.assert_close(LogitNorm()(1e3 * logits, target), value)
    (slope,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(
        (slope * logits).sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("length", [0.0, 1e-13, 1e-30])
def test_a_row_without_direction_is_uniform_and_stays(length):
    logits, target = (
        torch.tensor([[length, 0.0, 0.0], [3.0, 4.0, 0.0]], requires_grad=True),
        torch.tensor([0, 1]),
    )
    each = LogitNorm(reduction="none")(logits, target)
    each.sum().backward()
    assert each[0].item() == pytest.approx(math.log(3))
    assert (logits.grad[0] == 0).all()
    assert logits.grad[1].abs().sum() > 0


def test_a_row_of_zeros_in_published_code():
    """Its gradient is that of the normalized logits, (p - onehot) / 0.04, times ten million."""
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    LogitNorm(variant="reference")(logits, torch.tensor([0])).backward()
    torch.testing.assert_close(
        logits.grad, torch.tensor([[-0.5, 0.5]], dtype=torch.float64) / 0.04 / 1e-7
    )


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_second_derivative_with_a_row_of_zeros(variant):
    logits = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    value = LogitNorm(temperature=1.0, variant=variant)(logits, torch.tensor([0, 0]))
    (slope,) = torch.autograd.grad(value, logits, create_graph=True)
    (second,) = torch.autograd.grad(slope[1].sum(), logits)
    assert torch.isfinite(second).all()


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": -1.0}, {"variant": "papre"}]
)
def test_invalid_logit_norm_arguments_raise(options):
    with pytest.raises(InputError, match=f"LogitNorm: {next(iter(options))}"):
        LogitNorm(**options)
