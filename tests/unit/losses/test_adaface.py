"""AdaFace by hand, over several batches of running moments."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import AdaFace


def batch(seed, samples=9, classes=4, dim=6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=generator) * (
        1 + 3 * torch.rand(samples, 1, generator=generator)
    )
    weight, bias = (
        torch.randn(classes, dim, generator=generator),
        torch.randn(classes, generator=generator),
    )
    target = torch.randint(classes, (samples,), generator=generator)
    return features @ weight.T + bias, target, features, weight


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def by_hand(logits, target, features, weight, mean, std, *, margin=0.4, spread=0.333, scale=None):
    h_all, w_all, z_all = (
        features.double().numpy(),
        weight.double().numpy(),
        logits.double().numpy(),
    )
    values = []
    for h, z, y in zip(h_all, z_all, target.tolist(), strict=True):
        q = min(max((np.linalg.norm(h) - mean) / (std + 1e-3) * spread, -1), 1)
        c = min(max(cosine(w_all[y], h), -1 + 1e-3), 1 - 1e-3)
        theta = min(max(math.acos(c) - margin * q, 1e-3), math.pi - 1e-3)
        change = math.cos(theta) - (margin * q + margin) - c
        if scale is None:
            moved = z.copy()
            moved[y] += np.linalg.norm(w_all[y]) * np.linalg.norm(h) * change
        else:
            moved = scale * np.array([cosine(w, h) for w in w_all])
            moved[y] += scale * change
        values.append(math.log(np.exp(moved - moved.max()).sum()) + moved.max() - moved[y])
    return values


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 16.0}, {"margin": 0.7, "spread": 1.0}, {"init": (20.0, 100.0)}],
    ids=str,
)
@pytest.mark.parametrize("momentum", [0.01, 0.6])
def test_several_batches_by_hand(options, momentum):
    criterion = AdaFace(momentum=momentum, reduction="none", **options)
    init = options.get("init")
    mean, std = init or (None, None)
    shown = {key: value for key, value in options.items() if key != "init"}
    for seed in range(4):
        logits, target, features, weight = batch(seed)
        norms = features.double().norm(dim=1)
        new = norms.mean().item(), norms.std().item()
        mean, std = (
            new
            if mean is None
            else (
                momentum * new[0] + (1 - momentum) * mean,
                momentum * new[1] + (1 - momentum) * std,
            )
        )
        found = criterion(logits, target, features=features, head_weight=weight)
        np.testing.assert_allclose(
            found, by_hand(logits, target, features, weight, mean, std, **shown), rtol=2e-4
        )
    assert criterion.indicator.mean.item() == pytest.approx(mean, rel=1e-5)
    assert criterion.indicator.std.item() == pytest.approx(std, rel=1e-5)


def loss_at(angle, quality):
    """The loss of one sample whose features, of length 2, are at an angle to the weight of its class.

    The other class has a weight of zeros. A quality of -1, 0 or 1 is that of features shorter than, as long as, or
    longer than the mean.
    """
    criterion = AdaFace(margin=0.4, spread=1.0, init=(2.0 - quality, 0.999)).eval()
    criterion.indicator.num_batches_tracked.fill_(1)
    features = 2 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([0])
    value = criterion(features @ weight.T, target, features=features, head_weight=weight)
    return value.item()


def test_the_margins_at_the_ends_of_the_quality():
    for quality, expected in (
        (-1.0, math.cos(0.9 + 0.4)),
        (0.0, math.cos(0.9) - 0.4),
        (1.0, math.cos(0.9 - 0.4) - 0.8),
    ):
        value = loss_at(0.9, quality)  # the target's logit is 2 cos, the other one 0
        assert value == pytest.approx(math.log1p(math.exp(-2 * expected)), rel=1e-5)


def test_margin_stresses_hard_samples_for_long_features():
    """Quality-adaptive: with long features hard samples get larger gradients, with short ones easy samples."""

    def slope(angle, quality):
        """Of the target's moved logit for the angle, from values of the loss."""
        moved = [-math.log(math.expm1(loss_at(angle + step, quality))) for step in (-1e-3, 1e-3)]
        return (moved[0] - moved[1]) / math.sin(angle)  # for the cosine

    assert slope(1.4, 1.0) > slope(0.6, 1.0)
    assert slope(1.4, -1.0) < slope(0.6, -1.0)


def test_only_the_targets_logit_changes():
    logits, target, features, weight = batch(0)
    criterion = AdaFace(reduction="none")
    value = criterion(logits, target, features=features, head_weight=weight)
    others = torch.logsumexp(logits.masked_fill(F.one_hot(target, 4).bool(), -torch.inf), dim=1)
    moved = others - torch.log(torch.expm1(value))  # -log sigmoid(z_y' - others) = value
    product = weight.norm(dim=1)[target] * features.norm(dim=1)
    chosen = logits.gather(1, target[:, None]).squeeze(1)
    assert ((moved - chosen) / product <= 0.4).all()  # the angular part is at most one margin
    assert (value > F.cross_entropy(logits, target, reduction="none")).any()


def test_no_margin_is_cross_entropy():
    logits, target, features, weight = batch(1)
    value = AdaFace(margin=0.0)(logits, target, features=features, head_weight=weight)
    torch.testing.assert_close(value, F.cross_entropy(logits, target))


def test_scaled_form_without_margin_equals_cosine_cross_entropy():
    _, target, features, weight = batch(1)
    cosines = F.normalize(features, dim=1) @ F.normalize(weight, dim=1).T
    value = AdaFace(margin=0.0, scale=16.0)(
        torch.zeros(9, 4), target, features=features, head_weight=weight
    )
    torch.testing.assert_close(value, F.cross_entropy(16 * cosines, target))


def test_gradient_flows_through_angle_but_not_quality():
    logits, target, features, weight = batch(2)
    features, weight = features.double().requires_grad_(), weight.double().requires_grad_()
    criterion = AdaFace().eval()
    criterion.indicator.mean.fill_(5.0)
    criterion.indicator.num_batches_tracked.fill_(1)
    quality = criterion._sample_quality
    fixed = []

    def frozen(given):
        fixed.append(quality(given)) if not fixed else None
        return fixed[0]

    criterion._sample_quality = frozen  # with a fixed quality, the gradient is that of the formula

    def loss(h, w):
        return criterion(logits.double(), target, features=h, head_weight=w)

    assert torch.autograd.gradcheck(loss, (features, weight))
    plain = AdaFace().eval()
    plain.load_state_dict(criterion.state_dict())
    ours = torch.autograd.grad(
        plain(logits.double(), target, features=features, head_weight=weight), features
    )
    theirs = torch.autograd.grad(loss(features, weight), features)
    torch.testing.assert_close(ours, theirs)


def test_zero_features_and_weights_have_finite_gradients():
    features, weight = torch.zeros(3, 4, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    for scale in (None, 8.0):
        criterion = AdaFace(scale=scale)
        value = criterion(
            torch.randn(3, 2), torch.tensor([0, 1, 0]), features=features, head_weight=weight
        )
        assert all(
            torch.isfinite(g).all()
            for g in torch.autograd.grad(value, (features, weight), allow_unused=True)
        )


def test_the_content_of_ignored_samples_has_no_effect():
    logits, target, features, weight = batch(3)
    target[::3] = -100
    features[::3] = float("nan")
    weight.requires_grad_()
    criterion, without = AdaFace(), AdaFace()
    value = criterion(logits, target, features=features, head_weight=weight)
    value.backward()
    assert torch.isfinite(weight.grad).all()
    kept = target != -100
    torch.testing.assert_close(
        without(logits[kept], target[kept], features=features[kept], head_weight=weight), value
    )
    torch.testing.assert_close(criterion.indicator.state_dict(), without.indicator.state_dict())


def test_dense_inputs_have_one_quality_an_image():
    _, _, features, weight = batch(4, samples=2)
    logits, target = torch.randn(2, 4, 3), torch.tensor([[0, 1, 2], [3, -100, 0]])
    values = AdaFace(reduction="none")(logits, target, features=features, head_weight=weight)
    norms = features.double().norm(dim=1)
    for i in range(2):
        for j in range(3):
            if target[i, j] != -100:
                (expected,) = by_hand(
                    logits[i, :, j][None],
                    target[i, j][None],
                    features[i][None],
                    weight,
                    norms.mean().item(),
                    norms.std().item(),
                )
                assert values[i, j].item() == pytest.approx(expected, rel=1e-4)


def test_the_first_batch_needs_two_samples():
    logits, target, features, weight = batch(0, samples=1)
    criterion = AdaFace()
    with pytest.raises(InputError, match="at least two samples"):
        criterion(logits, target, features=features, head_weight=weight)
    assert criterion.indicator.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": -0.1}, "AdaFace: margin"),
        ({"spread": -1}, "AdaFace: spread"),
        ({"scale": 0}, "AdaFace: scale"),
        ({"momentum": 0}, "momentum"),
        ({"init": (1.0,)}, "init"),
    ],
)
def test_invalid_adaface_arguments_raise(options, match):
    with pytest.raises(InputError, match=match):
        AdaFace(**options)
