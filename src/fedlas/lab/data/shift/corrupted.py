"""A part of a data set under a corruption."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedlas.lab.data.base import Images, Part
from fedlas.lab.data.shift import Corruption


def corrupted(part: Part, corruption: Corruption) -> Part:
    """The same part with every image corrupted: at once in memory, when it is read on disk.

    Args:
        part: Any part; labels stay.
        corruption: Which, how much and by what seed.

    Returns:
        A part on the same device. Known label probabilities no longer belong to its images and are left out.

    Example:
        >>> part = Images(torch.full((2, 1, 8, 8), 128, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> int(corrupted(part, Corruption("contrast", 5)).images[0, 0, 0, 0])
        128
    """
    if not isinstance(part, Images):
        return replace(part, corruption=corruption)
    images = part.images.cpu()
    changed = torch.stack([corruption(image, row) for row, image in enumerate(images)])
    return Images(changed.to(part.images.device), part.target)
