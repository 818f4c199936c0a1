import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators._fit import rowwise
from fedlas.calibrators._fit.minimize import minimize
from fedlas.calibrators._fit.rowwise import total_nll
from fedlas.calibrators._fit.softmax_regression import (
    FREEDOM,
    RIDGE,
    AffineMap,
    Penalties,
    SoftmaxRegression,
)


def sample(samples=300, classes=3, offset=0.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    target = torch.multinomial(truth.softmax(1), 1, generator=random).squeeze(1)
    return truth * torch.linspace(1, 3, classes).double() + truth.roll(
        1, dims=1
    ) * 0.4 + offset, target


def objective(
    inputs, target, weight, bias, *, scale, off_diagonal=0.0, intercept=0.0, freedom=FREEDOM
):
    """What the class says it is, written down term by term for a full matrix or a diagonal."""
    full = torch.diag(weight) if weight.ndim == 1 else weight
    nll = torch.nn.functional.cross_entropy(inputs @ full.T + bias, target)
    off = full - torch.diag(full.diagonal())
    eye = torch.eye(len(bias)).double()
    mean, deviation = inputs.mean(0), inputs.std(0, correction=0)
    away, away_c = full - scale * eye, bias + full @ mean - scale * mean
    held = RIDGE * ((away * deviation).square().sum() + away_c.square().sum())
    held = (
        held
        + (away.diagonal() / (freedom * scale)).square().sum()
        + (away_c / (3 * freedom)).square().sum()
    )
    return (
        nll
        + off_diagonal * off.square().sum()
        + intercept * bias.square().sum()
        + 0.5 / len(target) * held
    )


def regression(inputs, target, *, off_diagonal=0.0, intercept=0.0, freedom=FREEDOM, **options):
    """The problem with a penalty of each weight and intercept, which ODIR divides by their number."""
    classes = inputs.shape[1]
    penalties = Penalties(off_diagonal * classes * (classes - 1), intercept * classes, freedom)
    return SoftmaxRegression(inputs, target, None, penalties, **options)


CASES = [
    {"diagonal": True, "scale": 0.5},
    {"diagonal": False, "scale": 0.5},
    {"diagonal": False, "scale": 0.7, "off_diagonal": 0.01, "intercept": 0.3},
    {"diagonal": False, "scale": 0.7, "off_diagonal": 0.01, "intercept": 0.3, "freedom": 0.2},
    {"diagonal": True, "scale": 0.5, "freedom": 0.2},
]
each_case = pytest.mark.parametrize("case", CASES)


def problem_and_objective(case, **kwargs):
    inputs, target = sample(**kwargs)
    problem = regression(inputs, target, **case)
    penalties = {name: value for name, value in case.items() if name != "diagonal"}

    def value(point):
        fitted = problem.to_map(point, converged=True)
        return objective(inputs, target, fitted.weight, fitted.bias, **penalties)

    return problem, value


@each_case
@pytest.mark.parametrize("offset", [0.0, 20.0])
@pytest.mark.parametrize("chunk", [10, 2**18])
def test_value_gradient_and_curvature_against_autograd(case, offset, chunk, monkeypatch):
    monkeypatch.setattr(rowwise, "_CHUNK_ELEMENTS", chunk)
    problem, value = problem_and_objective(case, offset=offset)
    random = torch.Generator().manual_seed(3)
    point = problem.start + 0.3 * torch.randn(
        len(problem.start), generator=random, dtype=torch.float64
    )
    direction = torch.randn(len(point), generator=random, dtype=torch.float64)
    got, gradient = problem.evaluate(point)
    wanted, product = torch.autograd.functional.hvp(value, point, direction)
    assert float(got) == pytest.approx(float(wanted), rel=1e-12)
    torch.testing.assert_close(
        gradient, torch.autograd.functional.jacobian(value, point), rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(problem.curvature(direction), product, rtol=1e-9, atol=1e-11)
    hessian = torch.autograd.functional.hessian(value, point)
    torch.testing.assert_close(problem.diagonal, hessian.diagonal())
    inverse = problem.precondition(product)
    torch.testing.assert_close(
        inverse, direction if case["diagonal"] else product / hessian.diagonal()
    )


@each_case
def test_the_minimum_against_scipy(case):
    import scipy.optimize

    problem, value = problem_and_objective(case)
    best = scipy.optimize.minimize(
        lambda x: float(value(torch.from_numpy(x))),
        problem.start.numpy(),
        jac=lambda x: torch.autograd.functional.jacobian(value, torch.from_numpy(x)).numpy(),
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 2000},
    )
    found = minimize(problem, problem.start)
    assert found.converged
    assert found.value <= best.fun + 1e-12
    # Where only the hold decides, the value is flat and scipy's point less exact.
    one, two = (problem.to_map(p, converged=True) for p in (found.point, torch.from_numpy(best.x)))
    inputs, _ = sample()
    torch.testing.assert_close(one(inputs).softmax(1), two(inputs).softmax(1), rtol=0, atol=1e-4)


@each_case
def test_to_map_and_to_point_are_inverse(case):
    problem, _ = problem_and_objective(case, offset=5.0)
    assert torch.allclose(
        problem.to_point(problem.to_map(problem.start, converged=True)), problem.start
    )
    start = problem.to_map(problem.start, converged=True)
    inputs, _ = sample(offset=5.0)
    torch.testing.assert_close(start(inputs), case["scale"] * inputs)


@each_case
def test_the_start_does_not_matter(case):
    inputs, target = sample()
    usual = regression(inputs, target, **case).solve()
    shape = (3,) if case["diagonal"] else (3, 3)
    far = AffineMap(torch.full(shape, -2.0).double(), torch.tensor([5.0, -5, 1]).double())
    other = regression(inputs, target, **case).solve(far)
    assert usual.converged
    assert other.converged
    torch.testing.assert_close(other.weight, usual.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.bias, usual.bias, rtol=1e-4, atol=1e-5)


@each_case
def test_other_penalties_at_the_last_solution(case):
    inputs, target = sample()
    used = regression(inputs, target, **{**case, "freedom": 3.0})
    first = used.solve()
    used.set_penalties(
        Penalties(
            6 * case.get("off_diagonal", 0.0),
            3 * case.get("intercept", 0.0),
            case.get("freedom", 10.0),
        )
    )
    again, fresh = used.solve(first), regression(inputs, target, **case).solve()
    torch.testing.assert_close(again.weight, fresh.weight, rtol=0, atol=1e-4)
    torch.testing.assert_close(again.bias, fresh.bias, rtol=0, atol=1e-4)


def test_input_offset_moves_into_the_bias():
    inputs, target = sample()
    for diagonal in (True, False):
        plain = SoftmaxRegression(inputs, target, diagonal=diagonal, scale=0.5).solve()
        moved = SoftmaxRegression(inputs + 1e6, target, diagonal=diagonal, scale=0.5).solve()
        assert moved.converged
        torch.testing.assert_close(moved.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_inputs_are_left_alone():
    inputs, target = sample()
    before = inputs.clone()
    SoftmaxRegression(inputs, target, diagonal=False, scale=0.5).solve()
    assert torch.equal(inputs, before)


def test_the_hold_counts_as_one_observation():
    """Separated labels: it bounds the parameters, and loosens as samples get more."""
    target = torch.arange(3).repeat(10)
    inputs = torch.nn.functional.one_hot(target, 3).double()
    few = SoftmaxRegression(inputs, target, diagonal=True, scale=1.0).solve()
    many = SoftmaxRegression(
        inputs.repeat(100, 1), target.repeat(100), diagonal=True, scale=1.0
    ).solve()
    assert few.converged
    assert many.converged
    confidence = [float(fit(inputs).softmax(1).amax(1).mean()) for fit in (few, many)]
    assert 0.99 < confidence[0] < confidence[1] < 1 - 1e-6


@pytest.mark.parametrize("diagonal", [True, False])
def test_no_freedom_gives_scaled_inputs(diagonal):
    inputs, target = sample(offset=3.0)
    strong = {} if diagonal else {"off_diagonal": 1e6}
    fit = regression(inputs, target, diagonal=diagonal, scale=0.5, freedom=1e-4, **strong).solve()
    probs = fit(inputs).softmax(1)
    torch.testing.assert_close(probs, (0.5 * inputs).softmax(1), rtol=0, atol=1e-3)


def test_the_negative_log_likelihood():
    inputs, target = sample()
    random = torch.Generator().manual_seed(0)
    weight, bias = (
        torch.randn(*shape, generator=random, dtype=torch.float64) for shape in ((3, 3), (3,))
    )
    by_hand = -np.log(
        [(inputs @ weight.T + bias).softmax(1)[i, label] for i, label in enumerate(target)]
    ).sum()
    assert total_nll(Predictions(inputs, target), AffineMap(weight, bias)) == pytest.approx(by_hand)


@pytest.mark.parametrize("folds", [1, 2])
def test_diagonal_preconditioner_inverts_class_blocks(folds):
    inputs, target = sample(400, 70, offset=5.0)
    weights = torch.rand(folds, 400, generator=torch.Generator().manual_seed(1)).double()
    several = inputs.expand(folds, -1, -1) if folds > 1 else inputs
    weights = weights if folds > 1 else weights[0]
    problem = SoftmaxRegression(
        several, target, weights, Penalties(intercept=7.0), diagonal=True, scale=0.5
    )
    problem.evaluate(0.9 * problem.start)
    for number in (3, 60):
        index = [number, number + 70]
        unit = torch.zeros(2, *weights.shape[:-1], 140, dtype=torch.float64)
        unit[[0, 1], ..., index] = 1
        # Products with the Hessian, column by column.
        block = torch.stack([problem.curvature(each)[..., index] for each in unit], -1)
        inverse = torch.stack([problem.precondition(each)[..., index] for each in unit], -1)
        torch.testing.assert_close(block @ inverse, torch.eye(2).double().expand_as(block))


def test_many_classes_take_few_hessian_products(monkeypatch):
    # Divided by the diagonal of the Hessian alone it took 53.
    inputs, target = sample(1000, 80, offset=3.0)
    problem = SoftmaxRegression(
        inputs, target, None, Penalties(freedom=1.0), diagonal=True, scale=0.5
    )
    products = []
    curvature = problem.curvature
    monkeypatch.setattr(problem, "curvature", lambda each: products.append(1) or curvature(each))
    assert problem.solve().converged
    assert len(products) < 30
