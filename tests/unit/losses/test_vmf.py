"""The von Mises-Fisher loss against sums over the sphere, and its state."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fedlas
from fedlas.errors import InputError
from fedlas.losses import VMF
from fedlas.losses.vmf import log_mgf, resultant_rate, uncertain_cross_entropy


def problem(samples=6, classes=4, dim=3, seed=0, dtype=torch.float64):
    """A linear head, some features and their logits."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=generator, dtype=dtype)
    weight = torch.randn(classes, dim, generator=generator, dtype=dtype)
    bias = torch.randn(classes, generator=generator, dtype=dtype)
    target = torch.randint(classes, (samples,), generator=generator)
    return features @ weight.T + bias, target, features, weight, bias


def sphere(steps=400):
    """Points of the unit sphere in three dimensions, and the area of each."""
    heights = torch.tensor(np.polynomial.legendre.leggauss(steps)[0])
    weights = torch.tensor(np.polynomial.legendre.leggauss(steps)[1])
    around = 2 * math.pi * torch.arange(steps, dtype=torch.float64) / steps
    flat = (1 - heights**2).sqrt()[:, None]
    points = torch.stack(
        (flat * around.cos(), flat * around.sin(), heights[:, None].expand(-1, steps)), dim=-1
    )
    return points.reshape(-1, 3), (weights[:, None] * (2 * math.pi / steps)).expand(
        -1, steps
    ).reshape(-1)


def expectations(features, concentration):
    """Points, their probabilities for each sample, and the radius s, all by sums over the sphere."""
    points, area = sphere()
    for h in features:
        density = torch.exp(concentration * (points @ h)) * area
        probability = density / density.sum()
        mean = probability @ points
        yield points, probability, (h.norm() / mean.norm()).item(), mean


@pytest.mark.parametrize("concentration", [0.3, 2.0, 10.0])
def test_the_mean_of_the_random_embedding_is_the_features(concentration):
    features = problem()[2]
    for h, (_, _, radius, mean) in zip(
        features, expectations(features, concentration), strict=True
    ):
        torch.testing.assert_close(radius * mean, h)
        square = (concentration * h.norm()).square()
        assert 1 / (concentration * resultant_rate(square, dim=3).item()) == pytest.approx(
            radius, rel=3e-6
        )


@pytest.mark.parametrize("concentration", [0.3, 2.0, 10.0])
def test_it_bounds_the_expected_cross_entropy(concentration):
    logits, target, features, weight, bias = problem()
    nll, excess = uncertain_cross_entropy(
        logits,
        target,
        bias=bias,
        features=features,
        head_weight=weight,
        concentration=concentration,
    )
    for i, (points, probability, radius, _) in enumerate(expectations(features, concentration)):
        y = target[i]
        # The target's expected score is exact ...
        scores = torch.log(probability @ torch.exp(radius * points @ weight.T))
        assert excess[i].item() == pytest.approx(
            (scores[y] - weight[y] @ features[i]).item(), rel=1e-4, abs=1e-6
        )
        # ... all classes' together are bounded by the tangent ...
        partition = torch.logsumexp(scores + bias, dim=0) - logits[i, y]
        assert nll[i] + excess[i] >= partition - 1e-6
        # ... and that bounds the expected cross-entropy, which is above that of the mean.
        each = F.cross_entropy(
            radius * points @ weight.T + bias, y.expand(len(points)), reduction="none"
        )
        assert partition >= probability @ each >= F.cross_entropy(logits[i], y)


def test_certainty_is_cross_entropy():
    logits, target, features, weight, _ = problem(dim=8)
    criterion = VMF(concentration=1e6, reduction="none")
    expected = F.cross_entropy(logits, target, reduction="none")
    found = criterion(logits, target, features=features, head_weight=weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    less = VMF(concentration=1.0, reduction="none")(
        logits, target, features=features, head_weight=weight
    )
    assert (less > expected).all()


@pytest.mark.parametrize("dim", [3, 40])
def test_by_hand(dim):
    logits, target, features, weight, bias = problem(dim=dim)
    found = VMF(concentration=2.0, reduction="none")(
        logits, target, features=features, head_weight=weight
    )
    for i in range(len(target)):
        h, y = features[i], int(target[i])
        kappa = 2.0 * h.norm().item()

        def rate(square):
            return resultant_rate(torch.tensor([square], dtype=torch.float64), dim=dim).item()

        def mgf(square):
            return log_mgf(torch.tensor([square], dtype=torch.float64), dim=dim).item()

        s = h.norm().item() / (rate(kappa**2) * kappa)
        lengths = [(kappa * h / h.norm() + s * w).square().sum().item() for w in weight]
        tangents = [
            mgf(lengths[y]) + rate(lengths[y]) / 2 * (length - lengths[y]) - mgf(kappa**2)
            for length in lengths
        ]
        expected = (
            math.log(sum(math.exp(t + b) for t, b in zip(tangents, bias.tolist(), strict=True)))
            - logits[i, y]
        )
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_bias_is_computed_from_the_batch():
    """The same scores, with or without a bias that moves all classes alike, and one that does not."""
    logits, target, features, weight, bias = problem()
    criterion = VMF(concentration=1.0, reduction="none")
    nll, excess = uncertain_cross_entropy(
        logits, target, bias=bias, features=features, head_weight=weight, concentration=1.0
    )
    torch.testing.assert_close(
        criterion(logits, target, features=features, head_weight=weight), nll + excess
    )
    masked = target.clone()
    masked[2] = -100
    values = criterion(logits, masked, features=features, head_weight=weight)
    torch.testing.assert_close(values[[0, 1, 3]], (nll + excess)[[0, 1, 3]])


def test_gradients_of_features_weight_and_logits_are_those_of_one_formula():
    """Through the whole head: finite differences of weight, bias and features."""
    _, target, features, weight, bias = problem(samples=4)
    criterion = VMF(concentration=1.5)

    def loss(h, w, b):
        return criterion(h @ w.T + b, target, features=h, head_weight=w)

    inputs = [tensor.clone().requires_grad_() for tensor in (features, weight, bias)]
    assert torch.autograd.gradcheck(loss, inputs)


def test_zero_features_have_a_finite_gradient():
    features = torch.zeros(3, 8, requires_grad=True)
    weight = torch.randn(4, 8, requires_grad=True)
    VMF(concentration=1.0)(
        features @ weight.T, torch.tensor([0, 1, 2]), features=features, head_weight=weight
    ).backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_short_features_cost_more_than_long_ones_of_the_same_logits():
    """The same logits, from short features under large weights or from long ones under small weights."""
    logits, target, features, weight, _ = problem(dim=16, samples=20)
    losses = [
        VMF(concentration=1.0)(
            logits, target, features=features * size, head_weight=weight / size
        ).item()
        for size in (0.5, 1.0, 4.0, 100.0)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] + 0.1


# The concentration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.4, 0.7])
def test_the_first_batch_sets_the_concentration(confidence):
    logits, target, features, weight, _ = problem(samples=30, dim=64, dtype=torch.float32)
    criterion = VMF(confidence=confidence)
    criterion(logits, target, features=features, head_weight=weight)
    kappa = criterion.concentration * features.norm(dim=1).mean()
    assert (kappa * resultant_rate(kappa.square(), dim=64)).item() == pytest.approx(
        confidence, rel=0.02
    )
    first = criterion.concentration.clone()
    criterion(logits, target, features=10 * features, head_weight=weight)
    assert criterion.concentration.equal(first)


def test_ignored_samples_do_not_touch_the_concentration():
    logits, target, features, weight, _ = problem(samples=8, dtype=torch.float32)
    masked, without = VMF(), VMF()
    target[::2] = -100
    poisoned = features.clone()
    poisoned[::2] = float("nan")
    weight.requires_grad_()
    value = masked(logits, target, features=poisoned, head_weight=weight)
    value.backward()
    assert torch.isfinite(weight.grad).all()
    kept = target != -100
    torch.testing.assert_close(
        without(logits[kept], target[kept], features=features[kept], head_weight=weight), value
    )
    torch.testing.assert_close(masked.concentration, without.concentration)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_batch_without_usable_norms_does_not_set_it(bad):
    logits, target, features, weight, _ = problem(dtype=torch.float32)
    criterion = VMF()
    criterion(logits, target, features=torch.full_like(features, bad), head_weight=weight)
    assert criterion.concentration == 0
    criterion(logits, target, features=features, head_weight=weight)
    assert criterion.concentration > 0


def test_it_is_not_set_in_eval_or_without_gradients_and_a_given_one_never_moves():
    logits, target, features, weight, _ = problem(dtype=torch.float32)
    criterion = VMF()
    with torch.no_grad():
        criterion(logits, target, features=features, head_weight=weight)
    assert torch.isfinite(criterion.eval()(logits, target, features=features, head_weight=weight))
    assert criterion.concentration == 0
    given = VMF(concentration=3.0)
    given(logits, target, features=features, head_weight=weight)
    assert given.half().concentration.item() == 3.0
    assert given.concentration.dtype == torch.float32


def test_through_the_objective():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    objective = fedlas.Objective(model, VMF(), head="2")
    loss, _ = objective(torch.randn(10, 6), torch.arange(10) % 3)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "options", [{"confidence": 0}, {"confidence": 1}, {"confidence": 1.5}, {"concentration": 0}]
)
def test_nonsense(options):
    with pytest.raises(InputError, match=f"VMF: {next(iter(options))}"):
        VMF(**options)
