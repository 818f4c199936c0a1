"""The KL against closed form and Monte Carlo, what a conversion keeps, and when weights are drawn."""

import copy
import math

import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.features import find_head
from fedlas.lab.models import build_model
from fedlas.objective import Objective, predict
from fedlas.zoo.uncertainty import BayesianConfig, KLPenalty, SampledWeights, to_bayesian

pytest.importorskip("lightning")  # torch-uncertainty imports it, and does not say so
pytest.importorskip("torch_uncertainty")


def kl_divergence(model):
    return KLPenalty(1)(model)


def bayesian_layers(model):
    return [layer for layer in model.modules() if hasattr(layer, "weight_mu")]


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2, padding="same", padding_mode="reflect"),
        nn.Flatten(),
        nn.Linear(96, 3),
    )


def images(count=5):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def loader(count=20):
    return list(zip(images(count).split(8), (torch.arange(count) % 3).split(8), strict=True))


def test_kl_against_torch():
    torch.manual_seed(0)
    layer = nn.Linear(3, 4, bias=False)
    model = to_bayesian(layer, BayesianConfig(prior_sigma=0.7, sigma_init=0.2))
    q = torch.distributions.Normal(layer.weight, 0.2)
    prior = torch.distributions.Normal(0.0, 0.7)
    expected = torch.distributions.kl_divergence(q, prior).sum()
    torch.testing.assert_close(kl_divergence(model), expected)
    same = to_bayesian(nn.Linear(3, 4, bias=False), BayesianConfig(prior_sigma=0.7, sigma_init=0.7))
    nn.init.zeros_(same.weight_mu)
    assert kl_divergence(same).item() == pytest.approx(0, abs=1e-5)


def test_model_kl_sums_layers_weights_and_biases():
    model = to_bayesian(network(), BayesianConfig(prior_sigma=0.5, sigma_init=0.2))
    expected = 0.0
    for layer in network():
        for parameter in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if parameter is not None and not isinstance(layer, nn.BatchNorm2d):
                for mu in parameter.flatten().tolist():
                    expected += math.log(0.5 / 0.2) + (0.2**2 + mu**2) / (2 * 0.5**2) - 0.5
    assert kl_divergence(model).item() == pytest.approx(expected, rel=1e-5)
    assert KLPenalty(40, weight=0.5)(model).item() == pytest.approx(expected * 0.5 / 40, rel=1e-5)


def test_mixture_prior_kl_is_unbiased():
    def value(pi, sigma_2, draws):
        config = BayesianConfig(prior_sigma=0.4, prior_sigma_2=sigma_2, prior_pi=pi, sigma_init=0.3)
        model = to_bayesian(nn.Sequential(nn.Linear(3, 2)), config).train()
        with torch.no_grad():
            model[0].weight_mu.copy_(torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, -0.4]]))
            model[0].bias_mu.zero_()
        torch.manual_seed(0)
        total = 0.0
        for _ in range(draws):
            model(torch.zeros(1, 3))
            total += kl_divergence(model).item()
        return total / draws

    closed = value(1.0, 0.002, 1)
    # both components are the same Gaussian
    assert value(0.5, 0.4, 800) == pytest.approx(closed, abs=0.2)
    # An integral on a grid for a true mixture.
    w = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    expected = 0.0
    for mu in (0.1, -0.2, 0.3, 0.0, 0.5, -0.4, 0.0, 0.0):
        q = torch.distributions.Normal(torch.tensor(mu, dtype=torch.float64), 0.3).log_prob(w)
        parts = [
            torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), s).log_prob(w)
            for s in (0.4, 0.1)
        ]
        p = torch.logsumexp(torch.stack([parts[0] + math.log(0.7), parts[1] + math.log(0.3)]), 0)
        expected += torch.trapezoid(q.exp() * (q - p), w).item()
    assert value(0.7, 0.1, 800) == pytest.approx(expected, abs=0.3)


def test_a_mixture_prior_needs_drawn_weights():
    model = to_bayesian(network(), BayesianConfig(prior_pi=0.5)).train()
    with pytest.raises(InputError, match="mixture prior requires"):
        kl_divergence(model)
    model(images())
    penalty = KLPenalty(10)
    assert torch.isfinite(penalty(model))
    with pytest.raises(InputError, match="mixture prior requires"):  # each draw counts once
        penalty(model)


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_the_means_are_the_model_it_was(name):
    torch.manual_seed(0)
    plain = build_model(name, num_classes=3, in_channels=1, image_size=8).eval()
    model = to_bayesian(copy.deepcopy(plain)).eval()
    assert len(bayesian_layers(model)) == sum(
        isinstance(m, nn.Linear | nn.Conv2d) for m in plain.modules()
    )
    assert not [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    torch.testing.assert_close(model(images()), plain(images()))
    assert find_head(model) is model.fc
    assert predict(model, loader(), features=True).features.shape == (20, plain.fc.in_features)


def test_every_option_of_a_layer_is_kept():
    plain = network().eval()
    model = to_bayesian(copy.deepcopy(plain)).eval()
    torch.testing.assert_close(model(images()), plain(images()))
    assert model[0].bias_mu is None


def test_weights_are_drawn_only_in_training_or_sampling():
    model = to_bayesian(network(), BayesianConfig(sigma_init=0.3)).eval()
    x = images()
    assert torch.equal(model(x), model(x))
    sampled = SampledWeights(model, samples=1)
    assert not torch.equal(sampled(x), model(x))
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    layer = to_bayesian(nn.Linear(1, 20_000, bias=False), BayesianConfig(sigma_init=0.3)).train()
    with torch.no_grad():
        layer.weight_mu.fill_(2.0)
        drawn = layer(torch.ones(1, 1))
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.01)
    assert drawn.std().item() == pytest.approx(0.3, abs=0.01)


def test_a_layer_in_two_places_stays_one():
    shared = nn.Linear(4, 4)
    model = to_bayesian(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]
    assert len(bayesian_layers(model)) == 1


def test_objective_is_negative_elbo_per_sample():
    model = to_bayesian(network(), BayesianConfig(prior_sigma=0.5))
    objective = Objective(model, nn.CrossEntropyLoss(), penalty=KLPenalty(100))
    target = torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(5)
    loss, logits = objective(images(), target)
    expected = nn.functional.cross_entropy(logits, target) + kl_divergence(model) / 100
    torch.testing.assert_close(loss, expected)
    loss.backward()
    for layer in bayesian_layers(model):
        assert layer.weight_mu.grad.abs().sum() > 0
        assert layer.weight_sigma.grad.abs().sum() > 0
    copy.deepcopy(objective)  # nothing drawn is kept
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        KLPenalty(100, weight=100.0)(model).backward()
        optimizer.step()
    for layer in bayesian_layers(model):  # without data the posterior goes to the prior
        assert nn.functional.softplus(layer.weight_sigma).mean().item() == pytest.approx(
            0.5, abs=0.05
        )
        assert layer.weight_mu.abs().max() < 0.1


def test_sampled_predictions():
    model = to_bayesian(network(), BayesianConfig(sigma_init=0.2)).train()
    state = torch.get_rng_state()
    whole = predict(SampledWeights(model, samples=4, seed=3), loader())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    # Batches of another size see the same weights.
    singles = [(x[None], y[None]) for batch in loader() for x, y in zip(*batch, strict=True)]
    single = predict(SampledWeights(model, samples=4, seed=3), singles)
    torch.testing.assert_close(single.tensors().logits, whole.tensors().logits)
    assert not torch.allclose(
        predict(SampledWeights(model, samples=4, seed=4), loader()).tensors().logits,
        whole.tensors().logits,
    )
    # By hand: mean of the softmax over four draws.
    sampled = SampledWeights(model, samples=4, seed=3)
    model.eval()
    for layer in bayesian_layers(model):
        layer.train()  # draws weights, and normalization keeps its statistics
    probs = 0
    with torch.no_grad(), torch.random.fork_rng():
        for seed in sampled.seeds:
            torch.manual_seed(seed)
            probs = probs + model(images(20)).softmax(1) / 4
    torch.testing.assert_close(whole.tensors().logits.exp(), probs)
    one = predict(SampledWeights(model, samples=1, seed=3), loader())
    assert not torch.allclose(one.tensors().logits, model(images(20)).log_softmax(1))


def test_invalid_model_or_options_are_refused():
    with pytest.raises(InputError, match="linear or convolutional"):
        to_bayesian(nn.Sequential(nn.ReLU()))
    for options in (
        {"prior_sigma": 0.0},
        {"sigma_init": -1},
        {"prior_pi": 0},
        {"prior_pi": 1.5},
        {"kl_weight": -1},
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            BayesianConfig(**options)
    with pytest.raises(InputError, match=r"model\.bayesian=true"):
        SampledWeights(network())
    with pytest.raises(InputError, match="must have Bayesian layers"):
        kl_divergence(network())
    with pytest.raises(InputError, match="samples"):
        SampledWeights(to_bayesian(network()), samples=0)
