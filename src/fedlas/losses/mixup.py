"""Mixup and CutMix: wrappers that train any loss on mixed inputs and mixed targets.

Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412), section 2. Thulasidasan et
al. 2019, "On Mixup Training: Improved Calibration and Predictive Uncertainty" (arXiv 1905.11001). Yun et al. 2019,
"CutMix: Regularization Strategy to Train Strong Classifiers" (arXiv 1905.04899), section 3. Written from the papers.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_number, describe, is_dense
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LossWrapper,
    Mixed,
    can_read_values,
    paper_metadata,
)


def check_mixable(inputs: Any, target: Any) -> None:
    """Raise InputError unless inputs are floating and have one target per sample."""
    both = is_dense(inputs) and is_dense(target) and not inputs.is_meta and not target.is_meta
    if both and inputs.is_floating_point() and inputs.ndim and inputs.shape[:1] == target.shape[:1]:
        labels = not target.is_complex() and target.dtype != torch.bool
        if labels and target.ndim > target.is_floating_point() and inputs.dtype.itemsize > 1:
            return
    raise InputError(
        "inputs must be a floating tensor with one row per target, and targets class indices or probabilities",
        f"{describe(inputs)} for target {describe(target)}",
        "Pass floating model inputs; integers such as token ids cannot be mixed.",
    )


def draw_mixing_share(alpha: float) -> Tensor:
    """Draw a mixing coefficient from ``Beta(alpha, alpha)``, with PyTorch's global CPU generator."""
    share: Tensor = torch.distributions.Beta(alpha, alpha, validate_args=False).sample()
    return share


def draw_mixing_partners(num_samples: int, device: torch.device) -> Tensor:
    """Draw a random permutation ``(N,)``, the mixing partner per sample; the same on every device."""
    return torch.randperm(num_samples).to(device)


def mix_batch(inputs: Tensor, target: Tensor, *, num_classes: int, alpha: float) -> Mixed:
    """Return ``s x_i + (1 - s) x_j`` and ``s y_i + (1 - s) y_j``, with ``s`` from Beta(alpha, alpha), one per batch.

    Raises:
        InputError: If the inputs are not floating, or on CPU a target is out of range or ignored.
    """
    soft = to_soft_targets(inputs, target, num_classes)
    share = draw_mixing_share(alpha)
    partner = draw_mixing_partners(len(inputs), inputs.device)
    return Mixed(
        inputs=share * inputs + (1 - share) * inputs[partner],
        target=share * soft + (1 - share) * soft[partner],
    )


def to_soft_targets(inputs: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return targets as probabilities ``(N, C)`` or ``(N, C, d1, ...)``, one-hot for class indices.

    Raises:
        InputError: If the batch cannot be mixed.
    """
    check_mixable(inputs, target)
    if target.is_floating_point():
        return target
    if (
        can_read_values(target)
        and target.numel()
        and not 0 <= int(target.min()) <= int(target.max()) < num_classes
    ):
        raise InputError(
            f"target must be in [0, {num_classes}); ignored samples cannot be mixed",
            f"values from {int(target.min())} to {int(target.max())}",
            "Remove ignored samples from the batch.",
        )
    return F.one_hot(target.to(torch.int64), num_classes).movedim(-1, 1).to(inputs.dtype)


@LOSSES.register(
    "mixup", **paper_metadata("mixup", 2018, "1710.09412"), tune={"alpha": "0.05:2:log"}
)
class Mixup(LossWrapper):
    """Mixup: a loss on ``s x_i + (1 - s) x_j`` with target ``s y_i + (1 - s) y_j`` and ``s`` from Beta(alpha, alpha).

    Args:
        num_classes: Number of classes C.
        base: The loss: an object, its registry name, or ``{"name": ..., option: ...}``.
        alpha: Parameter of the Beta distribution, above 0; small values mix little.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them. Ignored samples cannot be mixed.

    Raises:
        InputError: If alpha is not above 0 or the base cannot be built.

    State:
        Draws from PyTorch's global CPU generator: once a batch for the share, once for the partners.

    Note:
        :meth:`mix` does the mixing; :class:`~fedlas.Objective` calls it in training. In ``eval()``, and without an
        Objective, the loss is that of the base. All samples of a batch have the same share, as in the published code.

    Example:
        >>> criterion = Mixup(num_classes=3, alpha=0.4)
        >>> mixed = criterion.mix(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
        >>> mixed.inputs.shape, mixed.target.sum(dim=1)
        (torch.Size([4, 1, 8, 8]), tensor([1., 1., 1., 1.]))
    """

    num_classes: int
    masked_classes = True

    def __init__(
        self,
        *,
        num_classes: int,
        base: Base = "ce",
        alpha: float = 0.2,
        **options: Unpack[BaseOptions],
    ) -> None:
        check_count("num_classes", num_classes)
        super().__init__(base, num_classes=num_classes, **options)
        self.alpha = check_number("alpha", alpha, low=0, low_open=True)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss of the base per position, ``(M,)``."""
        return self.base.per_sample(batch)

    def mix(self, inputs: Tensor, target: Tensor) -> Mixed:
        """Return the batch with each sample mixed with another sample of the batch.

        Args:
            inputs: ``(N, ...)``, floating.
            target: Class indices or soft targets, as the loss takes them.

        Returns:
            Inputs of the same shape, and soft targets.

        Raises:
            InputError: If the inputs are not floating, or on CPU a target is out of range or ignored.
        """
        return mix_batch(inputs, target, num_classes=self.num_classes, alpha=self.alpha)


@LOSSES.register(
    "cutmix", **paper_metadata("CutMix", 2019, "1905.04899"), tune={"alpha": "0.1:2:log"}
)
class CutMix(Mixup):
    """CutMix: a loss on images with a box pasted from another image, and targets mixed by area.

    The box has the share ``1 - s`` of the area, ``s`` from Beta(alpha, alpha), and a uniform center. It is cut at the
    borders of the image; the share of its remaining area mixes the targets.

    Args:
        num_classes: Number of classes C.
        base: The loss: an object, its registry name, or ``{"name": ..., option: ...}``.
        alpha: Parameter of the Beta distribution, above 0; 1 is uniform.
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them. Ignored samples cannot be mixed.

    Raises:
        InputError: If alpha is not above 0 or the base cannot be built.

    State:
        Draws from PyTorch's global CPU generator: share, center and partners, once a batch each.

    Note:
        :meth:`mix` does the mixing; :class:`~fedlas.Objective` calls it in training; see :class:`Mixup`. All images of
        a batch have the same box, as in the published code.

    Example:
        >>> mixed = CutMix(num_classes=3).mix(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
        >>> mixed.target.sum(dim=1)
        tensor([1., 1., 1., 1.])
    """

    def __init__(
        self,
        *,
        num_classes: int,
        base: Base = "ce",
        alpha: float = 1.0,
        **options: Unpack[BaseOptions],
    ) -> None:
        super().__init__(num_classes=num_classes, base=base, alpha=alpha, **options)

    def mix(self, inputs: Tensor, target: Tensor) -> Mixed:
        """Return the batch with a box of another image pasted into each image.

        Args:
            inputs: ``(N, channels, H, W)``, floating.
            target: Class indices ``(N,)`` or soft targets ``(N, C)``.

        Returns:
            Inputs of the same shape, and soft targets ``(N, C)``.

        Raises:
            InputError: If the inputs are not images with one target each, or on CPU a target is out of range or
                ignored.
        """
        soft = to_soft_targets(inputs, target, self.num_classes)
        if inputs.ndim != 4 or soft.ndim != 2 or 0 in inputs.shape:
            raise InputError(
                "inputs must be images (N, channels, H, W) with one target per image",
                f"shape {tuple(inputs.shape)} with target {tuple(target.shape)}",
                "Use mixup, which supports inputs of any shape.",
            )
        # One box for all; the shares of the targets are those of the pixels that are left of it.
        share = draw_mixing_share(self.alpha)
        partner = draw_mixing_partners(len(inputs), inputs.device)
        box = (
            _box_axis_mask(inputs.shape[2], share)[:, None] & _box_axis_mask(inputs.shape[3], share)
        ).to(inputs.device)
        unchanged = 1 - box.to(inputs.dtype).mean()
        return Mixed(
            inputs=torch.where(box, inputs[partner], inputs),
            target=unchanged * soft + (1 - unchanged) * soft[partner],
        )


def _box_axis_mask(length: int, share: Tensor) -> Tensor:
    """Return a mask ``(length,)`` of the positions along one axis that a random box covers."""
    # A side of sqrt(1 - share) gives the box an area of 1 - share; around a uniform center, it is cut at the borders.
    half = (length * (1 - share).sqrt()).long() // 2
    position = torch.arange(length)
    center = torch.randint(length, ())
    return (position >= center - half) & (position < center + half)
