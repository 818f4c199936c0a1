"""The first layers of a network made for ImageNet, as they are or as small images need them."""

from __future__ import annotations

from torch import nn

from fedlas._core.check import check_choice

STEMS = ("small", "imagenet")
"""``small``: one 3 x 3 convolution of stride 1 and no max-pool, since the usual stem would shrink 32 x 32 pixels to
8 x 8 before the first block. ``imagenet``: 7 x 7 with stride 2, then a max-pool of stride 2."""


def check_stem(name: str, stem: object) -> str:
    """Return ``stem`` if there is such a one.

    Raises:
        InputError: Otherwise.
    """
    return check_choice(name, "stem", stem, STEMS)


def first_convolution(stem: str, in_channels: int, usual: nn.Conv2d) -> nn.Conv2d:
    """The first convolution of a stem; ``usual`` is the network's own, and returned if it is the one.

    Args:
        stem: One of :data:`STEMS`.
        in_channels: Channels of an image.
        usual: 7 x 7, for three channels.
    """
    if stem == "imagenet" and usual.in_channels == in_channels:
        return usual
    size, stride = (3, 1) if stem == "small" else (7, 2)
    conv = nn.Conv2d(in_channels, usual.out_channels, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts the others
    return conv
