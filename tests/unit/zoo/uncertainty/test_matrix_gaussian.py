"""The matrix Gaussian against the multivariate one of its Kronecker product, and the outputs against drawn weights."""

import functools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from fakes_uncertainty import three_clouds
from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import MatrixGaussian
from fedlas.zoo.uncertainty.matrix_gaussian import MatrixGaussianLinear

COVARIANCES = ["diag", "full"]


def layer_of(covariance, rows=3, columns=2):
    """A layer from ``rows - 1`` inputs, with random parameters in float64."""
    generator = torch.Generator().manual_seed(0)
    layer = (
        MatrixGaussianLinear(rows - 1, columns, covariance, generator=generator)
        .double()
        .requires_grad_(False)
    )
    for parameter in layer.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    if layer.below_column is not None:
        layer.below_column += 1.0  # far from the covariance of the transposed factor
    return layer


def covariances(layer):
    """``U`` and ``V``, from their factors' numbers one by one."""
    made = []
    for log_diagonal, below in (
        (layer.log_row, layer.below_row),
        (layer.log_column, layer.below_column),
    ):
        factor = torch.zeros(len(log_diagonal), len(log_diagonal)).double()
        for i in range(len(log_diagonal)):
            factor[i, i] = math.exp(log_diagonal[i])
            for j in range(i):
                factor[i, j] = 0 if below is None else below[i, j]
        made.append(factor @ factor.T)
    return made


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_kl_is_that_of_the_multivariate_gaussian(covariance):
    layer = layer_of(covariance, 4, 3)
    rows, columns = covariances(layer)
    # row by row, so U first
    posterior = MultivariateNormal(layer.mean.flatten(), torch.kron(rows, columns))
    prior = MultivariateNormal(torch.zeros(12).double(), torch.eye(12).double())
    assert layer.kl().item() == pytest.approx(kl_divergence(posterior, prior).item(), rel=1e-9)


def test_kl_by_hand():
    layer = layer_of("diag")
    layer.mean.copy_(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, -1.0]]))
    layer.log_row.copy_(torch.tensor([4.0, 1.0, 1.0]).log() / 2)  # U = diag(4, 1, 1)
    layer.log_column.copy_(torch.tensor([1.0, 0.5]).log() / 2)  # V = diag(1, 0.5)
    # tr U tr V = 9, |M|^2 = 6, 2 log|U| = 2 log 4, 3 log|V| = -3 log 2: together (9 + 6 - 6 - log 2) / 2
    assert layer.kl().item() == pytest.approx((9 - math.log(2)) / 2)


@pytest.mark.parametrize("row", [(1.0, 1.0), (0.25, 4.0), (0.01, 9.0)])
@pytest.mark.parametrize("column", [(1.0,), (0.5, 2.0)])
@pytest.mark.parametrize("mean", [0.0, 0.5, -1.0, 2.0, 10.0])
def test_diagonal_kl_sums_over_independent_weights(row, column, mean):
    layer = layer_of("diag", 2, len(column))
    layer.mean.fill_(mean)
    layer.log_row.copy_(torch.tensor(row).log() / 2)
    layer.log_column.copy_(torch.tensor(column).log() / 2)
    # A weight is N(m, u v); from N(0, 1) that is (u v + m^2 - 1 - log u v) / 2.
    by_hand = sum((u * v + mean**2 - 1 - math.log(u * v)) / 2 for u in row for v in column)
    assert layer.kl().item() == pytest.approx(by_hand, abs=1e-6)


def test_prior_kl_is_zero_with_all_gradients():
    layer = MatrixGaussianLinear(3, 2, "full")
    for name, parameter in layer.named_parameters():
        parameter.data.zero_()
        assert parameter.requires_grad, name
    assert layer.kl().item() == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    (layer.train()(torch.randn(5, 3)).square().sum() + layer.kl()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.fixture(scope="module")
def drawn_weights():
    """``drawn_weights(covariance)``: many weights that ``layer_of(covariance)`` draws, ``(draws, rows, columns)``."""

    @functools.cache
    def draw(covariance):
        layer, generator, drawn = layer_of(covariance), torch.Generator().manual_seed(1), []
        for _ in range(20_000):
            layer.draw(generator)
            drawn.append(layer._drawn)
        return torch.stack(drawn)

    return draw


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_output_noise_has_moments_of_weight_draws(covariance, drawn_weights):
    layer, draws = layer_of(covariance), 200_000
    inputs = torch.tensor([1.5, -0.7]).double()
    z = torch.tensor([1.5, -0.7, 1.0]).double() / math.sqrt(3)
    rows, columns = covariances(layer)
    expected = z @ layer.mean, (z @ rows @ z) * columns
    torch.manual_seed(0)
    reparameterized = layer.train()(inputs.expand(draws, 2))
    outputs = z @ drawn_weights(covariance)
    layer.eval().draw(torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(inputs[None])[0], outputs[0])
    for found, tolerance in ((reparameterized, 0.01), (outputs, 0.04)):
        torch.testing.assert_close(found.mean(0), expected[0], atol=tolerance, rtol=0)
        torch.testing.assert_close(found.T.cov(), expected[1], atol=tolerance, rtol=0)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draws_have_the_covariance_of_the_kronecker_product(covariance, drawn_weights):
    layer = layer_of(covariance)
    rows, columns = covariances(layer)
    torch.testing.assert_close(
        drawn_weights(covariance).flatten(1).T.cov(),
        torch.kron(rows, columns),
        atol=0.08,
        rtol=0.08,
    )
    layer.draw(None)
    z = torch.tensor([[0.0, 0.0, 1.0]]).double() / math.sqrt(3)
    torch.testing.assert_close(layer.eval()(torch.zeros(1, 2).double()), z @ layer.mean)


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"hidden": 8}, {"hidden": 8, "covariance": "full"}]
)
def test_learns(options):
    head = MatrixGaussian(epochs=60, lr=0.03, samples=40, **options).fit(three_clouds())
    found = head.predict(three_clouds(300, seed=1))
    assert (found.tensors().predicted == found.tensors().target).double().mean() > 0.93
    torch.testing.assert_close(found.tensors().logits.exp().sum(1), torch.ones(300))


def test_linear_head_posterior_beats_prior():
    tempered = MatrixGaussian(hidden=0, epochs=60, lr=0.03, kl_weight=0.1).fit(three_clouds())
    bound = MatrixGaussian(hidden=0, epochs=60, lr=0.03).fit(three_clouds())
    assert 0 < bound.kl < tempered.kl
    nll = [
        -x.predict(three_clouds())
        .tensors()
        .logits.gather(1, three_clouds().tensors().target[:, None])
        .mean()
        for x in (bound, tempered)
    ]
    assert nll[1] < nll[0] < math.log(3)


def test_predictions_are_deterministic_and_independent_of_batch():
    torch.rand(3)  # whatever was drawn before
    state = torch.get_rng_state()
    first, again = (
        MatrixGaussian(hidden=4, epochs=2, samples=5).fit(three_clouds()) for _ in range(2)
    )
    whole = first.predict(three_clouds())
    assert torch.equal(again.predict(three_clouds()).tensors().logits, whole.tensors().logits)
    assert torch.equal(torch.get_rng_state(), state)
    part = Predictions(
        torch.zeros(9, 3),
        three_clouds().tensors().target[:9],
        features=three_clouds().tensors().features[:9],
    )
    torch.testing.assert_close(first.predict(part).tensors().logits, whole.tensors().logits[:9])


@pytest.mark.parametrize(
    ("covariance", "kept"), [("diag", 12 + 3 + 4 + 15 + 5 + 3), ("full", 12 + 6 + 10 + 15 + 15 + 6)]
)
def test_number_of_parameters(covariance, kept):
    assert (
        MatrixGaussian(hidden=4, epochs=1, covariance=covariance).fit(three_clouds()).num_parameters
        == kept
    )


def test_invalid_options_are_refused():
    train = three_clouds(20)
    wrong = {
        "hidden": -1,
        "covariance": "ful",
        "epochs": 0,
        "lr": 0.0,
        "batch_size": 0,
        "kl_weight": -1.0,
        "samples": 0,
    }
    for name, value in wrong.items():
        with pytest.raises(InputError, match=name):
            MatrixGaussian(**{name: value})
    for use in (lambda: MatrixGaussian().predict(train), lambda: MatrixGaussian().num_parameters):
        with pytest.raises(InputError, match="must be fitted"):
            use()
    with pytest.raises(InputError, match=r"features \(N, D\).*got none"):
        MatrixGaussian().fit(Predictions(train.tensors().logits, train.tensors().target))
