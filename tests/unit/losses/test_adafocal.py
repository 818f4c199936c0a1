"""AdaFocal by hand, over several validations."""

import math

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import AdaFocal, FocalLoss
from fedlas.predictions import Predictions


def predictions(seed, samples=97, classes=4, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator)
    return Predictions(logits, torch.randint(classes, (samples,), generator=generator))


def confident(confidence, correct):
    """Predictions between two classes with these confidences."""
    confidence = torch.tensor(confidence)
    logits = torch.stack((confidence.logit(), torch.zeros(len(confidence))), dim=1)
    return Predictions(logits, (~torch.tensor(correct)).long())


def updated(gammas, found, *, rate=1.0, switch=0.2, low=-2.0, high=20.0):
    """New exponents and upper edges by the paper's rule, one bin after the other."""
    confidence, correct = found.confidence, found.correct
    order = np.argsort(confidence, kind="stable")
    bins, samples, new, edges = len(gammas), len(confidence), [], []
    for b, gamma in enumerate(gammas):
        mine = order[b * samples // bins : (b + 1) * samples // bins]
        gap = confidence[mine].astype(float).mean() - correct[mine].mean()
        gamma = gamma * math.exp(rate * gap if gamma > 0 else -rate * gap)
        if abs(gamma) < switch:
            gamma = -switch if gamma > 0 else switch
        new.append(min(max(gamma, low), high))
        edges.append(confidence[mine].max())
    return new, edges[:-1]


@pytest.mark.parametrize(
    "options",
    [{}, {"rate": 20.0}, {"switch": 0.9}, {"rate": 5.0, "low": -0.5, "high": 1.5}],
    ids=str,
)
@pytest.mark.parametrize("bins", [1, 4, 15])
def test_exponents_by_hand(options, bins):
    names = {"low": "gamma_min", "high": "gamma_max"}
    criterion = AdaFocal(
        num_bins=bins, **{names.get(key, key): value for key, value in options.items()}
    )
    gammas = [1.0] * bins
    for seed in range(6):
        found = predictions(seed)
        criterion.update_from_validation(found)
        gammas, edges = updated(gammas, found, **options)
        np.testing.assert_allclose(criterion.gammas, gammas, rtol=1e-5)
        np.testing.assert_allclose(criterion.edges, edges, rtol=1e-6)
        gammas = criterion.gammas.tolist()


def test_overconfidence_raises_and_underconfidence_lowers_on_both_sides():
    criterion = AdaFocal(num_bins=2)
    # The lower bin is always right (underconfident), the upper never (overconfident).
    found = confident([0.6, 0.7, 0.9, 0.95], [True, True, False, False])
    criterion.update_from_validation(found)
    lower, upper = criterion.gammas.tolist()
    assert lower == pytest.approx(math.exp(-0.35), rel=1e-5)
    assert upper == pytest.approx(math.exp(0.925), rel=1e-5)
    criterion.gammas.fill_(-1.0)
    criterion.update_from_validation(found)
    lower, upper = criterion.gammas.tolist()
    assert lower == pytest.approx(-math.exp(0.35), rel=1e-5)  # more inverse-focal: more confident
    assert upper == pytest.approx(-math.exp(-0.925), rel=1e-5)


def test_exponents_change_sides_at_the_switch():
    criterion = AdaFocal(num_bins=1, gamma=0.25)
    under = confident([0.6, 0.6], [True, True])
    over = confident([0.6, 0.6], [False, False])
    criterion.update_from_validation(under)
    assert criterion.gammas.item() == pytest.approx(-0.2)  # 0.25 exp(-0.4) = 0.168 < 0.2
    criterion.update_from_validation(over)
    assert criterion.gammas.item() == pytest.approx(0.2)  # -0.2 exp(-0.6) = -0.110


def test_exponents_are_clipped():
    criterion = AdaFocal(num_bins=1, rate=100.0)
    criterion.update_from_validation(confident([0.9, 0.9], [False, False]))
    assert criterion.gammas.item() == 20.0
    criterion.gammas.fill_(-1.9)
    criterion.update_from_validation(confident([0.9, 0.9], [True, True]))
    assert criterion.gammas.item() == -2.0


def test_ties_share_bins_and_empty_bins_keep_exponents():
    criterion = AdaFocal(num_bins=4)
    criterion.update_from_validation(
        confident([0.5, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9], [False] * 8)
    )
    assert criterion.edges.tolist() == pytest.approx([0.8, 0.8, 0.8])
    assert criterion.gammas.tolist() == pytest.approx(
        [math.exp((0.5 + 6 * 0.8) / 7), 1.0, 1.0, math.exp(0.9)]
    )
    few = AdaFocal(num_bins=15)
    few.update_from_validation(confident([0.6, 0.7, 0.8], [True, True, True]))
    assert (few.gammas != 1).sum() == 3
    small = AdaFocal(num_bins=2, gamma=0.1)  # below the switch, where an update would change sides
    small.update_from_validation(confident([0.8, 0.8], [True, True]))
    assert small.gammas.tolist() == pytest.approx([-0.2, 0.1])


def test_loss_by_hand():
    criterion = AdaFocal(num_bins=3, reduction="none")
    criterion.gammas.copy_(torch.tensor([4.0, -1.5, 0.7]))
    criterion.edges.copy_(torch.tensor([0.3, 0.8]))
    logits, target = (
        2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(40) % 3,
    )
    expected, used = [], set()
    for z, y in zip(logits.double().numpy(), target.tolist(), strict=True):
        p = np.exp(z[y]) / np.exp(z).sum()
        gamma = 4.0 if p <= 0.3 else -1.5 if p <= 0.8 else 0.7
        used.add(gamma)
        expected.append(-((1 - p) ** gamma if gamma > 0 else (1 + p) ** -gamma) * math.log(p))
    assert len(used) == 3
    np.testing.assert_allclose(criterion(logits, target), expected, rtol=1e-5, atol=1e-8)
    one_hot = torch.nn.functional.one_hot(target, 3).float()
    torch.testing.assert_close(criterion(logits, one_hot), criterion(logits, target))
    weight = torch.tensor([0.5, 1.0, 3.0])
    weighted = AdaFocal(num_bins=3, reduction="none", weight=weight)
    weighted.load_state_dict(criterion.state_dict() | {"weight": weight})
    torch.testing.assert_close(weighted(logits, target), criterion(logits, target) * weight[target])


def test_soft_targets_use_the_exponent_of_each_class():
    criterion = AdaFocal(num_bins=2)
    criterion.gammas.copy_(torch.tensor([3.0, -1.0]))
    p = torch.tensor([0.2, 0.8])
    value = criterion(p.log()[None], torch.tensor([[0.4, 0.6]]))
    expected = 0.4 * -math.log(0.2) * 0.8**3 + 0.6 * -math.log(0.8) * 1.8
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_before_any_validation_it_is_focal_loss():
    logits, target = torch.randn(20, 5), torch.arange(20) % 5
    torch.testing.assert_close(
        AdaFocal(gamma=2.5)(logits, target), FocalLoss(gamma=2.5)(logits, target)
    )


def test_exponent_is_detached_and_gradient_finite_at_certainty():
    criterion = AdaFocal(num_bins=2)
    for gamma in (0.2, -2.0):
        criterion.gammas.fill_(gamma)
        logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
        criterion(logits, torch.tensor([0, 0])).backward()
        assert torch.isfinite(logits.grad).all()


def test_inverse_focal_gradient_exceeds_cross_entropy_gradient():
    criterion = AdaFocal(num_bins=1)
    gradients = []
    for gamma in (-1.0, 0.0, 1.0):
        criterion.gammas.fill_(gamma)
        logits = torch.tensor([[0.5, 0.0]], requires_grad=True)
        criterion(logits, torch.tensor([0])).backward()
        gradients.append(-logits.grad[0, 0].item())
    assert gradients[0] > gradients[1] > gradients[2]
    assert gradients[1] == pytest.approx(1 / (1 + math.exp(0.5)))  # of cross-entropy


def test_buffers_stay_float32_through_half():
    criterion = AdaFocal()
    criterion.update_from_validation(predictions(0))
    before = criterion.edges.clone()
    assert criterion.half().edges.equal(before)
    assert criterion.gammas.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_bins": 0}, "num_bins"),
        ({"rate": -1.0}, "rate"),
        ({"switch": -0.1}, "switch"),
        ({"gamma_min": 0.5}, "gamma_min"),
        ({"gamma_max": -0.5}, "gamma_max"),
        ({"gamma": 21.0}, "gamma must"),
        ({"gamma": -0.5, "gamma_min": 0.0}, "gamma must"),
    ],
)
def test_invalid_adafocal_arguments_raise(options, match):
    with pytest.raises(InputError, match=f"AdaFocal: {match}"):
        AdaFocal(**options)
