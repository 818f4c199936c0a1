import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.losses import LOSSES, Mixup, SpHOR

TARGET = torch.tensor([0, 1, 2, 0])


def call(criterion, features, target, *, head=None):
    if head is None:
        head = torch.zeros(criterion.num_classes, features.shape[1], dtype=features.dtype)
    return criterion(features @ head.T, target, features=features, head_weight=head)


def model(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes))


def orthonormal_rows(count, size):
    """The embeddings that a projection to ``size`` numbers starts from."""
    return SpHOR(num_classes=count, num_features=1, projection=size).vectors.detach()


def orthogonality_penalty(vectors, temperature):
    """What learned embeddings add to the loss, in which fixed ones have no such part."""
    options = {"num_features": 4, "projection": vectors.shape[1], "temperature": temperature}
    features, target = torch.ones(1, 4, dtype=vectors.dtype), torch.tensor([0])
    values = []
    for embeddings in ("learned", "fixed"):
        torch.manual_seed(0)
        criterion = SpHOR(num_classes=len(vectors), embeddings=embeddings, **options)
        criterion = criterion.to(vectors.dtype)
        with torch.no_grad():
            criterion.vectors.copy_(vectors)
        values.append(call(criterion, features, target))
    return (values[0] - values[1]).detach()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 3), (5, 6), (10, 1024), (300, 512)])
def test_rows_are_orthonormal(count, size):
    rows = orthonormal_rows(count, size)
    torch.testing.assert_close(rows @ rows.T, torch.eye(count), rtol=0, atol=1e-5)


def test_rows_by_hand():
    """Frequencies 1 and 0 in two dimensions: (cos 45, cos 135 degrees) and the constant."""
    half = math.sqrt(0.5)
    torch.testing.assert_close(orthonormal_rows(2, 2), torch.tensor([[half, -half], [half, half]]))


def test_penalty_by_hand():
    """Cosines 0.6 (twice), 0 and 0.8 (twice each) of three vectors."""
    vectors = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    pairs = [math.exp(cosine**2 / 0.2) for cosine in (0.6, 0.0, 0.8)]
    expected = math.log(sum(pairs) / 3)
    assert float(orthogonality_penalty(vectors, 0.2)) == pytest.approx(expected, rel=1e-12)
    orthogonal = orthonormal_rows(4, 9).double()
    assert float(orthogonality_penalty(orthogonal, 0.07)) == pytest.approx(0, abs=1e-10)


def test_loss_by_hand():
    """Two classes, the features (3, 4), embeddings along (1, 0) and (0.6, 0.8): cosines 0.6 and 1."""
    criterion = SpHOR(
        num_classes=2,
        num_features=2,
        projection=2,
        temperature=0.5,
        smoothing=0.1,
        embeddings="learned",
        ortho=2.0,
        probe=0.25,
    )
    with torch.no_grad():
        criterion.projector.weight.copy_(torch.eye(2))
        criterion.projector.bias.zero_()
        criterion.vectors.copy_(torch.tensor([[7.0, 0.0], [0.6, 0.8]]))
    first, second = 0.6 / 0.5, 1.0 / 0.5
    total = math.log(math.exp(first) + math.exp(second))
    sphere = 0.9 * (total - first) + 0.1 * (total - second)
    penalty = 0.6**2 / 0.5  # both pairs alike
    probe = math.log(1 + math.exp(4 - 3))  # the head is the identity: logits (3, 4), target 0
    value = call(criterion, torch.tensor([[3.0, 4.0]]), torch.tensor([0]), head=torch.eye(2))
    assert value.item() == pytest.approx(sphere + 2 * penalty + 0.25 * probe, rel=1e-6)


@pytest.mark.parametrize("num_features", [None, 6])
def test_smoothing_and_mixing_in_either_order(num_features):
    """The loss of a mixed target is the mixture of the losses of both targets, smoothed as the code smooths them."""
    criterion = SpHOR(num_classes=3, num_features=num_features, smoothing=0.2, probe=0)
    features = torch.rand(1, 6)
    one_hot = torch.eye(3)
    mixed = call(criterion, features, 0.3 * one_hot[:1] + 0.7 * one_hot[2:])
    alone = [call(criterion, features, torch.tensor([label])) for label in (0, 2)]
    torch.testing.assert_close(mixed, 0.3 * alone[0] + 0.7 * alone[1])
    # 1 - smoothing for the class itself, half of smoothing for each other one.
    sharp = SpHOR(num_classes=3, num_features=num_features, smoothing=0, probe=0)
    sharp.load_state_dict(criterion.state_dict())
    torch.testing.assert_close(alone[0], call(sharp, features, torch.tensor([[0.8, 0.1, 0.1]])))


def test_it_mixes_as_mixup_does():
    inputs = torch.rand(4, 1, 5, 5)
    torch.manual_seed(1)
    ours = SpHOR(num_classes=3, mix_alpha=0.6).mix(inputs, TARGET)
    torch.manual_seed(1)
    theirs = Mixup(num_classes=3, alpha=0.6).mix(inputs, TARGET)
    assert torch.equal(ours.inputs, theirs.inputs)
    assert torch.equal(ours.target, theirs.target)
    unmixed = SpHOR(num_classes=3, mix_alpha=0).mix(inputs, TARGET)
    assert unmixed.inputs is inputs
    assert unmixed.target is TARGET
    with pytest.raises(InputError, match=r"SpHOR\.mix: target .*\[0, 3\)"):
        SpHOR(num_classes=3).mix(inputs, TARGET + 1)


def test_gradient_by_finite_differences():
    criterion = SpHOR(
        num_classes=3, num_features=4, projection=5, temperature=0.3, probe=0
    ).double()
    features = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    head = torch.zeros(3, 4, dtype=torch.float64)

    def loss(features, vectors, weight):
        parameters = {
            "vectors": vectors,
            "projector.weight": weight,
            "projector.bias": torch.ones(5).double(),
        }
        given = {"features": features, "head_weight": head}
        return torch.func.functional_call(criterion, parameters, (features @ head.T, TARGET), given)

    vectors = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (features, vectors, weight))


def test_probe_trains_head_but_not_features():
    inputs = torch.randn(4, 4)

    def slopes(probe):
        torch.manual_seed(3)
        objective = Objective(
            model(), SpHOR(num_classes=3, num_features=6, projection=8, probe=probe, mix_alpha=0)
        ).double()
        objective(inputs.double(), TARGET)[0].backward()
        return objective.model[0].weight.grad, objective.model[2].weight.grad

    body, head = slopes(0.5)
    body_alone, no_head = slopes(0.0)
    torch.testing.assert_close(body, body_alone)
    assert float(no_head.abs().sum()) == 0
    net = model().double()
    (0.5 * F.cross_entropy(net(inputs.double()), TARGET)).backward()
    torch.testing.assert_close(head, net[2].weight.grad)


def test_a_step_pulls_features_toward_their_embedding():
    criterion = SpHOR(num_classes=3, smoothing=0, probe=0)
    features = torch.rand(4, 6, requires_grad=True)
    call(criterion, features, TARGET).backward()
    rows = orthonormal_rows(3, 6)
    moved = features.detach() - 0.01 * features.grad
    before, after = (
        F.cosine_similarity(points, rows[TARGET]) for points in (features.detach(), moved)
    )
    assert (after > before).all()
    # On a sphere, the length of the features is free.
    assert float((features.detach() * features.grad).sum(1).abs().max()) < 1e-5


def test_features_without_a_direction():
    criterion = SpHOR(num_classes=3, smoothing=0, probe=0)
    features = torch.zeros(2, 6, requires_grad=True)
    value = call(criterion, features, torch.tensor([0, 1]))
    value.backward()
    assert value.item() == pytest.approx(math.log(3))
    assert float(features.grad.abs().sum()) == 0


def test_learned_embeddings_become_orthogonal():
    torch.manual_seed(0)
    criterion = SpHOR(num_classes=4, num_features=5, projection=6, probe=0, ortho=100.0)
    with torch.no_grad():
        criterion.vectors.copy_(
            torch.ones(4, 6) + 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        )
    features, target = torch.zeros(1, 5), torch.tensor([0])  # without a direction
    optimizer = torch.optim.SGD([criterion.vectors], lr=0.005)
    start = float(orthogonality_penalty(criterion.vectors.detach(), 0.07))
    for _ in range(200):
        optimizer.zero_grad()
        call(criterion, features, target).backward()
        optimizer.step()
    assert start > 10
    assert float(orthogonality_penalty(criterion.vectors.detach(), 0.07)) < 0.05


@pytest.mark.parametrize("embeddings", ["learned", "fixed"])
def test_state_is_saved_and_loaded(embeddings):
    first = SpHOR(num_classes=3, num_features=6, projection=8, embeddings=embeddings)
    with torch.no_grad():
        first.vectors += 1
    second = SpHOR(num_classes=3, num_features=6, projection=8, embeddings=embeddings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    features = torch.rand(4, 6)
    assert torch.equal(call(first, features, TARGET), call(second, features, TARGET))
    learned = {name for name, _ in first.named_parameters()}
    assert learned == {
        "projector.weight",
        "projector.bias",
        *(["vectors"] if embeddings == "learned" else []),
    }


def test_two_halves_with_averaged_gradients_are_the_whole():
    """What two ranks do: the gradients of projection and embeddings are means over equal halves."""
    criterion, features = SpHOR(num_classes=3, num_features=6, projection=8), torch.rand(4, 6)

    def slopes(rows):
        criterion.zero_grad()
        call(criterion, features[rows], TARGET[rows]).backward()
        return [parameter.grad.clone() for parameter in criterion.parameters()]

    halves = zip(slopes(slice(0, 2)), slopes(slice(2, 4)), strict=True)
    for whole, (one, other) in zip(slopes(slice(None)), halves, strict=True):
        torch.testing.assert_close(whole, (one + other) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_features": 6, "projection": 2},
            "at least the number of classes, 3; got 2",
        ),
        ({"smoothing": 0.7}, "smoothing"),
        ({"embeddings": "frozen"}, "embeddings"),
        ({"num_features": 0}, "num_features"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        SpHOR(num_classes=3, **options)


def test_features_of_another_length():
    with pytest.raises(InputError, match=r"must have 6 columns .*; got shape \(4, 5\)"):
        call(SpHOR(num_classes=3, num_features=6), torch.rand(4, 5), TARGET)
    with pytest.raises(InputError, match="at least the number of classes, 3"):
        call(SpHOR(num_classes=3), torch.rand(4, 2), TARGET)


def test_without_num_features_there_are_no_parameters():
    assert list(LOSSES.build("sphor", {}, num_classes=3).parameters()) == []
