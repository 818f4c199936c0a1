"""torchvision's ResNets and DenseNet, with their original stem or one for small images."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import nn

from fedlas._core.check import check_choice, check_count
from fedlas._core.extras import require
from fedlas.lab.models.base import MODELS, PooledClassifier, check_dropout

Stem = Literal["small", "imagenet"]
"""``small``: one 3 x 3 convolution of stride 1 and no max-pool, since the original stem shrinks 32 x 32 pixels to 8 x 8
before the first block. ``imagenet``: 7 x 7 with stride 2, then a max-pool of stride 2."""


def first_convolution(stem: Stem, in_channels: int, original: nn.Conv2d) -> nn.Conv2d:
    """Return the first convolution for a stem; the original one if it fits.

    Args:
        stem: Kind of stem.
        in_channels: Channels of an image.
        original: Convolution of the network, 7 x 7 for three channels; returned if it fits.

    Raises:
        InputError: For an unknown stem.
    """
    check_choice("stem", stem, get_args(Stem))
    if stem == "imagenet" and original.in_channels == in_channels:
        return original
    size, stride = (3, 1) if stem == "small" else (7, 2)
    conv = nn.Conv2d(
        in_channels, original.out_channels, size, stride=stride, padding=size // 2, bias=False
    )
    # as torchvision initializes the others
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


# million parameters with the small stem and 10 classes
_SIZES = {18: "11.2", 34: "21.3", 50: "23.5", 101: "42.5"}


def _register_resnet(depth: int) -> None:
    """Register torchvision's ResNet of this depth."""
    name = f"resnet{depth}"

    def build(
        num_classes: int,
        in_channels: int,
        *,
        stem: Stem = "small",
        pool_size: int = 1,
        dropout: float = 0.0,
    ) -> nn.Module:
        rate = check_dropout(dropout)
        cells = check_count("pool_size", pool_size)
        # The stem.
        model: Any = getattr(require("torchvision.models", extra="bench"), name)(
            num_classes=num_classes
        )
        model.conv1 = first_convolution(stem, in_channels, model.conv1)
        if stem == "small":
            model.maxpool = nn.Identity()
        # Pooling, and a classifier of the matching size.
        if cells > 1:
            model.avgpool = nn.AdaptiveAvgPool2d(cells)
            model.fc = nn.Linear(model.fc.in_features * cells**2, num_classes)
        if rate:
            # so that ``fc`` stays one linear layer
            model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(rate))
        return model

    build.__name__ = f"build_{name}"
    build.__doc__ = f"""ResNet-{depth} with its original stem or one for small images ({_SIZES[depth]} M parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        stem: ``"small"``, a 3 x 3 convolution, for 32 or 64 pixels; or ``"imagenet"``, torchvision's 7 x 7 with
            stride 2 and a max-pool.
        pool_size: The last map is averaged to ``pool_size`` x ``pool_size`` cells, whose features are concatenated; 1
            is the usual global mean. The published Tiny-ImageNet net has 2.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    MODELS.add(name, build, paper="He et al. 2015", url="https://arxiv.org/abs/1512.03385")


for _depth in _SIZES:
    _register_resnet(_depth)


@MODELS.register("densenet121", paper="Huang et al. 2016", url="https://arxiv.org/abs/1608.06993")
def build_densenet121(
    num_classes: int, in_channels: int, *, stem: Stem = "small", dropout: float = 0.0
) -> nn.Module:
    """DenseNet-121, growth rate 32 (7.0 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        stem: ``"small"``, a 3 x 3 convolution, for 32 or 64 pixels; or ``"imagenet"``, torchvision's 7 x 7 with
            stride 2 and a max-pool.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    rate = check_dropout(dropout)
    built: Any = require("torchvision.models", extra="bench").densenet121(num_classes=num_classes)
    features = built.features
    features.conv0 = first_convolution(stem, in_channels, features.conv0)
    if stem == "small":
        features.pool0 = nn.Identity()
    return PooledClassifier(features, built.classifier.in_features, num_classes, rate)
