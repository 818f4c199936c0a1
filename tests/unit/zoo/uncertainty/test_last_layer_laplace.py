"""The last layer's posterior against its generalized Gauss-Newton matrix, written out with NumPy."""

import copy
import warnings
from importlib.util import find_spec
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import LastLayerLaplace
from fedlas.zoo.uncertainty.last_layer_laplace import Link, Structure

if find_spec("laplace") is None:
    pytest.skip("needs laplace-torch", allow_module_level=True)

N, D, C = 80, 4, 3


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def problem(bias=True, constant=False, seed=0):
    """A head, and predictions on 80 training and 6 other samples with their features."""
    torch.manual_seed(seed)
    head = nn.Linear(D, C, bias=bias)
    parts = []
    for count in (N, 6):
        features = torch.randn(1, D).expand(count, D).clone() if constant else torch.randn(count, D)
        with torch.no_grad():
            logits = head(features)
        parts.append(Predictions(logits, torch.randint(C, (count,)), features=features))
    if constant:
        parts[1] = Predictions(
            parts[1].tensors().logits, parts[1].tensors().target, features=torch.randn(6, D)
        )
    return head, *parts


def jacobians(head, features):
    """``(N, C, P)``: weights row by row, then the bias."""
    phi = features.double().numpy()
    blocks = [np.einsum("ck,nd->nckd", np.eye(C), phi).reshape(len(phi), C, -1)]
    if head.bias is not None:
        blocks.append(np.broadcast_to(np.eye(C), (len(phi), C, C)))
    return np.concatenate(blocks, axis=2)


def outputs(head, features):
    with torch.no_grad():
        return head(features).double().numpy()


def gauss_newton(head, train):
    jac, probs = (
        jacobians(head, train.tensors().features),
        softmax(outputs(head, train.tensors().features)),
    )
    total = 0
    for j, p in zip(jac, probs, strict=True):
        total = total + j.T @ (np.diag(p) - np.outer(p, p)) @ j
    return total


def by_hand(head, train, test, precision, *, diagonal=False):
    """Mean and covariance of the logits, ``(N, C)`` and ``(N, C, C)``."""
    matrix = gauss_newton(head, train)
    if diagonal:
        matrix = np.diag(np.diag(matrix))
    covariance = np.linalg.inv(matrix + precision * np.eye(len(matrix)))
    jac = jacobians(head, test.tensors().features)
    return outputs(head, test.tensors().features), np.einsum(
        "ncp,pq,nkq->nck", jac, covariance, jac
    )


def probit(mean, covariance):
    return softmax(mean / np.sqrt(1 + np.pi / 8 * np.diagonal(covariance, axis1=1, axis2=2)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("structure", ["full", "diag"])
@pytest.mark.parametrize("precision", [0.5, 30.0])
def test_probit(structure, bias, precision):
    head, train, test = problem(bias)
    found = (
        LastLayerLaplace(head, structure=structure, prior_precision=precision)
        .fit(train)
        .predict(test)
    )
    expected = probit(*by_hand(head, train, test, precision, diagonal=structure == "diag"))
    np.testing.assert_allclose(found.probs, expected, rtol=2e-4)
    assert torch.equal(found.tensors().target, test.tensors().target)


def test_kron_is_exact_for_kronecker_product():
    head, train, test = problem(bias=False, constant=True)  # the same features everywhere
    found = LastLayerLaplace(head, prior_precision=2.0).fit(train).predict(test)
    np.testing.assert_allclose(found.probs, probit(*by_hand(head, train, test, 2.0)), rtol=2e-4)


def test_monte_carlo():
    head, train, test = problem()
    mean, covariance = by_hand(head, train, test, 0.5)
    random = np.random.default_rng(0)
    expected = np.stack([
        softmax(random.multivariate_normal(m, c, size=200_000)).mean(0) for m, c in zip(mean, covariance, strict=True)
    ])  # fmt: skip
    laplace = LastLayerLaplace(
        head, structure="full", prior_precision=0.5, link="mc", samples=20_000
    ).fit(train)
    state = torch.get_rng_state()
    found = laplace.predict(test)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_allclose(found.probs, expected, atol=0.01)
    assert torch.equal(laplace.predict(test).tensors().logits, found.tensors().logits)


def evidence(head, train, precision):
    matrix, weights = (
        gauss_newton(head, train),
        torch.cat([p.detach().flatten() for p in head.parameters()]).double(),
    )
    log_likelihood = np.log(softmax(outputs(head, train.tensors().features)))[
        np.arange(N), train.target
    ].sum()
    ratio = np.linalg.slogdet(matrix + precision * np.eye(len(matrix)))[1] - len(matrix) * np.log(
        precision
    )
    return log_likelihood - 0.5 * (precision * float(weights @ weights) + ratio)


def test_each_fit_chooses_the_precision_again():
    (head, train, _), (_, other, _) = problem(), problem(seed=1)
    other = Predictions(
        head(other.tensors().features).detach(),
        other.tensors().target,
        features=other.tensors().features,
    )
    used, fresh = (
        LastLayerLaplace(head, structure="diag"),
        LastLayerLaplace(head, structure="diag").fit(other),
    )
    assert used.fit(train).prior_precision != fresh.prior_precision
    assert used.fit(other).prior_precision == fresh.prior_precision


def test_marginal_likelihood_and_its_maximum():
    head, train, _ = problem()
    fixed = LastLayerLaplace(head, structure="full", prior_precision=3.0).fit(train)
    assert fixed.log_marginal_likelihood == pytest.approx(evidence(head, train, 3.0), rel=1e-4)
    chosen = LastLayerLaplace(head, structure="full").fit(train)
    grid = np.logspace(-3, 4, 201)
    best = grid[np.argmax([evidence(head, train, precision) for precision in grid])]
    assert chosen.prior_precision == pytest.approx(best, rel=0.1)


@pytest.mark.parametrize("structure", get_args(Structure))
@pytest.mark.parametrize("link", get_args(Link))
def test_predictions_less_confident_and_head_unchanged(structure, link):
    head, train, test = problem()
    before = copy.deepcopy(head.state_dict())
    head.requires_grad_(False)
    found = (
        LastLayerLaplace(head, structure=structure, link=link, prior_precision=0.1)
        .fit(train)
        .predict(test)
    )
    torch.testing.assert_close(dict(head.state_dict()), dict(before), rtol=0, atol=0)
    assert not head.weight.requires_grad
    assert found.tensors().confidence.mean() < test.tensors().confidence.mean()
    torch.testing.assert_close(found.tensors().logits.exp().sum(1), torch.ones(6))


def test_a_strong_prior_gives_the_model_back():
    head, train, test = problem()
    found = LastLayerLaplace(head, structure="full", prior_precision=1e6).fit(train).predict(test)
    torch.testing.assert_close(found.tensors().probs, test.tensors().probs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("structure", get_args(Structure))
def test_predictions_are_those_of_laplace_torch(structure):
    head, train, test = problem()
    with warnings.catch_warnings(action="ignore"):
        import laplace

        theirs = laplace.Laplace(
            nn.Sequential(nn.Identity(), copy.deepcopy(head)), "classification", subset_of_weights="last_layer",
            hessian_structure=structure, prior_precision=2.0,
        )  # fmt: skip
        theirs.fit(
            DataLoader(
                TensorDataset(train.tensors().features, train.tensors().target), batch_size=512
            )
        )
        expected = {
            link: theirs(test.tensors().features, link_approx=link).detach()
            for link in ("probit", "bridge")
        }
    for link, probs in expected.items():
        found = (
            LastLayerLaplace(head, structure=structure, link=link, prior_precision=2.0)
            .fit(train)
            .predict(test)
        )
        torch.testing.assert_close(found.tensors().probs, probs, rtol=1e-4, atol=1e-6)


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    """The Jacobian of 800 rows at once took 265 MB, that of 1,600 four times as much."""
    head, train, test = problem()
    laplace = LastLayerLaplace(head, structure="full", prior_precision=1.0).fit(train)
    whole = laplace.predict(test)
    monkeypatch.setattr(
        "fedlas.zoo.uncertainty.last_layer_laplace._JACOBIAN_NUMBERS", 2 * C * (D + 1) * C
    )
    rows, compute = [], laplace._posterior.backend.jacobians
    monkeypatch.setattr(
        laplace._posterior.backend,
        "jacobians",
        lambda x, **more: rows.append(len(x)) or compute(x, **more),
    )
    torch.testing.assert_close(laplace.predict(test).tensors().logits, whole.tensors().logits)
    assert rows == [2, 2, 2]


def test_invalid_head_or_options_are_refused():
    head, train, test = problem()
    for options in (
        {"structure": "cron"},
        {"link": "logit"},
        {"samples": 0},
        {"prior_precision": 0.0},
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            LastLayerLaplace(head, **options)
    with pytest.raises(InputError, match="must be a linear layer"):
        LastLayerLaplace(nn.Sequential(head))
    with pytest.raises(InputError, match=r"at most 20,000 weights; got 40,200"):
        LastLayerLaplace(nn.Linear(200, 200), structure="full")
    with pytest.raises(InputError, match="map the features to the logits"):
        LastLayerLaplace(nn.Linear(D, C)).fit(train)
    with pytest.raises(InputError, match="must be fitted"):
        LastLayerLaplace(head).predict(test)
    with pytest.raises(InputError, match=r"features \(N, 4\)"):
        LastLayerLaplace(head).fit(Predictions(train.tensors().logits, train.tensors().target))
    with pytest.raises(InputError, match=r"features \(N, 4\).*got \(80, 5\)"):
        LastLayerLaplace(head).fit(
            Predictions(train.tensors().logits, train.tensors().target, features=torch.zeros(N, 5))
        )
