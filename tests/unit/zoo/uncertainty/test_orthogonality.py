"""The penalty against NumPy, loop by loop, and what it does to a model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.objective import Objective
from fedlas.zoo.uncertainty import OrthogonalityPenalty


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2, groups=1),
        nn.Flatten(),
        nn.Linear(27, 5),
    )


def filters(model):
    """Rows of every layer, by name: what a penalty takes of each earlier member."""
    layers = ((name, module) for name, module in model.named_modules() if hasattr(module, "weight"))
    return {name: layer.weight.flatten(1) for name, layer in layers if layer.weight.ndim > 1}


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def rows_of(layer):
    return layer.weight.detach().double().numpy().reshape(len(layer.weight), -1)


def by_hand(model, earlier, self_weight, inter_weight):
    total = 0.0
    for position in (0, 3, 5):
        mine = rows_of(model[position])
        for i in range(len(mine)):
            total += self_weight * sum(cosine(mine[i], mine[j]) ** 2 for j in range(i))
        for other in earlier:
            theirs = rows_of(other[position])
            total += (
                inter_weight / len(earlier) * sum(cosine(a, b) ** 2 for a in mine for b in theirs)
            )
    return total


@pytest.mark.parametrize("num_earlier", [0, 1, 3])
def test_against_numpy(num_earlier):
    model, earlier = network(0), [network(seed) for seed in range(1, num_earlier + 1)]
    penalty = OrthogonalityPenalty([filters(m) for m in earlier], self_weight=0.3, inter_weight=0.7)
    assert penalty(model).item() == pytest.approx(by_hand(model, earlier, 0.3, 0.7), rel=1e-5)


def orthogonality(rows, earlier=None):
    """The penalty of a layer with these rows: among themselves, or with those of another layer."""
    layers = [
        nn.Linear(*part.shape[::-1], bias=False)
        for part in (rows, rows if earlier is None else earlier)
    ]
    with torch.no_grad():
        for layer, part in zip(layers, (rows, rows if earlier is None else earlier), strict=True):
            layer.weight.copy_(part)
    if earlier is None:
        return OrthogonalityPenalty(self_weight=1.0, inter_weight=0.0)(layers[0]).item()
    return OrthogonalityPenalty([filters(layers[1])], self_weight=0.0, inter_weight=1.0)(
        layers[0]
    ).item()


def test_bounds():
    square = torch.eye(3) * torch.tensor([[1.0], [5.0], [0.1]])
    assert orthogonality(square) == 0
    assert orthogonality(square, square) == pytest.approx(3)
    same = torch.tensor([[1.0, 2.0]] * 4)
    assert orthogonality(same) == pytest.approx(6)
    assert orthogonality(same, -same) == pytest.approx(16)
    assert orthogonality(torch.zeros(3, 4)) == 0  # a dead filter is orthogonal to all, not NaN


def test_gradient_decorrelates_filters_of_new_member_only():
    model, first = network(0), network(0)
    before = copy.deepcopy(first.state_dict())
    penalty = OrthogonalityPenalty([filters(first)], self_weight=1.0, inter_weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    start = penalty(model).item()
    for _ in range(50):
        optimizer.zero_grad()
        penalty(model).backward()
        optimizer.step()
    assert penalty(model).item() < 0.7 * start
    torch.testing.assert_close(dict(first.state_dict()), dict(before), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in first.parameters())


def test_earlier_filters_are_copied_outside_state_dict():
    first = network(1)
    penalty = OrthogonalityPenalty([filters(first)])
    value = penalty(network(0)).item()
    with torch.no_grad():
        first[0].weight.zero_()
    assert penalty(network(0)).item() == value
    assert not penalty.state_dict()
    assert not list(penalty.parameters())
    assert all(buffer.dtype == torch.float64 for buffer in penalty.double().buffers())


def test_objective_adds_penalty_in_training_only():
    model = network(0)
    penalty = OrthogonalityPenalty([filters(network(1))])
    objective, plain = (
        Objective(model, nn.CrossEntropyLoss(), penalty=penalty),
        Objective(model, nn.CrossEntropyLoss()),
    )
    images, target = torch.randn(4, 2, 6, 6), torch.tensor([0, 1, 2, 3])
    with_it, without = objective(images, target)[0], plain(images, target)[0]
    assert (with_it - without).item() == pytest.approx(penalty(model).item(), rel=1e-5)
    torch.testing.assert_close(objective.eval()(images, target)[0], plain.eval()(images, target)[0])
    objective.train()
    with torch.autocast("cpu", torch.bfloat16):
        half = objective(images, target)[0] - plain(images, target)[0]
    # bfloat16 would be off by a percent
    assert half.item() == pytest.approx(penalty(model).item(), rel=1e-4)


def test_invalid_weights_or_models_are_refused():
    with pytest.raises(InputError, match="linear or convolutional"):
        OrthogonalityPenalty()(nn.ReLU())
    with pytest.raises(InputError, match="self_weight"):
        OrthogonalityPenalty(self_weight=-1.0)
    with pytest.raises(InputError, match="same layers"):
        OrthogonalityPenalty([filters(nn.Linear(2, 3))])(nn.Linear(3, 3))
    with pytest.raises(InputError, match=r"penalty .*nn\.Module"):
        Objective(network(0), nn.CrossEntropyLoss(), penalty=lambda model: 0)
