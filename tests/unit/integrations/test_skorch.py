import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from fedlas import Objective, param_groups
from fedlas.losses import FedLAS

pytest.importorskip("skorch")
from fedlas.integrations.skorch import CriterionClassifier


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def criterion():
    torch.manual_seed(1)
    return FedLAS(num_classes=3, alpha=0.2)


def data(samples=40):
    images = np.random.default_rng(0).normal(size=(samples, 6)).astype(np.float32)
    return images, images[:, :3].argmax(1)


def made(**options):
    usual = {
        "criterion": criterion,
        "head": "2",
        "max_epochs": 3,
        "batch_size": 20,
        "lr": 0.1,
        "train_split": None,
    }
    usual |= {"optimizer__weight_decay": 0.1, "verbose": 0}
    return CriterionClassifier(network, **usual | options)


def test_trains_bit_for_bit_like_an_objective():
    images, target = data()
    net = made().fit(images, target)
    objective = Objective(network(), criterion(), head="2")
    optimizer = torch.optim.SGD(param_groups(objective, weight_decay=0.1), lr=0.1)
    for _ in range(3):
        for part in range(2):
            rows = slice(20 * part, 20 * part + 20)
            optimizer.zero_grad()
            objective(torch.from_numpy(images[rows]), torch.from_numpy(target[rows]))[0].backward()
            optimizer.step()
    for ours, reference in (
        (net.module_, objective.model),
        (net.criterion_.criterion, objective.criterion),
    ):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, reference.state_dict()[name]), name


def test_probabilities_are_the_softmax_of_the_logits():
    images, target = data()
    net = made().fit(images, target)
    probs = net.predict_proba(images)
    np.testing.assert_allclose(probs, net.forward(images).softmax(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_saved_parameters_bring_gate_and_nci_back(tmp_path):
    images, target = data()
    files = {f"f_{name}": tmp_path / f"{name}.pt" for name in ("params", "optimizer", "criterion")}
    whole = made(max_epochs=4).fit(images, target)
    made(max_epochs=2).fit(images, target).save_params(**files)
    rest = made(max_epochs=2).initialize()
    rest.load_params(**files)
    rest.partial_fit(images, target)
    for name, value in whole.criterion_.state_dict().items():
        assert torch.equal(rest.criterion_.state_dict()[name], value), name
    assert int(rest.criterion_.criterion.nci.num_batches_tracked) == 8


def test_as_scikit_learn_uses_it():
    images, target = data()
    net = made(criterion=FedLAS, criterion__num_classes=3)
    fitted = clone(net).fit(images, target)
    assert fitted.get_params()["criterion__num_classes"] == 3
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(images), fitted.predict_proba(images))
    again.partial_fit(images, target)
    again.set_params(criterion__alpha=0.3).fit(images, target)
    assert again.criterion_.criterion.alpha == 0.3
    assert made(criterion=nn.CrossEntropyLoss).fit(images, target).score(images, target) > 0.3


def test_validation_keeps_nci_and_new_module_is_hooked():
    from skorch.dataset import ValidSplit

    images, target = data()
    net = made(train_split=ValidSplit(2), max_epochs=1, batch_size=10).fit(images, target)
    assert int(net.criterion_.criterion.nci.num_batches_tracked) == 2
    net.set_params(module=nn.Linear, module__in_features=6, module__out_features=3, head=None)
    net.fit(images, target)
    assert net.criterion_.model is net.module_
