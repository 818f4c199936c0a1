"""Batches of images in memory, augmented and normalized as whole batches on the device of the images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import check_count
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import Images
from fedlas.lab.data.pipeline.epochs import Epochs


class Batches(Epochs):
    """Iterate over one part of a data set, once per epoch.

    Each item is ``(x, target, index)``: ``x`` float32 ``(B, channels, H, W)``, normalized; ``target`` int64 ``(B,)``;
    ``index`` int64 ``(B,)``, the position of each sample in ``images``. All are on the device of the images.

    Order and augmentation are a pure function of ``(seed, epoch)``: they touch no global generator and do not depend on
    device, process count or what was iterated before, so a run that is stopped and resumed sees the same data.

    Args:
        images: The part.
        crop_padding: Add that many black pixels on each side, then crop to the original size at a random place.
        **options: ``mean``, ``std``, ``batch_size`` and more, as ``Epochs`` takes them.

    Raises:
        InputError: For numbers out of range, statistics that do not fit the channels, or no batch at all.

    State:
        The epoch, which :meth:`set_epoch` sets; iterating does not change it.

    Note:
        If the last batch has fewer samples than there are processes, some of them get an empty slice; use ``drop_last``
        when training on several. The crop comes before the flip; black pixels are added before normalization.

    Example:
        >>> part = Images(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> batches = Batches(part, mean=(0.5,), std=(0.5,), batch_size=2)
        >>> [index.tolist() for _, _, index in batches]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, images: Images, *, crop_padding: int = 0, **options: Any) -> None:
        super().__init__(images, **options)
        self.images = images
        self.crop_padding = check_count("Batches", "crop_padding", crop_padding, low=0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        plan = self._plan()
        for mine in self.slices():
            index = plan.order[mine]
            pixels = self.images.images.index_select(0, index)
            if self.crop_padding:
                pixels = _crop(pixels, plan.top[mine], plan.left[mine], self.crop_padding)
            if self.flip:
                pixels = torch.where(plan.mirrored[mine, None, None, None], pixels.flip(3), pixels)
            yield self.normalized(pixels), self.images.target[index], index

    def _plan(self) -> _Plan:
        """All random numbers of the epoch. All are drawn, used or not, so options do not affect each other."""
        random, count = stream(Purpose.EPOCH, self.seed, self._epoch), len(self.images)
        shuffled = random.permutation(count)
        order = shuffled.astype(np.int64) if self.shuffle else np.arange(count)
        mirrored = random.random_sample(count) < 0.5
        if self.flip == "alternating":  # the first epoch decides which images begin mirrored
            first = stream(Purpose.EPOCH, self.seed, 0).random_sample(count) < 0.5
            mirrored = first[order] ^ bool(self._epoch % 2)
        corner = random.random_sample((2, count))
        # The corner of the crop in the padded image is uniform on 2 * padding + 1 places.
        top, left = (corner * (2 * self.crop_padding + 1)).astype(np.int64)
        arrays = (order, mirrored, top, left)
        return _Plan(*(torch.from_numpy(array).to(self.images.target.device) for array in arrays))


@dataclass(frozen=True)
class _Plan:
    """Order of the samples, and how the image at each place of that order is augmented; each ``(N,)``."""

    order: Tensor
    mirrored: Tensor
    top: Tensor
    left: Tensor


def _crop(pixels: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """``pixels (B, channels, H, W)`` padded with black, then cropped to the old size at ``top, left (B,)``."""
    batch, channels, height, width = pixels.shape
    padded = pixels.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding:-padding, padding:-padding] = pixels  # several times faster than F.pad for uint8
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, channels, places, places, H, W), a view
    return windows[torch.arange(batch, device=pixels.device), :, top, left]
