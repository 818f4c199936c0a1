"""Each class against the rest: columns, floors, and the logistic fit."""

import math

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators._fit import rowwise
from fedlas.calibrators._fit.one_vs_rest import (
    RIDGE,
    OneVsRestLogistic,
    class_rest_log_probs,
    find_separated_classes,
    fit_one_vs_rest,
    log_odds,
    log_with_floor,
)
from fedlas.calibrators._fit.rowwise import probability_floor


def test_logarithms_of_p_and_of_the_rest():
    logits = torch.randn(50, 6, dtype=torch.float64) * 3
    probs = logits.softmax(1)
    own, rest = class_rest_log_probs(logits)
    torch.testing.assert_close(own, probs.log())
    torch.testing.assert_close(rest, (1 - probs).log())
    torch.testing.assert_close(log_odds(logits), torch.logit(probs))


def test_the_rest_by_leaving_one_class_out():
    logits = torch.tensor(
        [[40.0, 0.0, -3.0], [-700.0, 20.0, 20.0], [1e30, 0.0, 1e29], [0.0, 0.0, 0.0]]
    ).double()
    _, rest = class_rest_log_probs(logits)
    for label in range(3):
        others = logits[:, [k for k in range(3) if k != label]].logsumexp(1)
        by_hand = -torch.nn.functional.softplus(logits[:, label] - others)
        torch.testing.assert_close(rest[:, label], by_hand, rtol=1e-14, atol=1e-300)


def test_two_classes_are_mirror_images():
    logits = torch.tensor([[800.0, 0.0], [0.0, 3.0], [1.0, 1.0]]).double()
    scores = log_odds(logits)
    torch.testing.assert_close(scores[:, 0], logits[:, 0] - logits[:, 1])
    torch.testing.assert_close(scores[:, 0], -scores[:, 1])


def test_one_class_has_no_rest_and_finite_numbers():
    own, rest = class_rest_log_probs(torch.randn(3, 1).double())
    assert own.tolist() == [[0.0]] * 3
    assert bool(torch.isfinite(rest).all())
    assert bool((rest < -1e29).all())


def test_the_floor_replaces_zeros_only():
    floor = probability_floor(samples=99, classes=10)
    assert floor == pytest.approx(0.001)
    probs = torch.tensor([[0.0, 1 / 99, 1.0]]).double()
    torch.testing.assert_close(
        log_with_floor(probs, floor),
        torch.tensor([[math.log(0.001), math.log(1 / 99), 0.0]]).double(),
    )
    assert log_with_floor(torch.zeros(2, 3).double(), floor).softmax(1).unique().numel() == 1


def test_separated_classes():
    logits = torch.tensor([[5.0, 0, 0], [4, 0, 0], [3, 0, 0], [0, 2, 0], [0, 1, 2], [0, 1, 1.5]])
    val = Predictions(logits, [0, 0, 1, 1, 2, 2])
    assert find_separated_classes(val) == [0, 2]
    assert (
        find_separated_classes(Predictions(logits[:, :2], [0] * 6)) == []
    )  # nothing to separate from
    assert find_separated_classes(Predictions(torch.zeros(4, 2), [0, 1, 0, 1])) == []


@pytest.mark.parametrize("logits", [[17.0, 0.0, 0.0], [800.0, 0.0, -5.0], [40.0, 40.0, 0.0], [5.0]])
def test_gradients_are_finite(logits):
    rows = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    log_odds(rows).clamp(min=-1e3, max=1e3).sum().backward()
    assert bool(rows.grad.isfinite().all())


def features(rows):
    """Two features a class: the logit and its distance from the mean."""
    return torch.stack([rows, (rows - rows.mean(1, keepdim=True)).abs()], dim=2)


def one_feature(rows):
    return rows.unsqueeze(2)


def sample(samples=400, classes=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)


@pytest.mark.parametrize("chunk", [10, 2**18])
def test_value_and_derivatives_against_autograd(chunk, monkeypatch):
    monkeypatch.setattr(rowwise, "_CHUNK_ELEMENTS", chunk)
    logits, target = sample(60)
    classes, positive, negative = (
        torch.tensor([2, 0]),
        torch.tensor([0.9, 1.0]).double(),
        torch.tensor([0.0, 0.1]).double(),
    )
    problem = OneVsRestLogistic(
        logits, target, features=features, classes=classes, positive=positive, negative=negative,
        is_free=torch.tensor([True, True]),
    )  # fmt: skip
    x = features(logits)[:, classes]
    x = (x - x.mean(0)) / x.std(0, correction=0)
    label = torch.where(target[:, None] == classes, positive, negative)

    def value(point):
        parameters = point.view(2, 3)
        probs = ((x * parameters[:, :2]).sum(2) + parameters[:, 2]).sigmoid()
        loss = -(label * probs.log() + (1 - label) * (1 - probs).log()).sum(1).mean()
        return loss + 0.5 * RIDGE / 60 * point.square().sum()

    random = torch.Generator().manual_seed(1)
    point, direction = (torch.randn(6, generator=random, dtype=torch.float64) for _ in range(2))
    got, gradient = problem.evaluate(point)
    wanted, product = torch.autograd.functional.hvp(value, point, direction)
    assert float(got) == pytest.approx(float(wanted), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(value, point))
    torch.testing.assert_close(problem.curvature(direction), product)
    torch.testing.assert_close(problem.precondition(product), direction)
    assert float(problem.class_objectives(point).sum()) == pytest.approx(float(got))
    # The same scores from the features as they came.
    parameters = problem.to_parameters(point)
    scores = (features(logits)[:, classes] * parameters[:, :2]).sum(2) + parameters[:, 2]
    torch.testing.assert_close(
        scores, (x * point.view(2, 3)[:, :2]).sum(2) + point.view(2, 3)[:, 2]
    )


def test_against_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    logits, target = sample()
    parameters, converged = fit_one_vs_rest(logits, target, features)
    assert converged
    for label in range(3):
        theirs = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000)
        theirs.fit(features(logits)[:, label].numpy(), (target == label).numpy())
        np.testing.assert_allclose(
            parameters[label, :2].numpy(), theirs.coef_[0], rtol=2e-3, atol=2e-3
        )
        np.testing.assert_allclose(parameters[label, 2], theirs.intercept_[0], rtol=2e-3, atol=2e-3)


def test_factors_that_must_not_be_negative_against_scipy():
    from scipy.optimize import minimize

    logits, target = sample()
    logits[:, 2] *= -1  # for the last class both features point the wrong way
    free, _ = fit_one_vs_rest(logits, target, features)
    bound, converged = fit_one_vs_rest(logits, target, features, nonnegative=True)
    assert converged
    assert bool((free[:, :2] < 0).any())
    assert bool((bound[:, :2] >= 0).all())
    x, label = features(logits).numpy(), torch.nn.functional.one_hot(target).numpy()
    for k in range(3):

        def loss(theta, k=k):
            scores = x[:, k] @ theta[:2] + theta[2]
            return (np.logaddexp(0, scores) - label[:, k] * scores).mean()

        best = minimize(
            loss,
            [0.1, 0.1, 0],
            bounds=[(0, None), (0, None), (None, None)],
            method="L-BFGS-B",
            tol=1e-14,
        )
        assert loss(bound[k].numpy()) <= best.fun + 1e-6
        np.testing.assert_allclose(bound[k].numpy(), best.x, rtol=0.01, atol=0.01)
    untouched = (free[:, :2] >= 0).all(1)
    assert torch.equal(bound[untouched], free[untouched])


def test_labels_between_0_and_1():
    """With one feature value per class the fit reproduces the mean label."""
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 1]]).double()
    target = torch.tensor([0, 1, 1, 1, 0])
    labels = (torch.tensor([0.8, 0.9]).double(), torch.tensor([0.1, 0.2]).double())
    parameters, _ = fit_one_vs_rest(logits, target, one_feature, labels=labels)
    scores = logits * parameters[:, 0] + parameters[:, 1]
    # the hold of one observation in five shows in the third digit
    torch.testing.assert_close(
        scores.sigmoid()[:, 0],
        torch.tensor([0.45, 0.45, 1 / 3, 1 / 3, 1 / 3]).double(),
        rtol=0,
        atol=0.01,
    )
    torch.testing.assert_close(
        scores.sigmoid()[:, 1],
        torch.tensor([0.55, 0.55, 2 / 3, 2 / 3, 2 / 3]).double(),
        rtol=0,
        atol=0.01,
    )


@pytest.mark.parametrize(("factor", "offset"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_the_scale_of_the_features_does_not_matter(factor, offset):
    logits, target = sample()
    plain, _ = fit_one_vs_rest(logits, target, one_feature)
    moved, converged = fit_one_vs_rest(logits * factor + offset, target, one_feature)
    assert converged
    torch.testing.assert_close(moved[:, 0] * factor, plain[:, 0], rtol=1e-6, atol=1e-9)


def test_degenerate_classes_have_finite_parameters():
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0]]).double()
    parameters, converged = fit_one_vs_rest(logits, torch.tensor([0, 1, 0, 1]), one_feature)
    assert converged
    assert bool(torch.isfinite(parameters).all())
    probs = (logits * parameters[:, 0] + parameters[:, 1]).sigmoid()
    assert 0.98 < float(probs[0, 0]) < 1
    assert float(parameters[2, 0]) == 0.0
    assert float(probs[0, 2]) < 0.02
