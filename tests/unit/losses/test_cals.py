"""CALS-ALM by hand: the penalty, and the multipliers over several validations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import CALS
from fedlas.predictions import Predictions


def validation(seed, scale=6.0, classes=4, samples=30):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator)
    return Predictions(logits, torch.randint(classes, (samples,), generator=generator))


def phr(h, lam, rho):
    """Value and slope of the Powell-Hestenes-Rockafellar function."""
    if lam + rho * h >= 0:
        return lam * h + rho * h**2 / 2, lam + rho * h
    return -(lam**2) / (2 * rho), 0.0


def penalties(logits, lam, rho, margin):
    found = []
    for z in logits.double().numpy():
        each = [
            phr((z.max() - z_k) / margin - 1, a, b)[0]
            for z_k, a, b in zip(z, lam, rho, strict=True)
        ]
        found.append(np.mean(each))
    return found


def penalty_of(criterion, logits):
    """What the loss adds to cross-entropy."""
    target = torch.zeros(len(logits), dtype=torch.long)
    return criterion(logits, target) - F.cross_entropy(logits, target, reduction="none")


def cals(lam, rho, margin):
    criterion = CALS(num_classes=len(lam), margin=margin, reduction="none")
    criterion.multipliers.copy_(torch.as_tensor(lam))
    criterion.rho.copy_(torch.as_tensor(rho))
    return criterion


def test_penalty_by_hand():
    logits = 9 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    lam, rho = [1e-6, 0.25, 2.0, 0.125, 1.0], [1.0, 0.5, 2.0, 4.0, 1.25]
    np.testing.assert_allclose(
        penalty_of(cals(lam, rho, 6.0), logits.double()),
        penalties(logits, lam, rho, 6.0),
        rtol=1e-7,
        atol=1e-9,
    )


def test_slope_of_the_penalty():
    lam, rho = [0.5, 0.25, 1.0], [1.0, 2.0, 0.5]
    logits = (
        5 * torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ).requires_grad_()
    penalty_of(cals(lam, rho, 3.0), logits).sum().backward()
    for z, gradient in zip(logits.detach().numpy(), logits.grad.numpy(), strict=True):
        slopes = np.array(
            [phr((z.max() - z_k) / 3 - 1, a, b)[1] for z_k, a, b in zip(z, lam, rho, strict=True)]
        )
        expected = -slopes / (3 * 3.0)
        expected[z.argmax()] += slopes.sum() / (3 * 3.0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_equal_maxima_share_the_gradient():
    logits = torch.tensor([[4.0, 4.0, 0.0]], requires_grad=True)
    penalty_of(cals([1e-6] * 3, [1.0] * 3, 1.0), logits).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, 0.5, -1.0]]))


@pytest.mark.parametrize(
    "options", [{}, {"every": 2, "rho_every": 4}, {"rho_every": 1, "growth": 3.0}, {"rho_every": 2}]
)
def test_multipliers_by_hand(options):
    criterion = CALS(num_classes=4, margin=2.0, **options)
    every, rho_every = options.get("every", 1), options.get("rho_every", 10)
    lam, rho, last = np.full(4, 1e-6), np.ones(4), None
    for number in range(1, 13):
        found = validation(number, scale=2.0 + (number + 1) % 5)
        criterion.update_from_validation(found)
        if number % every == 0:
            rows = found.logits.astype(np.float64)
            excess = (rows.max(axis=1, keepdims=True) - rows) / 2.0 - 1
            slopes = np.array(
                [[phr(h, a, b)[1] for h, a, b in zip(row, lam, rho, strict=True)] for row in excess]
            )
            mean = excess.mean(axis=0)
            if number % rho_every == 0 and last is not None:
                for k in range(4):
                    if mean[k] > max(0.0, 0.9 * last[k]):
                        rho[k] = min(rho[k] * options.get("growth", 1.2), 10.0)
            lam, last = slopes.mean(axis=0).clip(1e-6, 1e6), mean
        np.testing.assert_allclose(criterion.multipliers, lam, rtol=1e-5)
        np.testing.assert_allclose(criterion.rho, rho, rtol=1e-6)
        if last is not None:
            np.testing.assert_allclose(criterion.violation, last, rtol=1e-5, atol=1e-6)
        lam, rho = criterion.multipliers.double().numpy(), criterion.rho.double().numpy()
    assert criterion.num_updates == 12
    assert (rho > 1).any()


def test_multipliers_follow_constraint_violation():
    criterion = CALS(num_classes=2, margin=1.0)
    violated = Predictions([[3.0, 0.0]], [0])
    for expected in (2.0, 4.0, 6.0):
        criterion.update_from_validation(violated)
        assert criterion.multipliers[1].item() == pytest.approx(expected, rel=1e-5)
    criterion.update_from_validation(Predictions([[0.5, 0.0]], [0]))
    assert criterion.multipliers[1].item() == pytest.approx(5.5, rel=1e-5)
    # the largest logit's own constraint always holds
    assert criterion.multipliers[0].item() == pytest.approx(1e-6)


def test_a_constraint_that_holds_does_not_raise_rho():
    criterion = CALS(num_classes=2, margin=1.0, rho_every=1)
    for distance in (0.0, 0.9, 1.5, 1.46, 1.4):  # violations of -1, -0.1, 0.5, 0.46, 0.4
        criterion.update_from_validation(Predictions([[distance, 0.0]], [0]))
        grown = round(math.log(criterion.rho[1].item(), 1.2))
        # 0.4 is below 0.9 times 0.46
        assert grown == {0.0: 0, 0.9: 0, 1.5: 1, 1.46: 2, 1.4: 2}[distance]


def test_a_multiplier_weighs_its_own_class():
    criterion = CALS(num_classes=3, margin=1.0)
    criterion.multipliers.copy_(torch.tensor([1e-6, 5.0, 1e-6]))
    logits = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    criterion(logits, torch.tensor([0])).backward()
    plain = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0])), logits)[0]
    penalty = (logits.grad - plain)[0]
    assert penalty[1].item() == pytest.approx(-(5 + 2) / 3, rel=1e-4)
    assert penalty[2].item() == pytest.approx(-2 / 3, rel=1e-4)
    assert penalty[0].item() == pytest.approx(9 / 3, rel=1e-4)


def test_chunks_of_validation_add_up(monkeypatch):
    whole, parts = CALS(num_classes=4), CALS(num_classes=4)
    whole.update_from_validation(validation(0))
    monkeypatch.setattr("fedlas.losses.cals._MAX_ELEMENTS", 28)
    parts.update_from_validation(validation(0))
    torch.testing.assert_close(whole.state_dict(), parts.state_dict())


def test_class_weights_weigh_the_penalty():
    weight = torch.tensor([1.0, 2.0, 0.5])
    logits, target = 20 * torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    plain = CALS(num_classes=3, reduction="none")(logits, target)
    torch.testing.assert_close(
        CALS(num_classes=3, reduction="none", weight=weight)(logits, target), plain * weight[target]
    )


def test_predictions_of_other_classes_are_refused():
    criterion = CALS(num_classes=3)
    with pytest.raises(InputError, match=r"CALS\.update_from_validation: .*must have 3 classes"):
        criterion.update_from_validation(validation(0))
    assert criterion.num_updates == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": 0}, "margin"),
        ({"rho": 0}, "rho"),
        ({"growth": 0.9}, "growth"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"rho_max": 0.5}, "rho_max"),
        ({"lambda_min": 0}, "lambda_min"),
        ({"lambda_max": 1e-7}, "lambda_max"),
        ({"every": 0}, "every"),
        ({"rho_every": 0}, "rho_every"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_invalid_cals_arguments_raise(options, match):
    with pytest.raises(InputError, match=f"CALS: {match}"):
        CALS(**{"num_classes": 3} | options)
