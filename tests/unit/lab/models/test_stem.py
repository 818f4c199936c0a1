"""The same network for small images and for large ones."""

import pytest
import torch
import torchvision.models as zoo
from torch import nn

from fedlas.errors import InputError
from fedlas.lab.models import build_model, load_weights


def sizes_in(model, names, size):
    sizes = {}
    for name in names:
        module = model.get_submodule(name)
        module.register_forward_hook(
            lambda _, __, out, name=name: sizes.update({name: out.shape[-1]})
        )
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return sizes


@pytest.mark.parametrize(
    ("name", "stem", "size", "expected"),
    [
        ("resnet18", "small", 32, {"layer1": 32, "layer4": 4}),
        ("resnet34", "imagenet", 64, {"layer1": 16, "layer4": 2}),
        ("densenet121", "small", 32, {"features.denseblock1": 32, "features.norm5": 4}),
        ("densenet121", "imagenet", 64, {"features.denseblock1": 16, "features.norm5": 2}),
    ],
)
def test_how_far_the_stem_shrinks(name, stem, size, expected):
    model = build_model(name, num_classes=3, in_channels=3, stem=stem)
    assert sizes_in(model, expected, size) == expected


def test_an_unknown_stem():
    with pytest.raises(InputError, match=r"stem .*got 'imagent'"):
        build_model("resnet50", num_classes=3, in_channels=3, stem="imagent")


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_with_its_own_stem_it_is_torchvisions(name, tmp_path):
    """Key by key and number by number, so that weights of torchvision's can be read."""
    torch.manual_seed(0)
    theirs = getattr(zoo, name)(num_classes=3).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = build_model(name, num_classes=3, in_channels=3, stem="imagenet").eval()
    assert load_weights(ours, tmp_path / "weights.pth") == ()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_pooling_to_cells_strings_their_features_together():
    """The published Tiny-ImageNet net averages 8 x 8 to 2 x 2 and has 8,192 features."""
    torch.manual_seed(0)
    with torch.device("meta"):
        assert (
            build_model("resnet50", num_classes=200, in_channels=3, pool_size=2).fc.in_features
            == 8192
        )
    model = build_model("resnet18", num_classes=3, in_channels=3, pool_size=2).eval()
    seen = {}
    model.avgpool.register_forward_hook(lambda _, args, __: seen.update(map=args[0]))
    model.fc.register_forward_hook(lambda _, args, __: seen.update(features=args[0]))
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert seen["map"].shape[2:] == (8, 8)
    torch.testing.assert_close(
        seen["features"], nn.functional.avg_pool2d(seen["map"], 4).flatten(1)
    )
    with pytest.raises(InputError, match=r"pool_size .*whole number"):
        build_model("resnet18", num_classes=3, in_channels=3, pool_size=0)
