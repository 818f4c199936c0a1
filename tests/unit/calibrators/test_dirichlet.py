import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import BetaCalibration, DirichletCalibration


def test_an_offset_of_each_row_does_not_matter(generated):
    val = generated(300)
    random = torch.Generator().manual_seed(1)
    moved = Predictions(
        val.tensors().logits + 20 * torch.randn(300, 1, generator=random, dtype=torch.float64),
        val.tensors().target,
    )
    one, other = (DirichletCalibration(1.0, 1.0).fit(p) for p in (val, moved))
    torch.testing.assert_close(
        other.transform(moved).tensors().probs,
        one.transform(val).tensors().probs,
        rtol=1e-6,
        atol=1e-8,
    )
    torch.testing.assert_close(other.weight, one.weight, rtol=1e-5, atol=1e-6)


def test_it_is_the_map_of_log_probabilities(generated):
    val = generated(300)
    dirichlet = DirichletCalibration(1.0, 1.0).fit(val)
    by_hand = (val.tensors().probs.log() @ dirichlet.weight.T + dirichlet.bias).softmax(1)
    torch.testing.assert_close(dirichlet.transform(val).tensors().probs, by_hand)


def test_two_classes_are_beta_calibration(generated):
    """The paper's special case: without penalties both are the same logistic regression."""
    val = generated(5000, classes=2, distort=lambda z: 2 * z + z.sigmoid())
    beta = BetaCalibration().fit(val)
    assert bool((beta.parameters["a"] > 0).all() and (beta.parameters["b"] > 0).all())
    dirichlet = DirichletCalibration(0.0, 0.0).fit(val)
    torch.testing.assert_close(
        dirichlet.transform(val).tensors().probs,
        beta.transform(val).tensors().probs,
        rtol=0,
        atol=2e-3,
    )


def test_dirichlet_distributed_probabilities_become_calibrated():
    """Where the paper's assumption holds, the fitted map is Bayes' rule."""
    torch.manual_seed(0)
    alpha = torch.tensor([[6.0, 2, 1], [1, 4, 2], [1, 1, 3]]).double()
    prior = torch.tensor([0.5, 0.3, 0.2]).double()
    target = torch.multinomial(prior, 20_000, replacement=True)
    probs = torch.distributions.Dirichlet(alpha[target]).sample()
    likelihood = torch.stack(
        [torch.distributions.Dirichlet(row).log_prob(probs) for row in alpha], dim=1
    )
    posterior = (likelihood + prior.log()).softmax(1)
    val = Predictions(probs.log(), target)
    calibrated = DirichletCalibration().fit(val).transform(val)
    assert float((calibrated.tensors().probs - posterior).abs().mean()) < 0.01
    assert float((val.tensors().probs - posterior).abs().mean()) > 0.1


@pytest.mark.parametrize("margin", [1e3, 1e30])
def test_extreme_logits(margin):
    val = Predictions(
        torch.tensor([[margin, 0.0], [0.0, margin], [margin, 0.0], [0.0, margin]]), [0, 1, 1, 1]
    )
    calibrated = DirichletCalibration(1.0, 1.0).fit(val).transform(val)
    torch.testing.assert_close(
        calibrated.tensors().probs[:, 0], torch.tensor([0.5, 0.0, 0.5, 0.0]), rtol=0, atol=0.05
    )
