"""Images of one data set, made into what a model of another one takes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlas._core.check import InputError, check_count, describe

_LUMA = (0.299, 0.587, 0.114)
_CHUNK = 4096


def adapt_images(images: Tensor, *, channels: int, size: int) -> tuple[Tensor, list[str]]:
    """Images with the channels and the size that a model was trained on, and what was done to them.

    Args:
        images: ``(N, channels', H, W)`` uint8, grey or colour.
        channels: 1 or 3. Grey becomes colour by repeating it, colour grey by its luma (ITU-R BT.601).
        size: Height and width in pixels. Others are scaled bilinearly, smoothed where they shrink.

    Returns:
        ``(N, channels, size, size)`` uint8, the same tensor if nothing had to be done; and a sentence for each change.

    Raises:
        InputError: If the images are something else, or have as many channels as neither grey nor colour has.

    Note:
        Scaling leaves traces that have nothing to do with what is shown: an image scaled up is smoother than any the
        model has seen. Read the results of such a pair with that in mind.

    Example:
        >>> adapted, notes = adapt_images(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), channels=3, size=32)
        >>> adapted.shape, notes
        (torch.Size([2, 3, 32, 32]), ['grey repeated to 3 channels', 'scaled from 28 x 28 to 32 x 32 pixels'])
    """
    owner = "adapt_images"
    check_count(owner, "size", size)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.uint8 or 0 in images.shape:
        raise InputError(
            owner, "images must be uint8 (N, channels, H, W)", describe(images), "Put the channels second."
        )
    here = int(images.shape[1])
    if here != channels and (here, channels) not in ((1, 3), (3, 1)):
        raise InputError(
            owner,
            f"images must have {channels} channel{'s' * (channels != 1)}, or be grey for colour or colour for grey",
            f"{here} channels",
            "Convert them first.",
        )
    notes: list[str] = []
    if here != channels:
        notes.append(f"grey repeated to {channels} channels" if here == 1 else "colour made grey")
    height, width = (int(length) for length in images.shape[2:])
    if (height, width) != (size, size):
        notes.append(f"scaled from {height} x {width} to {size} x {size} pixels")
    if not notes:
        return images, notes
    return torch.cat([_adapted(chunk, channels, size) for chunk in images.split(_CHUNK)]), notes


def _adapted(images: Tensor, channels: int, size: int) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        luma = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
        images = (images.float() * luma).sum(dim=1, keepdim=True).round().to(torch.uint8)
    if images.shape[2:] != (size, size):
        scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
        images = scaled.round().clamp(0, 255).to(torch.uint8)
    return images.expand(-1, channels, -1, -1).contiguous()
