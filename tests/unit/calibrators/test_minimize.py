"""The minimizers behind the calibrators."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.calibrators._fit.minimize import fit_mixture_weights, golden_section, minimize


class Function:
    """A convex problem from a differentiable function; curvature by autograd, no preconditioner."""

    def __init__(self, function):
        self.function = function
        self.values = []

    def evaluate(self, point):
        self.at = point.clone()
        with torch.enable_grad():
            variable = point.clone().requires_grad_()
            value = self.function(variable)
            (gradient,) = torch.autograd.grad(value, variable)
        self.values.append(float(value))
        return value.detach(), gradient

    def curvature(self, direction):
        with torch.enable_grad():
            return torch.autograd.functional.hvp(self.function, self.at, direction)[1]

    def precondition(self, vector):
        return vector


def quadratic(size=20, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    hessian, slope = (
        torch.from_numpy(root @ root.T + 0.1 * np.eye(size)),
        torch.from_numpy(rng.normal(size=size)),
    )
    return Function(lambda x: 0.5 * x @ hessian @ x - slope @ x), torch.linalg.solve(hessian, slope)


def test_a_quadratic_function():
    problem, solution = quadratic()
    found = minimize(problem, torch.zeros(20, dtype=torch.float64))
    assert found.converged
    assert found.gradient_norm <= 1e-8
    torch.testing.assert_close(found.point, solution, rtol=1e-6, atol=1e-7)
    assert float(found.value) == pytest.approx(problem.function(solution).item(), abs=1e-12)


@pytest.mark.parametrize("start", [-30.0, -3.0, 0.4, 3.0, 30.0])
def test_full_newton_steps_would_run_away(start):
    # For log cosh, Newton's step is sinh(2x)/2: from |x| > 1.09 it overshoots further each time.
    problem = Function(lambda x: torch.logaddexp(x - 1, 1 - x).sum() + 1e-6 * (x**2).sum())
    found = minimize(problem, torch.full((3,), start, dtype=torch.float64))
    assert found.converged
    torch.testing.assert_close(found.point, torch.ones(3).double(), rtol=0, atol=1e-4)


def test_against_scipy():
    import scipy.optimize

    rng = np.random.default_rng(1)
    design, label = rng.normal(size=(200, 6)) * [1, 10, 0.1, 1, 3, 1], rng.integers(0, 2, 200)

    def loss(x):
        scores = torch.from_numpy(design) @ torch.as_tensor(x)
        return (torch.nn.functional.softplus(scores) - torch.from_numpy(label) * scores).mean()

    found = minimize(Function(loss), torch.zeros(6, dtype=torch.float64))
    best = scipy.optimize.minimize(
        lambda x: float(loss(x)), np.zeros(6), method="BFGS", options={"gtol": 1e-9}
    )
    assert found.converged
    assert found.value <= best.fun + 1e-12
    np.testing.assert_allclose(found.point.numpy(), best.x, rtol=1e-3, atol=1e-4)


def test_the_start_may_be_the_minimum():
    problem, solution = quadratic()
    found = minimize(problem, solution)
    assert found.converged
    assert len(problem.values) == 1
    assert torch.equal(found.point, solution)


def test_no_minimum_is_no_convergence():
    found = minimize(
        Function(lambda x: (-x).exp().sum()), torch.zeros(1, dtype=torch.float64), tolerance=1e-60
    )
    assert not found.converged
    assert found.gradient_norm > 1e-60


def test_a_tolerance_below_rounding_ends_all_the_same():
    problem, solution = quadratic()
    found = minimize(problem, torch.zeros(20, dtype=torch.float64), tolerance=0.0)
    assert not found.converged
    torch.testing.assert_close(found.point, solution, rtol=1e-9, atol=1e-10)


def test_few_steps():
    problem, _ = quadratic()
    minimize(problem, torch.zeros(20, dtype=torch.float64))
    assert len(problem.values) <= 12


@pytest.mark.parametrize("at", [-1.0, 0.3, 2.0])
def test_golden_section_evaluates_each_point_once(at):
    tried = []

    def function(point):
        tried.append(point)
        return (point - at) ** 2

    assert golden_section(function, -1.0, 2.0, 1e-6) == pytest.approx(at, abs=1e-6)
    assert len(set(tried)) == len(tried) < 40


def test_a_narrow_bracket_needs_no_evaluation():
    assert golden_section(None, 1.0, 1.0, 0.1) == 1.0


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 4))
def test_em_weights_are_optimal(seed, samples, parts):
    random = torch.Generator().manual_seed(seed)
    probs = (
        torch.rand(samples, parts, generator=random, dtype=torch.float64) ** (1 + seed % 8) + 1e-12
    )
    counts = torch.randint(1, 4, (samples,), generator=random).double()
    prior = torch.tensor([2.0, *[0.0] * (parts - 1)], dtype=torch.float64) * (seed % 2)

    def value(weights):
        return float(counts @ (probs @ weights).log() + torch.xlogy(prior, weights).sum())

    weights, converged = fit_mixture_weights(probs, counts, prior)
    assert converged
    assert bool((weights >= 0).all())
    assert float(weights.sum()) == pytest.approx(1)
    others = torch.distributions.Dirichlet(torch.ones(parts, dtype=torch.float64)).sample((50,))
    assert max(map(value, [*others, *torch.eye(parts).double()])) <= value(weights) + 0.01
