"""What every registered model must keep to. A new one is tested by being registered."""

import copy
import inspect

import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import MODELS, build_model

pytestmark = pytest.mark.system

SIZE = 8


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors here are tiny: more threads would only wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# "hf" is built from a checkpoint, whose head and sizes are its own: tests/unit/lab/models/test_fine_tuning.py
@pytest.fixture(params=[name for name in MODELS if name != "hf"], scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    torch.manual_seed(0)
    return build_model(name, num_classes=7, in_channels=3, image_size=SIZE)


@pytest.fixture
def images():
    return torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def deep(model):
    return sum(1 for _ in model.modules()) > 100


def test_logits_are_one_linear_of_pooled_features(model, images):
    seen = {}
    handle = model.fc.register_forward_hook(
        lambda module, args, output: seen.update(features=args[0], logits=output)
    )
    logits = model.eval()(images)
    handle.remove()
    assert isinstance(model.fc, nn.Linear)
    assert logits.shape == (4, 7)
    assert logits is seen["logits"]
    assert seen["features"].shape == (4, model.fc.in_features)


def test_every_parameter_learns(model, images):
    twin = copy.deepcopy(model).train()
    nn.functional.cross_entropy(twin(images), torch.tensor([0, 1, 2, 3])).backward()
    assert [
        key
        for key, value in twin.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.any())
    ] == []


@pytest.mark.system
def test_traced_without_a_break(model, images):
    if deep(model):
        pytest.skip("seconds of tracing; its blocks are those of a shallower one")
    traced = torch.compile(model.eval(), fullgraph=True, backend="eager")
    assert torch.allclose(traced(images), model(images))


def test_same_seed_same_weights_and_state_dict_round_trip(name, model, images):
    torch.manual_seed(0)
    again = build_model(name, num_classes=7, in_channels=3, image_size=SIZE)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    state = {key: value + 1 for key, value in model.state_dict().items()}
    again.load_state_dict(state)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in state.items())


def test_another_number_of_channels(name):
    built = build_model(name, num_classes=2, in_channels=1, image_size=SIZE).eval()
    assert built(torch.randn(1, 1, SIZE, SIZE)).shape == (1, 2)


def test_starts_with_logits_of_ordinary_size(model, images):
    """Neither dead nor exploding, in training mode as at the first step."""
    with torch.no_grad():
        logits = copy.deepcopy(model).train()(images)
    assert 1e-3 < logits.std() < 10


def test_dropout_is_off_unless_asked_for(name, model):
    from torch.nn.modules.dropout import _DropoutNd

    assert not [
        module for module in model.modules() if isinstance(module, _DropoutNd) and module.p > 0
    ]
    if "dropout" not in inspect.signature(MODELS[name].value).parameters:
        pytest.skip("has no such option")
    for rate in (1, 1.5, -0.1, "much"):
        with pytest.raises(InputError, match="dropout"):
            build_model(name, num_classes=2, in_channels=1, image_size=SIZE, dropout=rate)


def test_dropout_works_on_the_features_and_in_training_alone(name, model, images):
    if "dropout" not in inspect.signature(MODELS[name].value).parameters:
        pytest.skip("has no such option")
    if deep(model):
        pytest.skip("seconds; its class is that of a shallower one")
    torch.manual_seed(0)
    dropping = build_model(name, num_classes=7, in_channels=3, image_size=SIZE, dropout=0.5)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), dropping.parameters(), strict=True)
    )
    assert isinstance(dropping.fc, nn.Linear)
    assert torch.equal(dropping.eval()(images), copy.deepcopy(model).eval()(images))
    seen, plain = {}, copy.deepcopy(model)
    for name, twin in (("training", dropping), ("features", plain)):
        twin.fc.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: args[0]})
        )
    with torch.no_grad():
        dropping.train()(images)
        plain.train()(images)  # normalized by the same batch
    # Positive features, so what is zero here and not there was dropped: about half.
    training, positive = seen["training"], seen["features"] > 0
    assert 0.3 < (training[positive] == 0).float().mean() < 0.7


def test_unknown_option_is_a_clear_error(name):
    with pytest.raises(
        InputError, match=rf"options must be parameters of the model {name}; got 'hiden'\. "
    ):
        build_model(name, num_classes=2, in_channels=1, hiden=3)


def test_nonsense_numbers_are_a_clear_error(name):
    for bad in ({"num_classes": 0}, {"in_channels": 0}, {"image_size": 0}, {"num_classes": 2.5}):
        with pytest.raises(InputError, match="must be a whole number"):
            build_model(name, **{"num_classes": 2, "in_channels": 1, "image_size": SIZE} | bad)
