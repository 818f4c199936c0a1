"""A gate that no optimizer has is noticed, once; one that is trained, frozen or waits is not."""

import copy
import pickle
import warnings

import pytest
import torch

import fedlas
from fedlas.errors import CalibrationWarning
from fedlas.losses import FedLAS, LabelSmoothing

N, C = 12, 3


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, C))


def train(objective, optimizer, steps, *, parts=1, zero=None):
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        (zero or optimizer).zero_grad()
        for _ in range(parts):
            target = torch.randint(C, (N,), generator=random)
            loss, _ = objective(torch.randn(N, 4, generator=random), target)
            loss.backward()
        optimizer.step()


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, lr=0.1, **options)


def test_gate_missing_from_optimizer_warns_once():
    objective = fedlas.Objective(network(), FedLAS(num_classes=C))
    optimizer = sgd(objective.model.parameters())
    with pytest.warns(
        CalibrationWarning, match=r"FedLAS: .*fedlas\.param_groups\(objective\)"
    ) as told:
        train(objective, optimizer, 90)
    assert len(told) == 1
    assert told[0].filename == __file__


def test_a_gate_without_an_objective_is_named_too():
    model, criterion = network(), FedLAS(num_classes=C)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        optimizer.zero_grad(set_to_none=False)
        features = model[1](model[0](torch.randn(N, 4)))
        criterion(model[2](features), torch.randint(C, (N,)), features=features).backward()
        optimizer.step()

    for _ in range(30):
        step()
    with pytest.warns(CalibrationWarning, match=r"\*criterion\.parameters\(\)"):
        step()


@pytest.mark.parametrize(
    "kind", ["groups", "two optimizers", "learning rate of 0", "frozen", "no gate"]
)
def test_trained_or_frozen_gate_does_not_warn(kind):
    criterion = LabelSmoothing() if kind == "no gate" else FedLAS(num_classes=C)
    objective = fedlas.Objective(network(), criterion)
    if kind == "frozen":
        criterion.requires_grad_(False)
    own = {"params": list(criterion.parameters()), "lr": 0.0}
    if kind in ("frozen", "no gate"):
        optimizer = sgd(objective.model.parameters())
    elif kind == "learning rate of 0":
        optimizer = sgd([{"params": list(objective.model.parameters())}, own])
    else:
        optimizer = sgd(fedlas.param_groups(objective))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "two optimizers":
            other = sgd(criterion.parameters())
            optimizer = sgd(objective.model.parameters())
            for _ in range(60):
                train(objective, optimizer, 1)
                other.step()
                other.zero_grad()
        else:
            train(objective, optimizer, 60)


def test_accumulated_gradients_are_no_steps():
    objective = fedlas.Objective(network(), FedLAS(num_classes=C))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(objective, sgd(fedlas.param_groups(objective)), 2, parts=40)
        # Without the gate, but of few steps of the model.
        train(objective, sgd(objective.model.parameters()), 2, parts=10)


def test_a_copy_and_a_pickle_watch_anew():
    objective = fedlas.Objective(network(), FedLAS(num_classes=C))
    optimizer = sgd(objective.model.parameters())
    with pytest.warns(CalibrationWarning):
        train(objective, optimizer, 40)
    for again in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        train(again, sgd(fedlas.param_groups(again)), 2)
    fresh = fedlas.Objective(network(), FedLAS(num_classes=C))
    train(fresh, sgd(fresh.model.parameters()), 25)
    for again in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        with pytest.warns(CalibrationWarning, match="param_groups"):
            train(again, sgd(again.model.parameters()), 40)
