import pytest
import torch
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import build_model


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_unknown_model_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'resnet20'"):
        build_model("resnet-20", num_classes=2, in_channels=1)


def test_misspelt_option_names_the_nearest():
    with pytest.raises(InputError, match=r"'widht'.*'width'"):
        build_model("resnet8", num_classes=2, in_channels=1, widht=8)


@pytest.mark.parametrize("hidden", [8, "256", [8, 0], [8, 2.5], None])
def test_mlp_refuses_nonsense_layers(hidden):
    with pytest.raises(InputError, match="hidden"):
        build_model("mlp", num_classes=2, in_channels=1, hidden=hidden)


def test_mlp_drops_after_each_hidden_layer():
    model = build_model(
        "mlp", num_classes=3, in_channels=1, image_size=4, hidden=[6, 5], dropout=0.25
    )
    kinds = [type(layer).__name__ for layer in model.body]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout"]
    assert {layer.p for layer in model.body if isinstance(layer, nn.Dropout)} == {0.25}
    with pytest.raises(InputError, match="requires at least one hidden layer"):
        build_model("mlp", num_classes=3, in_channels=1, hidden=[], dropout=0.25)


def test_mlp_without_hidden_layers_is_linear():
    model = build_model("mlp", num_classes=3, in_channels=2, image_size=4, hidden=[])
    images = torch.randn(5, 2, 4, 4)
    assert torch.allclose(
        model(images), images.flatten(1) @ model.fc.weight.T + model.fc.bias, atol=1e-6
    )


def test_mlp_says_which_images_it_was_built_for():
    model = build_model("mlp", num_classes=3, in_channels=1, image_size=8)
    with pytest.raises(InputError, match=r"64 numbers, .*got \(2, 1, 28, 28\)"):
        model(torch.zeros(2, 1, 28, 28))


def test_mlp_layers():
    model = build_model("mlp", num_classes=3, in_channels=1, image_size=8, hidden=(20, 10))
    assert count(model) == 64 * 20 + 20 + 20 * 10 + 10 + 10 * 3 + 3


@pytest.mark.parametrize(
    ("name", "channels", "classes", "parameters"),
    [
        # 0.27 million in the paper's table 6; with shortcuts that have parameters it would be more
        ("resnet20", 3, 10, 269_722),
        # torchvision's count, less the 7 x 7 stem (3 * 64 * 49) and the old head, plus the 3 x 3 stem and the new head
        ("resnet18", 3, 10, 11_689_512 - 9_408 + 1_728 - 513_000 + 5_130),
        ("resnet50", 1, 100, 25_557_032 - 9_408 + 576 - 2_049_000 + 204_900),
    ],
)
def test_published_numbers_of_parameters(name, channels, classes, parameters):
    assert count(build_model(name, num_classes=classes, in_channels=channels)) == parameters


@pytest.mark.parametrize(("name", "layers"), [("resnet8", 8), ("resnet20", 20)])
def test_depth_is_in_the_name(name, layers):
    model = build_model(name, num_classes=2, in_channels=1, width=4)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == layers


def test_width_sets_all_stages():
    model = build_model("resnet8", num_classes=2, in_channels=1, width=5)
    assert [stage[-1].conv2.out_channels for stage in model.stages] == [5, 10, 20]
    assert model.fc.in_features == 20
    with pytest.raises(InputError, match="width must be a whole number"):
        build_model("resnet8", num_classes=2, in_channels=1, width=0)


def test_shortcut_subsamples_and_zero_pads_channels():
    block = build_model("resnet8", num_classes=2, in_channels=1, width=2).eval().stages[1][0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 5, 5)
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()


def test_pooled_shortcut_is_slicing_bit_for_bit():
    x = torch.randn(3, 2, 5, 6, requires_grad=True)
    pooled = nn.functional.max_pool2d(x, 1, 2)
    assert torch.equal(pooled, x[:, :, ::2, ::2])
    weight = torch.randn_like(pooled)
    found, expected = (
        torch.autograd.grad((part * weight).sum(), x)[0] for part in (pooled, x[:, :, ::2, ::2])
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [1, 7, 8, 33])
def test_small_resnet_takes_any_size(size):
    model = build_model("resnet8", num_classes=3, in_channels=1, image_size=size, width=4).eval()
    assert model(torch.randn(2, 1, size, size + 2)).shape == (2, 3)


def test_torchvision_stem_keeps_small_images_large():
    model = build_model("resnet18", num_classes=3, in_channels=1).eval()
    sizes = {}
    for name in ("conv1", "layer1", "layer4"):
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: sizes.update({name: out.shape[-1]})
        )
    model(torch.randn(1, 1, 32, 32))
    assert sizes == {"conv1": 32, "layer1": 32, "layer4": 4}
