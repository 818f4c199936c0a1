"""The von Mises-Fisher loss against sums over the sphere, and its state; its normalizer against scipy and integrals."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, special

import fedlas
from fedlas.errors import InputError
from fedlas.losses import VMF
from fedlas.losses.vmf import expected_cross_entropy_bound, log_mgf, resultant_length_ratio


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
def test_mean_of_random_embedding_equals_features(concentration):
    features = problem()[2]
    for h, (_, _, radius, mean) in zip(
        features, expectations(features, concentration), strict=True
    ):
        torch.testing.assert_close(radius * mean, h)
        square = (concentration * h.norm()).square()
        assert 1 / (concentration * resultant_length_ratio(square, dim=3).item()) == pytest.approx(
            radius, rel=3e-6
        )


@pytest.mark.parametrize("concentration", [0.3, 2.0, 10.0])
def test_it_bounds_the_expected_cross_entropy(concentration):
    logits, target, features, weight, bias = problem()
    nll, excess = expected_cross_entropy_bound(
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
            return resultant_length_ratio(
                torch.tensor([square], dtype=torch.float64), dim=dim
            ).item()

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
    nll, excess = expected_cross_entropy_bound(
        logits, target, bias=bias, features=features, head_weight=weight, concentration=1.0
    )
    torch.testing.assert_close(
        criterion(logits, target, features=features, head_weight=weight), nll + excess
    )
    masked = target.clone()
    masked[2] = -100
    values = criterion(logits, masked, features=features, head_weight=weight)
    torch.testing.assert_close(values[[0, 1, 3]], (nll + excess)[[0, 1, 3]])


def test_gradients_match_reference_formula():
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


def test_short_features_have_larger_loss():
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
    assert (kappa * resultant_length_ratio(kappa.square(), dim=64)).item() == pytest.approx(
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
def test_unusable_norms_do_not_set_concentration(bad):
    logits, target, features, weight, _ = problem(dtype=torch.float32)
    criterion = VMF()
    criterion(logits, target, features=torch.full_like(features, bad), head_weight=weight)
    assert criterion.concentration == 0
    criterion(logits, target, features=features, head_weight=weight)
    assert criterion.concentration > 0


def test_concentration_is_set_only_in_training():
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
def test_invalid_vmf_arguments_raise(options):
    with pytest.raises(InputError, match=f"VMF: {next(iter(options))}"):
        VMF(**options)


DIMS = [1, 2, 3, 4, 5, 8, 31, 32, 33, 64, 81, 82, 128, 501, 502, 512, 2048]
LENGTHS = [1e-3, 0.1, 1.0, 3.0, 10.0, 31.0, 100.0, 1000.0, 1e5]


def squares(lengths, dtype=torch.float64):
    return torch.tensor(lengths, dtype=torch.float64).square().to(dtype)


def bessel(order, length):
    """``log I_order(length)`` by scipy, NaN where it leaves the range of a double."""
    scaled = special.ive(order, length)
    return np.where(scaled > 1e-290, np.log(np.maximum(scaled, 1e-300)) + length, np.nan)


@pytest.mark.parametrize("dim", DIMS)
def test_scipys_bessel_function(dim):
    order, lengths = dim / 2 - 1, np.array(LENGTHS)
    expected = special.gammaln(order + 1) + order * np.log(2 / lengths) + bessel(order, lengths)
    known = np.isfinite(expected)
    assert known.sum() >= (2 if dim == 2048 else 4)
    found = log_mgf(squares(LENGTHS), dim=dim).numpy()
    # 2 log(length) cancels in the expected value itself where both are small.
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-9, atol=2e-7)


@pytest.mark.parametrize("dim", DIMS)
def test_ratio_of_scipys_bessel_functions(dim):
    order, lengths = dim / 2 - 1, np.array(LENGTHS)
    expected = np.exp(bessel(order + 1, lengths) - bessel(order, lengths)) / lengths
    # beyond, the difference of two large logarithms is not exact
    known = np.isfinite(expected) & (lengths < 1e5)
    assert known.sum() >= (1 if dim == 2048 else 3)
    found = resultant_length_ratio(squares(LENGTHS), dim=dim).numpy()
    np.testing.assert_allclose(found[known], expected[known], rtol=4e-7)


@pytest.mark.parametrize("dim", [2, 3, 10, 64, 512, 2048])
@pytest.mark.parametrize("relative", [0.01, 0.3, 1.0, 4.0])
def test_integral_over_the_sphere(dim, relative):
    """``E exp(a t)`` and the mean of t, where t has density proportional to ``(1 - t^2)^((D - 3) / 2)``."""
    length = relative * dim

    def exponent(angle):  # t = cos(angle)
        return length * math.cos(angle) + (dim - 2) * math.log(math.sin(angle))

    peak = max(exponent(angle) for angle in np.linspace(1e-3, math.pi - 1e-3, 5000))
    where = {"limit": 500, "points": np.linspace(1e-9, math.pi - 1e-9, 40)[1:-1]}

    def integral(function):
        return integrate.quad(function, 1e-9, math.pi - 1e-9, epsrel=1e-11, **where)[0]

    above = integral(lambda angle: math.exp(exponent(angle) - peak))
    mean = integral(lambda angle: math.cos(angle) * math.exp(exponent(angle) - peak)) / above
    # integral of sin^(D - 2)
    whole = math.log(math.pi) / 2 + math.lgamma((dim - 1) / 2) - math.lgamma(dim / 2)
    square = squares([length])
    assert log_mgf(square, dim=dim).item() == pytest.approx(
        math.log(above) + peak - whole, rel=1e-8, abs=2e-7
    )
    assert resultant_length_ratio(square, dim=dim).item() * length == pytest.approx(mean, rel=5e-7)


def test_closed_forms():
    a = torch.tensor([0.01, 0.5, 2.0, 20.0, 300.0], dtype=torch.float64)
    torch.testing.assert_close(log_mgf(a**2, dim=1), torch.log(torch.cosh(a)), rtol=1e-8, atol=2e-7)
    torch.testing.assert_close(
        log_mgf(a**2, dim=3), torch.log(torch.sinh(a) / a), rtol=1e-8, atol=2e-7
    )
    torch.testing.assert_close(
        resultant_length_ratio(a**2, dim=1) * a, torch.tanh(a), rtol=5e-7, atol=0
    )
    torch.testing.assert_close(
        resultant_length_ratio(a**2, dim=3) * a, 1 / torch.tanh(a) - 1 / a, rtol=2e-6, atol=1e-12
    )


@pytest.mark.parametrize("dim", [42, 43, 64, 512])
def test_rate_equals_twice_log_mgf_slope(dim):
    square = squares([0.0, 1.0, 0.3 * dim, 1.0 * dim, 9.0 * dim]).requires_grad_()
    (slope,) = torch.autograd.grad(log_mgf(square, dim=dim).sum(), square)
    torch.testing.assert_close(
        resultant_length_ratio(square, dim=dim), 2 * slope, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_zero(dim, dtype):
    zero = torch.zeros(1, dtype=dtype, requires_grad=True)
    value = log_mgf(zero, dim=dim)
    assert value.dtype == dtype
    assert abs(value.item()) < 2e-7
    (slope,) = torch.autograd.grad(value, zero)
    assert slope.item() == pytest.approx(1 / (2 * dim), rel=5e-7)


@pytest.mark.parametrize("dim", DIMS)
def test_float32_has_the_accuracy_of_float32(dim):
    lengths = [0.0, *LENGTHS]
    single, double = (
        log_mgf(squares(lengths, dtype), dim=dim) for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-6)
    single, double = (
        resultant_length_ratio(squares(lengths, dtype), dim=dim)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=0)


@pytest.mark.parametrize("dim", DIMS)
def test_rate_falls_from_one_over_the_dimension(dim):
    rate = resultant_length_ratio(torch.logspace(-6, 8, 200, dtype=torch.float64), dim=dim)
    assert (rate > 0).all()
    assert (rate <= 1 / dim * (1 + 2e-6)).all()
    assert (rate.diff() < 1e-9 / dim).all()
