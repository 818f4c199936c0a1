"""Residual networks for small images: deep and narrow, or wide with few layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count
from fedlas.lab.models.base import MODELS, GlobalMean, PooledClassifier, check_dropout


class BasicBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions, with a shortcut without parameters.

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
        self.stride = stride
        self.new_channels = width - in_width

    def forward(self, x: Tensor) -> Tensor:
        """Return maps ``(N, width, ceil(H / stride), ceil(W / stride))`` of ``x (N, in_width, H, W)``."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.new_channels:
            # Pooling over single pixels is slicing, bit for bit; its gradient is faster, and keeps channels last.
            x = F.pad(F.max_pool2d(x, 1, self.stride), (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(residual + x)


class SmallResNet(nn.Module):
    """Residual network for small images: 3 x 3 stem, three stages, global average pooling, classifier ``fc``.

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
        self,
        num_classes: int,
        in_channels: int,
        *,
        blocks: int,
        width: int = 16,
        dropout: float = 0.0,
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
            stages.append(
                nn.Sequential(
                    first, *(BasicBlock(out_width, out_width, 1) for _ in range(blocks - 1))
                )
            )
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalMean()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(4 * width, num_classes)
        # He's initialization for ReLU, as in the paper, instead of torch's default.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of ``images (N, in_channels, H, W)``."""
        maps = self.stages(F.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.fc(self.dropout(self.pool(maps)))
        return logits


def _register_resnet(depth: int, size: str) -> None:
    """Register a residual network; ``size`` is its number of parameters in millions."""
    name = f"resnet{depth}"

    def build(
        num_classes: int, in_channels: int, *, width: int = 16, dropout: float = 0.0
    ) -> nn.Module:
        width = check_count("width", width)
        rate = check_dropout(dropout)
        return SmallResNet(
            num_classes, in_channels, blocks=(depth - 2) // 6, width=width, dropout=rate
        )

    build.__name__ = f"build_{name}"
    build.__doc__ = f"""Residual network of {depth} layers for small images ({size} million parameters at width 16).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        width: Channels of the first stage.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).
    """
    MODELS.add(name, build, paper="He et al. 2015", url="https://arxiv.org/abs/1512.03385")


_register_resnet(8, "0.08")
_register_resnet(20, "0.27")
_register_resnet(56, "0.86")


def checkpoint_filter_fn(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return published weights of the same network, renamed and reordered for this one; other weights unchanged.

    The published implementation (``layer1.0.conv1 ... linear``) puts the new channels of a shortcut on both sides of
    the old ones, this one behind them. So the channels that the blocks of a stage share are put into another order,
    which changes no logit.

    Args:
        weights: State dict of a file.
        model: The network that takes them.
    """
    if not isinstance(model, SmallResNet) or "layer1.0.conv1.weight" not in weights:
        return weights
    # Place in the published network of each channel of a stage.
    orders = [torch.arange(len(weights["conv1.weight"]))]
    for _ in range(2):
        quarter = len(orders[-1]) // 2
        ends = (torch.arange(quarter), torch.arange(3 * quarter, 4 * quarter))
        orders.append(torch.cat((quarter + orders[-1], *ends)))
    ours = {"fc.weight": weights["linear.weight"][:, orders[-1]], "fc.bias": weights["linear.bias"]}
    for key, value in weights.items():
        name, *place = key.split(".")
        if not name.startswith("layer"):
            ours |= {} if name == "linear" else {key: value}
            continue
        stage = int(name.removeprefix("layer")) - 1
        if place[1] == "conv1":
            value = value[:, orders[max(stage - 1, 0) if place[0] == "0" else stage]]
        elif value.ndim and place[1] != "bn1":  # what joins the shortcut
            value = value[orders[stage]]
        ours[".".join((f"stages.{stage}", *place))] = value
    return ours


class WideBlock(nn.Module):
    """Pre-activation residual block: batch norm, ReLU and 3 x 3 convolution twice, with dropout in between.

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
        """Return maps ``(N, width, ceil(H / stride), ceil(W / stride))`` of ``x (N, in_width, H, W)``."""
        activated = F.relu(self.bn1(x))
        residual = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(activated)))))
        return residual + (x if self.shortcut is None else self.shortcut(activated))


@MODELS.register(
    "wide-resnet", paper="Zagoruyko & Komodakis 2016", url="https://arxiv.org/abs/1605.07146"
)
def build_wide_resnet(
    num_classes: int,
    in_channels: int,
    *,
    depth: int = 16,
    width: int = 4,
    block_dropout: float = 0.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Wide residual network WRN-depth-width for small images (28-10: 36.5 million parameters, 40-2: 2.2 million).

    Args:
        num_classes: ``C``.
        in_channels: Channels of an image.
        depth: Layers, 6 n + 4 with n blocks in each of three stages: 10, 16, 22, 28, 40 ...
        width: Factor on the 16, 32 and 64 channels of the stages.
        block_dropout: Dropout between the convolutions of each block, in [0, 1); the paper uses 0.3 on CIFAR.
        dropout: Rate of dropout on the features, before the classifier, in [0, 1).

    Raises:
        InputError: If ``depth`` is not 6 n + 4, or a number is out of range.
    """
    check_count("width", width)
    blocks, rest = divmod(check_count("depth", depth) - 4, 6)
    if rest or blocks < 1:
        below = max(10, 6 * blocks + 4)
        raise InputError(
            "depth must be 6 n + 4 for a whole number n", depth, f"Choose {below} or {below + 6}."
        )
    inside = check_dropout(block_dropout, option="block_dropout")
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
    return PooledClassifier(features, channels, num_classes, check_dropout(dropout))
