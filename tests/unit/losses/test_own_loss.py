"""A loss of one's own that returns something else than a value a position, or trains nothing, is refused."""

import pytest
import torch

import fedlas
from fedlas.errors import InputError
from fedlas.losses import Loss, LossWrapper, MultiLabelLoss, PenalizedLoss, Tempered

N, C = 8, 3


def returns(function):
    class Mine(Loss):
        def per_sample(self, batch):
            return function(batch)

    return Mine


def batch(dense=()):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(N, C, *dense, generator=random, requires_grad=True)
    return logits, torch.randint(C, (N, *dense), generator=random)


WRONG = {
    "a scalar": (lambda b: b.cross_entropy().mean(), r"without \.mean\(\)"),
    "all classes": (lambda b: -b.logits.log_softmax(dim=1), r"values\.sum\(dim=1\)"),
    "a column": (lambda b: b.cross_entropy()[:, None], r"values\.squeeze\(1\)"),
    "fewer": (lambda b: b.cross_entropy()[1:], r"one value per row of batch\.logits"),
    "a float": (lambda b: b.cross_entropy().mean().item(), r"floating tensor \(8,\); got"),
    "whole numbers": (lambda b: b.logits.argmax(1), "int64"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_another_shape_is_refused_at_each_call(name, reduction):
    function, fix = WRONG[name]
    criterion = returns(function)(reduction=reduction)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"Mine\.per_sample must return.*{fix}"):
            criterion(*batch())
    with pytest.raises(InputError, match=r"Mine\.per_sample"):
        criterion.eval()(*batch())


def test_another_shape_is_refused_for_dense_logits():
    criterion = returns(lambda b: b.cross_entropy().reshape(N, 4))()
    with pytest.raises(InputError, match=r"floating tensor \(32,\)"):
        criterion(*batch((4,)))


def test_another_shape_is_refused_inside_other_losses():
    scalar = returns(lambda b: b.cross_entropy().mean())()

    class Pulled(PenalizedLoss):
        alpha = 0.1

        def parts(self, b):
            return b.cross_entropy().mean(), b.logits.square().sum(dim=1)

    for criterion in (Pulled(), Tempered(base=scalar, num_classes=C)):
        with pytest.raises(InputError, match="per_sample must return"):
            criterion(*batch())
    several = MultiLabelLoss(num_labels=C, base=scalar)
    logits, _ = batch()
    with pytest.raises(InputError, match=r"Mine\.per_sample .* \(24,\)"):
        several(logits, torch.zeros(N, C))


INDEPENDENT = {
    "a constant": lambda b: torch.ones(len(b.logits)),
    "detached": lambda b: b.cross_entropy().detach(),
    "of a parameter alone": lambda b: torch.ones(len(b.logits), requires_grad=True) * 2,
    "detached logits": lambda b: torch.nn.functional.cross_entropy(
        b.logits.detach(), b.target, reduction="none"
    ),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_loss_detached_from_logits_raises_in_training(name):
    criterion = returns(INDEPENDENT[name])()
    logits, target = batch()
    for given in (logits, 2 * logits, logits.half(), logits.double()):
        with pytest.raises(
            InputError, match="loss of Mine must have a gradient with respect to the logits"
        ):
            criterion(given, target)
    model = torch.nn.Linear(4, C)
    objective = fedlas.Objective(model, criterion)
    with pytest.raises(InputError, match="must have a gradient with respect to the logits"):
        objective(torch.randn(N, 4), target)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_loss_detached_from_logits_works_without_gradients(name):
    criterion = returns(INDEPENDENT[name])()
    logits, target = batch()
    criterion(logits.detach(), target)
    with torch.no_grad():
        criterion(logits, target)
    criterion.eval()(logits, target)


def test_any_gradient_path_to_logits_is_found():
    class Doubled(LossWrapper):
        def per_sample(self, b):
            return 2 * self.base.per_sample(b)

    def in_place(b):
        changed = b.logits * 1.0
        changed[:, 0] += 1
        return changed.logsumexp(dim=1)

    logits, target = batch()
    for criterion in (Doubled("brier"), returns(in_place)(), returns(lambda b: b.logits[:, 0])()):
        for given in (logits, logits.half(), 3 * logits):
            criterion(given, target).backward()


def test_dependence_is_asked_once():
    calls = []

    def switching(b):
        calls.append(1)
        values = b.cross_entropy()
        return values if len(calls) == 1 else values.detach()

    criterion = returns(switching)()
    criterion(*batch())
    criterion(*batch())
    assert len(calls) == 2
