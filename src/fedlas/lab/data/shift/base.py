"""Corruption of an image at one severity, seeded per image; and the registry of corruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe
from fedlas._core.kinds import check_argument_types
from fedlas._core.registry import Registry
from fedlas._core.streams import Purpose, seeded_generator

Pixels = NDArray[np.float64]
"""One image ``(H, W, channels)`` in [0, 1]."""

CORRUPTIONS: Registry[Callable[[Pixels, Any, np.random.RandomState], Pixels]] = Registry(
    "corruption"
)
"""``corruption(image, strength, random) -> image``; metadata ``small`` and ``large`` hold the five published strengths
of CIFAR-10-C for 32 x 32 pixels and of ImageNet-C for 224 x 224."""

SEVERITIES = (1, 2, 3, 4, 5)

PAPER_METADATA = {
    "paper": "Hendrycks and Dietterich 2019",
    "url": "https://arxiv.org/abs/1903.12261",
}
"""Metadata of each corruption."""

_MAX_SMALL_HEIGHT = 96
"""Largest height in pixels with the strengths for small images."""


@dataclass(frozen=True)
class Corruption:
    """Image corruption at one severity, determined by seed and image index.

    Args:
        name: A name in :data:`CORRUPTIONS`.
        severity: 1 to 5.
        seed: Whole number >= 0; seed and index determine the random numbers of an image.

    Raises:
        InputError: For an unknown name (the message names the closest one) or a number out of range.

    Note:
        Strengths are the published ones of CIFAR-10-C up to 96 pixels, and of ImageNet-C above. The formulas
        follow the paper's descriptions. What the paper takes from photographs (frost) or other programs (motion blur)
        is computed, so images differ from the published files. Compare results with each other, not with published
        tables.

    Example:
        >>> gray = torch.full((1, 8, 8), 128, dtype=torch.uint8)
        >>> int(Corruption("brightness", 5)(gray, 0)[0, 0, 0])
        204

    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019, section 3 and appendix A, https://arxiv.org/abs/1903.12261.
    """

    name: str
    severity: int
    seed: int = 0

    def __post_init__(self) -> None:
        CORRUPTIONS[self.name]
        if check_count("severity", self.severity) not in SEVERITIES:
            raise InputError("severity must be 1 to 5", self.severity, "Choose one of them.")
        check_count("seed", self.seed, low=0)

    @check_argument_types
    def __call__(self, image: Tensor, index: int) -> Tensor:
        """Return the corrupted image.

        Args:
            image: ``(channels, H, W)`` uint8, 1 or 3 channels.
            index: Index of the image in its part; the same index always gets the same corruption.

        Returns:
            The same shape and dtype, on the CPU.

        Raises:
            InputError: For another shape or dtype.
        """
        if image.ndim != 3 or image.dtype != torch.uint8 or image.shape[0] not in (1, 3):
            raise InputError(
                "an image must be uint8 (channels, H, W) with 1 or 3 channels",
                describe(image),
                "Pass one image at a time, before it is normalized.",
            )
        entry = CORRUPTIONS[self.name]
        strengths = entry.metadata["small" if image.shape[1] <= _MAX_SMALL_HEIGHT else "large"]
        # crc32 of the name, since hash() differs between processes.
        random = seeded_generator(
            Purpose.CORRUPTION, self.seed, crc32(self.name.encode()), self.severity, index
        )
        pixels = image.cpu().numpy().transpose(1, 2, 0) / 255.0
        changed = entry.value(pixels, strengths[self.severity - 1], random)
        values = np.rint(np.clip(changed, 0.0, 1.0) * 255.0).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
