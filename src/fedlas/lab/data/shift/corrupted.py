"""Corruption of every image of a part."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedlas.lab.data.base import Images, Part
from fedlas.lab.data.shift import Corruption


def corrupted(part: Part, corruption: Corruption) -> Part:
    """The same part with every image corrupted: images in memory at once, images on disk when they are read.

    Args:
        part: Any part; its labels stay.
        corruption: The corruption.

    Returns:
        A part on the same device, without label probabilities, which no longer hold.

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
