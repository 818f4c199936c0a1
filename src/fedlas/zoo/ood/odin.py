"""ODIN: inputs perturbed toward higher confidence, which helps in-distribution images more than OOD images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_number, describe, is_dense
from fedlas._core.extras import require
from fedlas.zoo.ood.base import OOD_SCORES

__all__ = ["odin_score"]


@OOD_SCORES.register(
    "odin",
    title="ODIN",
    paper="Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
    year=2018,
    url="https://arxiv.org/abs/1706.02690",
    packages=("pytorch_ood",),
)
def odin_score(
    model: nn.Module,
    inputs: Tensor,
    *,
    std: Sequence[float],
    temperature: float = 1000.0,
    eps: float = 0.0014,
) -> Tensor:
    """Negated maximum softmax probability at a high temperature, after a step toward the predicted class.

    Args:
        model: Classifier to logits ``(N, C)``, in ``eval()``.
        inputs: Normalized images ``(N, channels, H, W)``.
        std: Standard deviation of each channel in [0, 1] units, by which the images were divided.
        temperature: Temperature of the softmax, in ``[1e-6, 1e30]``.
        eps: Length of the step in each pixel, in [0, 1] units.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If an option is out of range, the model is no module, or the number of channels differs from
            ``std``.
        MissingExtraError: Without pytorch-ood.

    Note:
        The defaults are the paper's for CIFAR; it chose them on OOD images, which are not available in practice. With
        ``eps=0`` and a high temperature the order is that of the highest logit above the mean.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
        >>> odin_score(model, torch.zeros(2, 3, 2, 2), std=(0.2, 0.2, 0.2)).shape
        torch.Size([2])

    Source:
        Liang, Li and Srikant 2018, section 3.
    """
    heat = check_number("temperature", temperature, low=1e-6, high=1e30)
    step = check_number("eps", eps, low=0.0, high=1.0)
    if not isinstance(std, Sequence) or not std or not isinstance(model, nn.Module):
        raise InputError(
            "the model must be an nn.Module, and std a list with one number for each channel",
            f"{type(model).__name__} and {describe(std)}",
            "Pass the standard deviations by which the images were divided.",
        )
    colors = [check_number("std", each, low=0.0, low_open=True) for each in std]
    if (
        not is_dense(inputs)
        or inputs.is_meta
        or not inputs.is_floating_point()
        or inputs.ndim != 4
        or inputs.shape[1] != len(std)
    ):
        raise InputError(
            f"inputs must be (N, {len(std)}, H, W), as std has {len(std)} channel{'s' * (len(std) != 1)}",
            describe(inputs),
            "Pass the images as the model receives them.",
        )

    def logits(images: Tensor) -> Tensor:
        outputs: Tensor = model(images)
        # at temperature 1000 all probabilities are near 1/C: float32 would cause ties
        return outputs.double()

    detector = require("pytorch_ood.detector", extra="ood").ODIN(
        logits, eps=step, temperature=heat, norm_std=colors
    )
    with torch.enable_grad():
        return detector.predict(inputs)
