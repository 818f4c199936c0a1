"""torchvision's residual networks with a stem for small images."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedlas._core.check import check_count
from fedlas._core.extras import require
from fedlas.models.base import MODELS, check_dropout

_PAPER = {"paper": "He et al. 2015", "url": "https://arxiv.org/abs/1512.03385"}


@MODELS.register("resnet18", **_PAPER)
def build_resnet18(num_classes: int, in_channels: int, *, image_size: int = 32, dropout: float = 0.0) -> nn.Module:
    """ResNet-18 with a small-image stem (11.2 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    return _with_small_stem("resnet18", num_classes, in_channels, image_size, dropout)


@MODELS.register("resnet50", **_PAPER)
def build_resnet50(num_classes: int, in_channels: int, *, image_size: int = 32, dropout: float = 0.0) -> nn.Module:
    """ResNet-50 with a small-image stem (23.5 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    return _with_small_stem("resnet50", num_classes, in_channels, image_size, dropout)


@MODELS.register("resnet101", **_PAPER)
def build_resnet101(num_classes: int, in_channels: int, *, image_size: int = 32, dropout: float = 0.0) -> nn.Module:
    """ResNet-101 with a small-image stem (42.5 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    return _with_small_stem("resnet101", num_classes, in_channels, image_size, dropout)


def _with_small_stem(name: str, num_classes: int, in_channels: int, image_size: int, dropout: float) -> nn.Module:
    """``torchvision.models.NAME``, untrained, whose first convolution is 3 x 3 with stride 1, and no max-pool after it.

    The usual stem would shrink an image of 32 x 32 pixels to 8 x 8 before the first block.
    """
    check_count(name, "image_size", image_size)
    rate = check_dropout(name, dropout)
    model: Any = getattr(require("torchvision.models", extra="models"), name)(num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts the others
    model.maxpool = nn.Identity()
    if rate:
        model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(rate))  # so that ``fc`` stays one linear layer
    return model
