"""New heads: the KL and the ELBO by hand, and a body that stays bit for bit what it was."""

import copy

import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.features import find_head
from fedlas.lab.models import build_model
from fedlas.losses import FedLAS
from fedlas.objective import Objective, predict
from fedlas.zoo.uncertainty import LatentKL, MLPHead, TwoStage, VariationalHead

C = 3
HEADS = {
    "mlp": lambda size: MLPHead(size, 7, C),
    "variational": lambda size: VariationalHead(size, 7, C, samples=5),
}


def body_of(name="resnet8"):
    torch.manual_seed(0)
    model = build_model(name, num_classes=C, in_channels=1, image_size=8)
    model.train()(torch.randn(16, 1, 8, 8))  # statistics that are not those of a new network
    return model


def batch(count=12):
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 8, 8, generator=random), torch.arange(count) % C


def two_stage(kind):
    model = body_of()
    return TwoStage(model, HEADS[kind](model.fc.in_features))


def objective_of(model, kind):
    penalty = LatentKL() if kind == "variational" else None
    return Objective(model, nn.CrossEntropyLoss(), head=model.head, penalty=penalty)


@pytest.mark.parametrize("kind", HEADS)
def test_body_is_unchanged_and_head_learns(kind):
    model = two_stage(kind)
    before = copy.deepcopy(model.state_dict())
    objective = objective_of(model, kind)
    optimizer = torch.optim.AdamW(
        [p for p in objective.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1
    )
    losses = []
    for _ in range(60):
        loss, _ = objective.train()(*batch())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == (not key.startswith("model.fc.")), key
    assert any("running_mean" in key for key in before)


@pytest.mark.parametrize("kind", HEADS)
def test_only_the_head_trains(kind):
    model = two_stage(kind).train()
    head = set(model.head.modules())
    assert model.training
    assert all(module.training == (module in head) for module in model.model.modules())
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in model.head.parameters()
    }
    assert not any(module.training for module in model.eval().modules())
    images, _ = batch()
    features = []
    plain = body_of().eval()
    handle = plain.fc.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    plain(images)
    handle.remove()
    torch.testing.assert_close(model(images), model.head(features[0]))


def test_a_part_predict_and_losses_that_need_features():
    model = two_stage("variational")
    found = predict(model, [batch()], features=True, head=model.head)
    assert found.features.shape == (12, 64)
    assert find_head(model) is model.head.out
    objective = Objective(model, FedLAS(num_classes=C), head=model.head, penalty=LatentKL())
    assert torch.isfinite(objective(*batch())[0])


def test_kl_against_torch():
    torch.manual_seed(0)
    head, features = VariationalHead(4, 6, C).train(), torch.randn(5, 4)
    head(features)
    hidden = head.body(features)
    q = torch.distributions.Normal(head.mean(hidden), (0.5 * head.log_var(hidden)).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(head.pop_kl(), expected.mean())


def test_the_objective_is_the_negative_elbo():
    torch.manual_seed(0)
    head = VariationalHead(6, 4, C)
    objective = Objective(head, nn.CrossEntropyLoss(), penalty=LatentKL(0.25))
    features, target = torch.randn(9, 6), torch.arange(9) % C
    torch.manual_seed(3)
    loss, logits = objective(features, target)
    torch.manual_seed(3)
    hidden = torch.relu(features @ head.body[0].weight.T + head.body[0].bias)
    mean = hidden @ head.mean.weight.T + head.mean.bias
    log_var = hidden @ head.log_var.weight.T + head.log_var.bias
    z = mean + log_var.exp().sqrt() * torch.randn(9, 4)
    torch.testing.assert_close(logits, z @ head.out.weight.T + head.out.bias)
    kl = (0.5 * (log_var.exp() + mean**2 - 1 - log_var)).sum(1)
    elbo = logits.log_softmax(1)[torch.arange(9), target] - 0.25 * kl
    torch.testing.assert_close(loss, -elbo.mean())
    loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    copy.deepcopy(objective)
    with pytest.raises(InputError, match="run in training mode"):  # each batch counts once
        head.pop_kl()


def test_eval_averages_draws_of_its_own():
    torch.manual_seed(0)
    head = VariationalHead(6, 4, C, samples=50_000, seed=1).eval()
    nn.init.constant_(head.log_var.bias, -2.0)
    nn.init.normal_(head.out.weight)  # so that the spread shows
    features = torch.randn(8, 6)
    state = torch.get_rng_state()
    with torch.no_grad():
        logits = head(features)
        assert torch.equal(torch.get_rng_state(), state)
        # What is said of one input depends on it alone.
        torch.testing.assert_close(torch.cat([head(row[None]) for row in features]), logits)
        hidden = head.body(features)
        z = torch.distributions.Normal(
            head.mean(hidden), (0.5 * head.log_var(hidden)).exp()
        ).sample((50_000,))
        torch.testing.assert_close(logits.exp(), head.out(z).softmax(2).mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(8))


def test_invalid_models_or_sizes_are_refused():
    with pytest.raises(InputError, match="layers before its head"):
        TwoStage(nn.Linear(4, 3), MLPHead(4, 5, 3))
    with pytest.raises(InputError, match="one recognizable classifier head"):
        TwoStage(nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(3, 3)}), MLPHead(4, 5, 3))
    with pytest.raises(InputError, match="exactly one VariationalHead"):
        LatentKL()(nn.Linear(4, 3))
    with pytest.raises(InputError, match="samples"):
        VariationalHead(4, 5, 3, samples=0)
