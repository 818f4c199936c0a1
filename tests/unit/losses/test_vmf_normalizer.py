"""The normalizer against scipy's Bessel functions, closed forms and integrals over the sphere."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from fedlas.losses.vmf import log_mgf, resultant_rate

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
    found = resultant_rate(squares(LENGTHS), dim=dim).numpy()
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
    assert resultant_rate(square, dim=dim).item() * length == pytest.approx(mean, rel=5e-7)


def test_closed_forms():
    a = torch.tensor([0.01, 0.5, 2.0, 20.0, 300.0], dtype=torch.float64)
    torch.testing.assert_close(log_mgf(a**2, dim=1), torch.log(torch.cosh(a)), rtol=1e-8, atol=2e-7)
    torch.testing.assert_close(
        log_mgf(a**2, dim=3), torch.log(torch.sinh(a) / a), rtol=1e-8, atol=2e-7
    )
    torch.testing.assert_close(resultant_rate(a**2, dim=1) * a, torch.tanh(a), rtol=5e-7, atol=0)
    torch.testing.assert_close(
        resultant_rate(a**2, dim=3) * a, 1 / torch.tanh(a) - 1 / a, rtol=2e-6, atol=1e-12
    )


@pytest.mark.parametrize("dim", [42, 43, 64, 512])
def test_the_rate_is_exactly_twice_the_slope_of_the_expansion(dim):
    square = squares([0.0, 1.0, 0.3 * dim, 1.0 * dim, 9.0 * dim]).requires_grad_()
    (slope,) = torch.autograd.grad(log_mgf(square, dim=dim).sum(), square)
    torch.testing.assert_close(resultant_rate(square, dim=dim), 2 * slope, rtol=1e-12, atol=0)


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
        resultant_rate(squares(lengths, dtype), dim=dim) for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=0)


@pytest.mark.parametrize("dim", DIMS)
def test_rate_falls_from_one_over_the_dimension(dim):
    rate = resultant_rate(torch.logspace(-6, 8, 200, dtype=torch.float64), dim=dim)
    assert (rate > 0).all()
    assert (rate <= 1 / dim * (1 + 2e-6)).all()
    assert (rate.diff() < 1e-9 / dim).all()
