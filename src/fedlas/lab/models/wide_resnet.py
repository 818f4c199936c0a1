"""Wide residual networks for small images: few layers with many channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count
from fedlas.lab.models.base import MODELS, check_dropout
from fedlas.lab.models.pooled import PooledClassifier


class WideBlock(nn.Module):
    """Batch norm, ReLU and 3 x 3 convolution, twice, with a shortcut; dropout between the convolutions.

    Where the shape changes, the shortcut is a 1 x 1 convolution of the activated input.

    Args:
        in_width: Channels of the input.
        width: Channels of the output.
        stride: 1 or 2.
        dropout: Rate between the convolutions.
    """

    def __init__(self, in_width: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = stride == 1 and in_width == width
        self.shortcut = None if same else nn.Conv2d(in_width, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_width, H, W)`` to ``(N, width, ceil(H / stride), ceil(W / stride))``."""
        activated = F.relu(self.bn1(x))
        residual = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(activated)))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


@MODELS.register("wide-resnet", paper="Zagoruyko & Komodakis 2016", url="https://arxiv.org/abs/1605.07146")
def build_wide_resnet(
    num_classes: int,
    in_channels: int,
    *,
    image_size: int = 32,
    depth: int = 16,
    width: int = 4,
    block_dropout: float = 0.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Wide residual network WRN-depth-width for small images (28-10: 36.5 million parameters, 40-2: 2.2 million).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        depth: Layers, 6 n + 4 with n blocks in each of three stages: 10, 16, 22, 28, 40 ...
        width: Factor on the 16, 32 and 64 channels of the stages.
        block_dropout: Dropout between the convolutions of each block, in [0, 1); the paper uses 0.3 on CIFAR.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).

    Raises:
        InputError: If ``depth`` is not 6 n + 4, or a number is out of range.
    """
    name = "wide-resnet"
    check_count(name, "image_size", image_size)
    check_count(name, "width", width)
    blocks, rest = divmod(check_count(name, "depth", depth) - 4, 6)
    if rest or blocks < 1:
        below = max(10, 6 * blocks + 4)
        raise InputError(name, "depth must be 6 n + 4", depth, f"Choose {below} or {below + 6}.")
    inside = check_dropout(name, block_dropout, option="block_dropout")
    # Three stages of blocks; the first block of stages 2 and 3 halves the image.
    channels = 16
    stack: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
    for stage in range(3):
        out = 16 * 2**stage * width
        for block in range(blocks):
            stack.append(WideBlock(channels, out, 2 if stage and not block else 1, inside))
            channels = out
    features = nn.Sequential(*stack, nn.BatchNorm2d(channels))
    # He's initialization is made for ReLU; PyTorch's own default starts with smaller weights.
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return PooledClassifier(features, channels, num_classes, check_dropout(name, dropout))
