import copy
import pickle

import pytest
import torch
from torch import nn

import fedlas
from fedlas.integrations.drop_in import DropInLoss
from fedlas.losses import CutMix, FedLAS, LabelSmoothing


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    model.add_module("fc", nn.Linear(8, 3))
    return model


def batches(count=4, samples=10):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, samples, 6, generator=generator)
    return list(zip(images, images[..., :3].argmax(-1), strict=True))


def criterion():
    torch.manual_seed(1)
    return FedLAS(num_classes=3, alpha=0.2)


def test_trains_bit_for_bit_like_an_objective():
    model, reference = network(), network()
    loss, objective = DropInLoss(model, criterion()), fedlas.Objective(reference, criterion())
    for part in (loss, objective):
        optimizer = torch.optim.SGD(
            loss.param_groups(weight_decay=0.1)
            if part is loss
            else fedlas.param_groups(objective, weight_decay=0.1),
            lr=0.1,
        )
        for images, target in batches():
            optimizer.zero_grad()
            (
                loss(model(images), target) if part is loss else objective(images, target)[0]
            ).backward()
            optimizer.step()
    for a, b in ((model, reference), (loss.criterion, objective.criterion)):
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name]), name
    assert int(loss.criterion.nci.num_batches_tracked) == 4


def test_loss_has_own_state_and_leaves_model_untouched():
    model = network()
    keys = set(model.state_dict())
    loss = DropInLoss(model, criterion())
    assert set(model.state_dict()) == keys
    assert all(name.startswith("criterion.") for name in loss.state_dict())
    assert {id(p) for p in loss.parameters()} == {id(p) for p in loss.criterion.parameters()}
    loss.remove()
    assert not any(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_optimizer_gets_the_gate_once_without_decay():
    model = network()
    loss = DropInLoss(model, criterion())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.3)
    loss.add_to_optimizer(optimizer, lr=0.05)
    loss.add_to_optimizer(optimizer)
    assert [(len(g["params"]), g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [
        (4, 0.3, 0.1),
        (4, 0.0, 0.05),
    ]


@pytest.mark.parametrize("made", [LabelSmoothing(), nn.CrossEntropyLoss()])
def test_what_needs_nothing_is_called_as_it_is(made):
    model = network()
    loss = DropInLoss(model, made)
    images, target = batches()[0]
    assert loss(model(images), target).item() == made(model(images), target).item()
    loss.update_from_validation(fedlas.Predictions(model(images), target))
    assert loss.param_groups()[0]["name"] == "model"


def test_copies_and_pickles_listen_to_their_own_model():
    pair = nn.ModuleList([network()])
    pair.append(DropInLoss(pair[0], criterion()))
    for model, loss in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert loss.model is model
        assert model is not pair[0]
        images, target = batches()[0]
        loss(model(images), target)
        assert int(loss.criterion.nci.num_batches_tracked) == 1
    assert int(pair[1].criterion.nci.num_batches_tracked) == 0


def test_call_not_matching_last_forward_raises():
    model = network()
    loss = DropInLoss(model, criterion())
    images, target = batches()[0]
    logits = model(images)
    with pytest.raises(ValueError, match="once after each forward pass"):
        loss(logits[:5], target[:5])
    with pytest.raises(ValueError, match="features of no forward pass"):
        loss(logits, target)
    with pytest.raises(ValueError, match="must not mix"):
        DropInLoss(model, CutMix(num_classes=3))
    with pytest.raises(ValueError, match=r"nn\.Module"):
        DropInLoss(None, criterion())
    assert int(loss.criterion.nci.num_batches_tracked) == 0


def test_head_called_twice_raises_only_in_the_loss():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, images):
            return self.fc(images) + self.fc(-images)

    model = Twice()
    loss = DropInLoss(model, criterion())
    images, target = batches()[0]
    logits = model(images)
    with pytest.raises(ValueError, match="exactly once"):
        loss(logits, target)
