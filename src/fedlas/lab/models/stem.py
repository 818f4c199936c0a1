"""Stems of networks made for ImageNet: the original one, or one for small images."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from fedlas._core.check import check_choice

Stem = Literal["small", "imagenet"]
"""``small``: one 3 x 3 convolution of stride 1 and no max-pool, since the original stem shrinks 32 x 32 pixels to 8 x 8
before the first block. ``imagenet``: 7 x 7 with stride 2, then a max-pool of stride 2."""


def first_convolution(name: str, stem: Stem, in_channels: int, original: nn.Conv2d) -> nn.Conv2d:
    """The first convolution of a stem.

    Args:
        name: Model, named in the error.
        stem: Kind of stem.
        in_channels: Channels of an image.
        original: Convolution of the network, 7 x 7 for three channels; returned if it fits.

    Raises:
        InputError: For an unknown stem.
    """
    check_choice(name, "stem", stem, get_args(Stem))
    if stem == "imagenet" and original.in_channels == in_channels:
        return original
    size, stride = (3, 1) if stem == "small" else (7, 2)
    conv = nn.Conv2d(in_channels, original.out_channels, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as torchvision initializes the others
    return conv
