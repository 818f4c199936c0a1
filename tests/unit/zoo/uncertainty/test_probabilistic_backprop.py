"""Propagated moments against draws, gradients against autograd, one update against the exact posterior."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fakes_uncertainty import three_clouds
from fedlas.errors import InputError
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty import ProbabilisticBackprop
from fedlas.zoo.uncertainty import probabilistic_backprop as pbp
from fedlas.zoo.uncertainty._moments import (
    GaussianLayer,
    label_log_prob,
    linear_moments,
    log_prob_gradients,
    propagate_moments,
    relu_moments,
)
from fedlas.zoo.uncertainty.probabilistic_backprop import PriorLayer, gamma_update, update_on_sample

DRAWS = 400_000


def layers_of(*sizes, seed=0):
    """Layers with random moments, between ``sizes``."""
    generator = torch.Generator().manual_seed(seed)

    def random(out, rows):
        return torch.randn(out, rows, generator=generator, dtype=torch.float64)

    made = []
    for rows, out in pairwise(sizes):
        mean, var = random(out, rows + 1), random(out, rows + 1).square() + 0.05
        made.append(PriorLayer(mean, var, 0.5 / var, 0 * var, 0 * var))
    return made


def drawn(mean, var, generator, count=DRAWS):
    return mean + var.sqrt() * torch.randn(
        count, *mean.shape, generator=generator, dtype=torch.float64
    )


def test_a_linear_layer_and_a_relu_against_draws():
    layer = layers_of(3, 2)[0]
    generator = torch.Generator().manual_seed(1)
    mean, var = (
        torch.tensor([[0.5, -1.0, 2.0, 1.0]]).double(),
        torch.tensor([[0.3, 0.8, 0.1, 0.0]]).double(),
    )
    found = linear_moments(layer, mean, var)
    weights, inputs = drawn(layer.mean, layer.var, generator), drawn(mean[0], var[0], generator)
    outputs = (weights * inputs[:, None]).sum(2) / 2  # the root of 4 inputs
    torch.testing.assert_close(found[0][0], outputs.mean(0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(found[1][0], outputs.var(0), atol=0.01, rtol=0.02)
    mean, var = (
        torch.tensor([[-3.0, -0.5, 0.0, 0.7, 4.0]]).double(),
        torch.tensor([[1.0, 2.0, 0.5, 0.1, 3.0]]).double(),
    )
    found, relu = relu_moments(mean, var), drawn(mean[0], var[0], generator).clamp_min(0)
    torch.testing.assert_close(found[0][0], relu.mean(0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(found[1][0], relu.var(0), atol=0.01, rtol=0.02)


def test_relu_far_from_zero():
    mean, var = relu_moments(
        torch.tensor([-60.0, 1e6]).double(), torch.tensor([1.0, 1e-4]).double()
    )
    assert mean.tolist() == [0, pytest.approx(1e6)]
    assert var.tolist() == [0, pytest.approx(1e-4)]


def test_label_probability_matches_draws_and_sums_to_one():
    mean, var = torch.tensor([[1.0, -0.5, 0.3]]).double(), torch.tensor([[0.4, 2.0, 0.01]]).double()
    logits = drawn(mean[0], var[0] + 1, torch.Generator().manual_seed(0))
    expected = torch.bincount(logits.argmax(1), minlength=3) / DRAWS
    found = torch.stack([label_log_prob(mean, var, label)[0] for label in range(3)]).exp()
    torch.testing.assert_close(found[:, 0], expected.double(), atol=0.004, rtol=0)
    assert found.sum().item() == pytest.approx(1, abs=1e-6)


def test_two_class_probability_matches_closed_form():
    mean, var = torch.tensor([[-6.0, 3.0]]).double(), torch.tensor([[0.5, 1.5]]).double()
    expected = torch.special.log_ndtr(torch.tensor(-9.0 / math.sqrt(0.5 + 1.5 + 2)).double())
    assert label_log_prob(mean, var, 0)[0].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("sizes", [(3, 4), (3, 5, 4), (2, 3, 3, 3)])
@pytest.mark.parametrize("label", [0, 2])
def test_gradients_against_autograd_of_the_forward_pass(sizes, label):
    layers = layers_of(*sizes)
    features = torch.linspace(-1, 2, sizes[0]).double()
    log_z, found = log_prob_gradients(layers, features, label)
    for layer in layers:
        layer.mean.requires_grad_()
        layer.var.requires_grad_()
    # The logarithm of the probability anew from what the layers do, by draws that do not move.
    mean, var = propagate_moments(layers, features[None])[-1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    std = (var[0] + 1).sqrt()
    total = 0
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        own = mean[0, label] + std[label] * node
        others = [
            torch.special.ndtr((own - mean[0, k]) / std[k]) for k in range(sizes[-1]) if k != label
        ]
        total = total + weight * torch.stack(others).prod()
    total.log().backward()
    assert log_z.item() == pytest.approx(total.log().item(), rel=1e-9)
    for layer, (to_mean, to_var) in zip(layers, found, strict=True):
        torch.testing.assert_close(to_mean, layer.mean.grad, rtol=1e-7, atol=1e-10)
        torch.testing.assert_close(to_var, layer.var.grad, rtol=1e-7, atol=1e-10)


def test_gradient_against_finite_differences():
    layers, features, step = layers_of(2, 3, 3), torch.tensor([0.4, -1.2]).double(), 1e-5
    _, found = log_prob_gradients(layers, features, 1)
    for depth, (kind, index) in (
        (0, ("mean", (2, 1))),
        (0, ("var", (0, 2))),
        (1, ("mean", (1, 0))),
        (1, ("var", (2, 3))),
    ):
        tensor, ends = getattr(layers[depth], kind), []
        for sign in (1, -1):
            tensor[index] += sign * step
            ends.append(log_prob_gradients(layers, features, 1)[0].item())
            tensor[index] -= sign * step
        slope = found[depth][kind == "var"][index].item()
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_linear_update_has_exact_posterior_moments():
    (layer,) = layers_of(2, 3, seed=3)
    features, label = torch.tensor([1.5, -0.5]).double(), 1
    weights = drawn(layer.mean, layer.var, torch.Generator().manual_seed(0), 2_000_000)
    inputs = torch.cat([features, torch.ones(1).double()]) / math.sqrt(3)
    # Weights of the draws: the label's probability, noise of the logits included, by noise that is drawn once a draw.
    logits = (
        weights @ inputs
        + torch.randn(len(weights), 3, generator=torch.Generator().manual_seed(1)).double()
    )
    kept = weights[logits.argmax(1) == label]
    update_on_sample([layer], features, label)
    torch.testing.assert_close(layer.mean, kept.mean(0), atol=0.012, rtol=0)
    torch.testing.assert_close(layer.var, kept.var(0), atol=0.012, rtol=0.01)


@pytest.mark.parametrize("gap", [-2.0, -0.5, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("variance", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("x", [-1.0, 0.5, 2.0])
def test_one_update_of_two_classes_by_hand(gap, variance, x):
    # Class 0 has weight and bias 0 of variance v; class 1 has the mean `gap` in its weight. Inputs are (x, 1) / sqrt 2.
    mean = torch.tensor([[0.0, 0.0], [gap, 0.0]]).double()
    layer = PriorLayer(mean, torch.full((2, 2), variance).double(), mean * 0, mean * 0, mean * 0)
    update_on_sample([layer], torch.tensor([x]).double(), 1)
    # The difference of the noisy logits is N(gap x / sqrt 2, s^2), s^2 = 2 v (x^2 + 1) / 2 + 2; it must be above 0.
    inputs = [x / math.sqrt(2), 1 / math.sqrt(2)]
    spread = math.sqrt(variance * (x * x + 1) + 2)
    alpha = gap * inputs[0] / spread
    hazard = (
        math.exp(-alpha * alpha / 2)
        / math.sqrt(2 * math.pi)
        / (math.erfc(-alpha / math.sqrt(2)) / 2)
    )
    for label, sign in ((0, -1), (1, 1)):
        for place, one in enumerate(inputs):
            start = gap if (label, place) == (1, 0) else 0.0
            # As in probit regression: the truncated normal's moments, spread over independent weights.
            expected_mean = start + sign * variance * one * hazard / spread
            expected_var = variance - (variance * one / spread) ** 2 * hazard * (hazard + alpha)
            assert layer.mean[label, place].item() == pytest.approx(
                expected_mean, rel=2e-4, abs=1e-5
            )
            assert layer.var[label, place].item() == pytest.approx(expected_var, rel=2e-4)


def test_gamma_update_is_exact_for_known_weight():
    shape, rate, weight = 6.0, 4.0, 1.3

    def student(a):  # the marginal of a weight N(0, 1 / lambda), lambda ~ Gamma(a, rate)
        return (
            math.lgamma(a + 0.5)
            - math.lgamma(a)
            + a * math.log(rate)
            - (a + 0.5) * math.log(rate + weight**2 / 2)
        )

    found = gamma_update(*(student(shape + more) for more in (0, 1, 2)), shape, rate)
    assert found == pytest.approx((shape + 0.5, rate + weight**2 / 2))


def test_prior_learns_scale_of_known_weights():
    wide = 3 * torch.randn(20, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.full_like(wide, 5 / 6)
    layer = PriorLayer(wide, torch.full_like(wide, 1e-6), start, 0 * wide, 0 * wide)
    shape, rate = pbp.refine_prior([layer], (6.0, 6.0))
    assert shape / rate == pytest.approx(1 / 9, rel=0.15)
    torch.testing.assert_close(layer.mean, wide, rtol=1e-3, atol=0)
    # What the factors hold adds up to the posterior.
    assert 6 + layer.shape.sum().item() == pytest.approx(shape)
    assert 6 + layer.rate.sum().item() == pytest.approx(rate)


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"hidden": 12}, {"hidden": 12, "prior": "learned"}]
)
def test_learns(options):
    found = (
        ProbabilisticBackprop(passes=4, **options)
        .fit(three_clouds())
        .predict(three_clouds(300, seed=1))
    )
    assert (found.tensors().predicted == found.tensors().target).double().mean() > 0.93
    assert -found.tensors().logits.gather(1, found.tensors().target[:, None]).mean() < 0.25
    torch.testing.assert_close(found.tensors().logits.exp().sum(1), torch.ones(300))


def test_uncertainty_far_from_samples_is_deterministic():
    state = torch.get_rng_state()
    head = ProbabilisticBackprop(hidden=12, passes=4).fit(three_clouds())
    near, far = (
        Predictions(torch.zeros(1, 3), torch.tensor([0]), features=torch.tensor([[0.0, y]]))
        for y in (3.0, 90.0)
    )
    assert head.logit_moments(far)[1].mean() > 10 * head.logit_moments(near)[1].mean()
    again = ProbabilisticBackprop(hidden=12, passes=4).fit(three_clouds()).predict(near)
    assert torch.equal(again.tensors().logits, head.predict(near).tensors().logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert head.num_parameters == 2 * (3 * 12 + 13 * 3)


def test_chunks_do_not_matter(monkeypatch):
    head = ProbabilisticBackprop(hidden=0, passes=1).fit(three_clouds())
    whole = head.predict(three_clouds())
    monkeypatch.setattr(pbp, "_CHUNK_NUMBERS", 1)
    torch.testing.assert_close(
        head.predict(three_clouds()).tensors().logits, whole.tensors().logits
    )


def test_update_to_negative_variance_is_skipped(monkeypatch):
    layer = GaussianLayer(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
    # 1 - 2^2 < 0 < 1 - 0.5^2
    steps = [(torch.tensor([[2.0, 0.5]]).double(), torch.zeros(1, 2).double())]
    monkeypatch.setattr(pbp, "log_prob_gradients", lambda *_: (None, steps))
    update_on_sample([layer], torch.zeros(1), 0)
    assert (layer.mean.tolist(), layer.var.tolist()) == ([[0, 0.5]], [[1, 0.75]])


def test_invalid_options_are_refused():
    train = three_clouds(20)
    for options in ({"hidden": -1}, {"passes": 0}, {"prior": "learnt"}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            ProbabilisticBackprop(**options)
    with pytest.raises(InputError, match="must be fitted"):
        ProbabilisticBackprop().predict(train)
    with pytest.raises(InputError, match=r"features \(N, D\).*got none"):
        ProbabilisticBackprop().fit(Predictions(train.tensors().logits, train.tensors().target))
    head = ProbabilisticBackprop(passes=1).fit(train)
    with pytest.raises(InputError, match=r"features \(N, 2\).*got \(20, 5\)"):
        head.predict(
            Predictions(train.tensors().logits, train.tensors().target, features=torch.zeros(20, 5))
        )
    with pytest.raises(InputError, match="features"):
        ProbabilisticBackprop().fit(
            Predictions(
                train.tensors().logits,
                train.tensors().target,
                features=train.tensors().features * torch.nan,
            )
        )
