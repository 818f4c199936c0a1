"""OOD images: conversion to a model's input size, and detection of duplicates."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor
from torch.nn import functional as F

from fedlas._core.check import InputError, check_count, describe

__all__ = ["adapt_images", "count_duplicates"]

_LUMA = (0.299, 0.587, 0.114)
_CHUNK = 4096


def adapt_images(images: Tensor, *, channels: int, size: int) -> tuple[Tensor, list[str]]:
    """Return images with the channels and size that a model takes, and a description of each change.

    Args:
        images: ``(N, channels', H, W)`` uint8, gray or color.
        channels: 1 or 3. Gray becomes color by repetition, color becomes gray by its luma (ITU-R BT.601).
        size: Height and width in pixels. Other sizes are scaled bilinearly, with smoothing where they shrink.

    Returns:
        ``(N, channels, size, size)`` uint8, the same tensor if nothing changes; and a description of each change.

    Raises:
        InputError: If the images have another shape or type, or are neither gray nor color.

    Note:
        Scaling leaves traces that are unrelated to the content: an enlarged image is smoother than any the model has
        seen. Read the results of such a pair with that in mind.

    Example:
        >>> adapted, notes = adapt_images(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), channels=3, size=32)
        >>> adapted.shape, notes
        (torch.Size([2, 3, 32, 32]), ['gray repeated to 3 channels', 'scaled from 28 x 28 to 32 x 32 pixels'])
    """
    check_count("channels", channels)
    check_count("size", size)
    _check_images("images", images)
    colors, height, width = images.shape[1:]
    if colors != channels and (colors, channels) not in ((1, 3), (3, 1)):
        raise InputError(
            f"images must have {channels} channel{'s' * (channels != 1)}, or 1 or 3 to convert gray and color",
            f"{colors} channels",
            "Convert them first.",
        )
    notes: list[str] = []
    if colors != channels:
        notes.append(
            f"gray repeated to {channels} channels" if colors == 1 else "color converted to gray"
        )
    if (height, width) != (size, size):
        notes.append(f"scaled from {height} x {width} to {size} x {size} pixels")
    if not notes:
        return images, notes
    return torch.cat(
        [_convert_images(chunk, channels, size) for chunk in images.split(_CHUNK)]
    ), notes


def _convert_images(images: Tensor, channels: int, size: int) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        luma = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
        images = (images.float() * luma).sum(dim=1, keepdim=True).round().to(torch.uint8)
    if images.shape[2:] != (size, size):
        scaled = F.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
        images = scaled.round().clamp(0, 255).to(torch.uint8)
    return images.expand(-1, channels, -1, -1).contiguous()


def count_duplicates(images: Tensor, others: Tensor) -> int:
    """Return the number of ``images`` that are pixel-identical to an image in ``others``.

    Args:
        images: ``(N, channels, H, W)`` uint8.
        others: ``(M, channels, H, W)`` uint8.

    Returns:
        A number from 0 to ``N``; copies that were scaled or compressed again are not found.

    Raises:
        InputError: If either has another shape or type.

    Example:
        >>> count_duplicates(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(5, 1, 2, 2, dtype=torch.uint8))
        2
    """
    for name, value in (("images", images), ("others", others)):
        _check_images(name, value)
    if images.shape[1:] != others.shape[1:]:
        return 0
    digests = set(_image_hashes(others))
    return sum(digest in digests for digest in _image_hashes(images))


def _image_hashes(images: Tensor) -> list[bytes]:
    """Return a 128-bit hash of each image."""
    return [
        blake2b(image.numpy().data, digest_size=16).digest() for image in images.cpu().contiguous()
    ]


def _check_images(name: str, images: Tensor) -> None:
    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or images.dtype != torch.uint8
        or 0 in images.shape
    ):
        raise InputError(
            f"{name} must be uint8 (N, channels, H, W)",
            describe(images),
            "Move the channels to the second axis.",
        )
