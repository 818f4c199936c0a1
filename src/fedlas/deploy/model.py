"""The model as it goes out: its inputs in, calibrated logits and probabilities out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.pixels import multiply_add
from fedlas.calibrated import CalibratedModel
from fedlas.calibrators._fit.softmax_regression import apply_weight
from fedlas.deploy.calibration import Calibration
from fedlas.features import find_head
from fedlas.objective.objective import class_logits

EXTRA_LAYER = "calibration"
"""Name of the layer that calibrates where there is no head to fold it into."""


class Deployed(nn.Module):
    """Normalization, model, calibration and softmax in one module.

    Args:
        model: To calibrated logits.
        names: Keywords by which the model takes its inputs; None: by position.
        mean: Mean of each channel in [0, 1] units, if the input is raw pixels; None: inputs go to the model unchanged.
        std: Standard deviation of each channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.names, self.pixels = model, names, mean is not None
        if mean is not None and std is not None:
            scale, shift = multiply_add(mean, std, channels=len(mean), device=torch.device("cpu"))
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits and probabilities, each ``(N, C, ...)``; pixels are ``(N, channels, H, W)`` uint8."""
        given = [part.float() * self.scale + self.shift for part in inputs] if self.pixels else list(inputs)
        named = {} if self.names is None else dict(zip(self.names, given, strict=True))
        logits = class_logits("export", self.model(*([] if named else given), **named))
        return logits, logits.float().softmax(dim=1)


def fold(model: nn.Module, calibration: Calibration, example: Tensor) -> tuple[nn.Module, str]:
    """A copy of the model with the calibration in its head, or else in a layer that follows it.

    It is folded in if it is an affine map, and the head a plain linear layer with a weight of its own whose output is
    what the model returns on ``example``: then ``W -> A W`` and ``b -> A b + c``.

    Args:
        model: From normalized images to logits; it does not change.
        calibration: What is folded in.
        example: Some normalized images.

    Returns:
        The copy, and the name of the head, :data:`EXTRA_LAYER` or ``"nothing"``.

    Raises:
        InputError: If the calibration can be no layer.
    """
    found = copy.deepcopy(model).eval()
    if calibration.calibrator is None:
        return found, "nothing"
    affine = calibration.affine()
    name = None if affine is None else _own_linear_head(found, example, len(affine[1]))
    if affine is None or name is None:
        return CalibratedModel(found, calibration.calibrator), EXTRA_LAYER
    weight, bias = affine
    head: Any = found.get_submodule(name)
    with torch.no_grad():
        head.weight.copy_(apply_weight(weight, head.weight.double().T).T)
        if head.bias is not None:
            head.bias.copy_(apply_weight(weight, head.bias.double()) + bias)
        elif bool(bias.any()):
            head.bias = nn.Parameter(bias.to(head.weight.dtype))
    return found, name


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
            logits = class_logits("export", model(example))
    finally:
        handle.remove()
    if shared > 1 or len(outputs) != 1 or not torch.equal(outputs[0], logits):
        return None
    return next((name for name, module in model.named_modules() if module is head and name), None)
