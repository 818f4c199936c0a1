"""A convolutional network that reaches 92 % on CIFAR-10 within minutes on one processor core."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas.lab.models.base import MODELS, check_dropout

_LEAST_VARIANCE = 5e-4
"""Added to the variances of patches, so that directions without contrast are not blown up."""


class AirNet(nn.Module):
    """Convolutional network: frozen whitening, three groups of two 3 x 3 convolutions, max-pool, classifier ``fc``.

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Height and width, at least 2; a map of one pixel is not pooled.
        widths: Channels of the three groups.
        dropout: Rate of dropout on the features, before ``fc``.
        feature_scale: Factor of the features, before ``fc``.

    State:
        The buffer ``whitening`` holds random orthogonal filters until :meth:`fit_inputs` is called.

    Note:
        Convolutions start as the identity in as many channels as they receive, and with torch's default in the others.
        Batch norms have no trainable scale and average their statistics over few steps. The paper's factor 1/9 of the
        logits is applied to the features: ``fc`` then learns slowly. The learning rate is one for all parameters, and
        the loss does not smooth labels: both are the recipe's business.

    Source:
        Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, sections 3.1 to 3.3. https://arxiv.org/abs/2404.00498
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        image_size: int,
        widths: Sequence[int],
        dropout: float = 0.0,
        feature_scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        patch = 4 * in_channels
        filters = nn.init.orthogonal_(torch.empty(patch, patch))
        self.register_buffer("whitening", _stack_negated(filters, in_channels))
        self.whitening: Tensor
        self.bias = nn.Parameter(torch.zeros(2 * patch))
        channels = [2 * patch, *widths]
        self.groups = nn.Sequential()
        for group, (width, out) in enumerate(pairwise(channels)):
            self.groups.append(_conv_group(width, out, pool=(image_size - 1) >> group > 1))
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.feature_scale = feature_scale
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of ``images (N, in_channels, H, W)``."""
        maps = self.groups(F.gelu(F.conv2d(images, self.whitening, self.bias)))
        logits: Tensor = self.fc(self.dropout(self.pool(maps).flatten(1) * self.feature_scale))
        return logits

    @torch.no_grad()
    def fit_inputs(self, images: Tensor) -> None:
        """Set the first convolution to whiten patches of ``images``: uncorrelated outputs of variance 1.

        Args:
            images: Normalized training images ``(N, in_channels, H, W)``.
        """
        patches = F.unfold(images.float(), 2).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(0)
        variances, directions = torch.linalg.eigh(
            patches.T.double() @ patches.double() / len(patches)
        )
        filters = (directions / (variances + _LEAST_VARIANCE).sqrt()).T
        self.whitening.copy_(_stack_negated(filters.to(self.whitening), images.shape[1]))


def _stack_negated(filters: Tensor, channels: int) -> Tensor:
    """Return filters ``(2 n, channels, 2, 2)``: each filter and its negative, since GELU passes only one sign."""
    return torch.cat((filters, -filters)).unflatten(1, (channels, 2, 2))


def _conv_group(in_channels: int, out_channels: int, *, pool: bool) -> nn.Sequential:
    """Return two convolutions with batch norm and GELU each, and max-pooling after the first."""
    first, second = (
        nn.Conv2d(before, out_channels, 3, padding=1, bias=False)
        for before in (in_channels, out_channels)
    )
    norms = [nn.BatchNorm2d(out_channels, momentum=0.4) for _ in range(2)]
    with torch.no_grad():
        for convolution in (first, second):
            nn.init.dirac_(convolution.weight[: convolution.in_channels])
        for norm in norms:
            norm.weight.requires_grad_(False)
    return nn.Sequential(
        first,
        nn.MaxPool2d(2) if pool else nn.Identity(),
        norms[0],
        nn.GELU(),
        second,
        norms[1],
        nn.GELU(),
    )


@MODELS.register("airnet", paper="Jordan 2024", url="https://arxiv.org/abs/2404.00498")
def build_airnet(
    num_classes: int,
    in_channels: int,
    *,
    image_size: int = 32,
    widths: Sequence[int] = (64, 192, 192),
    dropout: float = 0.0,
    feature_scale: float = 1 / 9,
) -> nn.Module:
    """Fast convolutional network for small images, with a first layer that whitens patches (1.2 million parameters).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: At least 2.
        widths: Channels of the three groups of convolutions.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
        feature_scale: Factor of the features, before the classifier, above 0.

    Raises:
        InputError: For other than three widths, or a number out of range.
    """
    check_count("image_size", image_size, low=2)
    if not isinstance(widths, list | tuple) or len(widths) != 3:
        raise InputError(
            "widths must be a list of three whole numbers",
            repr(widths),
            "Write e.g. widths=[64,192,192].",
        )
    widths = [check_count("widths", width) for width in widths]
    rate = check_dropout(dropout)
    scale = check_number("feature_scale", feature_scale, low=0, low_open=True)
    return AirNet(
        num_classes,
        in_channels,
        image_size=image_size,
        widths=widths,
        dropout=rate,
        feature_scale=scale,
    )
