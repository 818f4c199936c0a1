"""Residual networks for small images: three stages of basic blocks, as in the original work on CIFAR."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import check_count
from fedlas.lab.models.base import MODELS, check_dropout
from fedlas.lab.models.pooled import GlobalMean


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut without parameters.

    Where the block halves the image, the shortcut takes every second pixel and fills new channels with zeros
    ("option A" of the paper).

    Args:
        in_width: Channels of the input.
        width: Channels of the output, at least ``in_width``.
        stride: 1 or 2.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - in_width

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_width, H, W)`` to ``(N, width, ceil(H / stride), ceil(W / stride))``."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.new_channels:
            # Pooling over single pixels is slicing, bit for bit; its gradient is faster, and keeps channels last.
            x = F.pad(F.max_pool2d(x, 1, self.stride), (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(residual + x)


class SmallResNet(nn.Module):
    """3 x 3 stem, three stages of ``width``, ``2 * width`` and ``4 * width`` channels, global mean, classifier ``fc``.

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        blocks: Blocks per stage; the depth is ``6 * blocks + 2``.
        width: Channels of the first stage.
        dropout: Rate of dropout on the features, before ``fc``.

    Note:
        Convolutions start from He's normal distribution (fan out), batch norms from the identity, ``fc`` as
        ``nn.Linear`` does. Images of any size fit; the second and third stage halve them.

    Source:
        He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, section 4.2. https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, blocks: int, width: int = 16, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        # Each stage after the first halves the image and doubles the channels.
        stages = []
        for stage in range(3):
            out_width = width * 2**stage
            in_width = width if stage == 0 else out_width // 2
            first = BasicBlock(in_width, out_width, stride=1 if stage == 0 else 2)
            stages.append(nn.Sequential(first, *(BasicBlock(out_width, out_width, 1) for _ in range(blocks - 1))))
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalMean()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(4 * width, num_classes)
        # He's initialization for ReLU, as in the paper, instead of torch's default.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, C)`` of ``images (N, in_channels, H, W)``."""
        maps = self.stages(F.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.fc(self.dropout(self.pool(maps)))
        return logits


def _register(depth: int, size: str) -> None:
    name = f"resnet{depth}"

    def build(
        num_classes: int, in_channels: int, *, image_size: int = 32, width: int = 16, dropout: float = 0.0
    ) -> nn.Module:
        check_count(name, "image_size", image_size)
        width, rate = check_count(name, "width", width), check_dropout(name, dropout)
        return SmallResNet(num_classes, in_channels, blocks=(depth - 2) // 6, width=width, dropout=rate)

    build.__name__ = f"build_{name}"
    build.__doc__ = f"""Residual network of {depth} layers for small images ({size} million parameters at width 16).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        image_size: Any; the network pools globally.
        width: Channels of the first stage.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    MODELS.add(name, build, paper="He et al. 2015", url="https://arxiv.org/abs/1512.03385")


_register(8, "0.08")
_register(20, "0.27")
