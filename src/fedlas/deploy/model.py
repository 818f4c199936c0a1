"""The model as it goes out: pixels in, calibrated logits and probabilities out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.pixels import multiply_add
from fedlas.deploy.calibration import Calibration
from fedlas.features import find_head
from fedlas.objective import logits_of

EXTRA_LAYER = "calibration"
"""Name of the layer that calibrates where there is no head to fold it into."""


class Affine(nn.Module):
    """``weight * z + bias``, class by class."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.clone().float())
        self.register_buffer("bias", bias.clone().float())

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated logits ``(N, C)``."""
        return logits * self.weight + self.bias


class Deployed(nn.Module):
    """Normalization, model, calibration and softmax in one module.

    Args:
        model: From normalized images to logits, its calibration folded in if it could be.
        extra: The calibration, if it could not.
        mean: Mean of each channel in [0, 1] units.
        std: Standard deviation of each channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, model: nn.Module, extra: nn.Module | None, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model, self.calibration = model, nn.Identity() if extra is None else extra
        scale, shift = multiply_add(mean, std, channels=len(mean), device=torch.device("cpu"))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits and probabilities, each ``(N, C)``, of ``images (N, channels, H, W)`` uint8."""
        logits = self.calibration(logits_of("export", self.model(images.float() * self.scale + self.shift)))
        return logits, logits.softmax(dim=1)


def fold(model: nn.Module, calibration: Calibration, example: Tensor) -> tuple[nn.Module, nn.Module | None, str]:
    """A copy of the model with the calibration in its head, or else the layer that has to follow it.

    It is folded in if the head is a plain linear layer with a weight of its own, whose output is what the model returns
    on ``example``: then ``W -> diag(weight) W`` and ``b -> weight * b + bias``.

    Args:
        model: From normalized images to logits; it does not change.
        calibration: What is folded in.
        example: Some normalized images.

    Returns:
        The copy, the layer or None, and the name of the head; or of the layer.
    """
    found = copy.deepcopy(model).eval()
    if calibration.method == "none":
        return found, None, "nothing"
    name = _own_linear_head(found, example, len(calibration.weight))
    if name is None:
        return found, Affine(calibration.weight, calibration.bias), EXTRA_LAYER
    head: Any = found.get_submodule(name)
    with torch.no_grad():
        head.weight.copy_(calibration.weight[:, None] * head.weight.double())
        if head.bias is not None:
            head.bias.copy_(calibration.weight * head.bias.double() + calibration.bias)
        elif bool(calibration.bias.any()):
            head.bias = nn.Parameter(calibration.bias.to(head.weight.dtype))
    return found, None, name


def _own_linear_head(model: nn.Module, example: Tensor, num_classes: int) -> str | None:
    """Name of the linear layer whose output the logits are; None if there is none that may be changed."""
    try:
        head = find_head(model, num_classes=num_classes)
    except ValueError:
        return None
    if type(head) is not nn.Linear or head._forward_pre_hooks or head._forward_hooks:
        return None
    shared = sum(parameter is head.weight for module in model.modules() for parameter in module._parameters.values())
    outputs: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        with torch.inference_mode():
            logits = logits_of("export", model(example))
    finally:
        handle.remove()
    if shared > 1 or len(outputs) != 1 or not torch.equal(outputs[0], logits):
        return None
    return next((name for name, module in model.named_modules() if module is head and name), None)
