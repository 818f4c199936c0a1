"""Images that are in two data sets: they are neither new nor unknown."""

from __future__ import annotations

from hashlib import blake2b

from torch import Tensor

from fedlas._core.check import InputError, describe


def count_duplicates(images: Tensor, others: Tensor) -> int:
    """How many of ``images`` are pixel for pixel among ``others``.

    Args:
        images: ``(N, channels, H, W)`` uint8.
        others: ``(M, channels, H, W)`` uint8.

    Returns:
        Of the ``N`` images, those with an equal; copies that were scaled or compressed anew are not found.

    Raises:
        InputError: If either is something else.

    Example:
        >>> import torch
        >>> count_duplicates(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(5, 1, 2, 2, dtype=torch.uint8))
        2
    """
    for name, value in (("images", images), ("others", others)):
        if value.ndim != 4 or str(value.dtype) != "torch.uint8":
            raise InputError(
                "count_duplicates", f"{name} must be uint8 (N, channels, H, W)", describe(value), "Convert."
            )
    if images.shape[1:] != others.shape[1:]:
        return 0
    known = set(_digests(others))
    return sum(digest in known for digest in _digests(images))


def _digests(images: Tensor) -> list[bytes]:
    """A fingerprint of each image, far too long for two different ones to share it by chance."""
    return [blake2b(image.numpy().data, digest_size=16).digest() for image in images.cpu().contiguous()]
