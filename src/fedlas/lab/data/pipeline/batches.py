"""Batches of augmented, normalised images, made where the images are: no workers, no image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas._core.pixels import multiply_add
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import Images
from fedlas.lab.data.pipeline.epochs import Epochs


class Batches(Epochs):
    """Iterate over one part of a data set, once per epoch.

    Each item is ``(x, target, index)``: ``x`` float32 ``(B, channels, H, W)``, normalised; ``target`` int64 ``(B,)``;
    ``index`` int64 ``(B,)``, the position of each sample in ``images``. All are on the device of the images.

    Order and augmentation are a pure function of ``(seed, epoch)``: they touch no global generator and do not depend on
    device, process count or what was iterated before, so a run that is stopped and resumed sees the same data.

    Args:
        images: The part.
        mean: Mean of each channel in [0, 1] units.
        std: Standard deviation of each channel, above 0.
        batch_size: Samples per step over all processes together.
        flip: Mirror each image left to right with probability 1/2.
        crop_padding: Add that many black pixels on each side and cut the original size out at a random place.
        shuffle: Visit the samples in another order each epoch.
        drop_last: Leave out a last batch of fewer than ``batch_size`` samples.
        seed: Whole number >= 0.
        rank: Which slice of each batch this process gets.
        world_size: Number of processes; each gets a contiguous slice of the same batch, sizes differing by at most one.
        device: Where to put the images, once; None leaves them where they are.

    Raises:
        InputError: For numbers out of range, statistics that do not fit the channels, or no batch at all.

    State:
        Only the epoch, which :meth:`set_epoch` sets; iterating does not change it.

    Note:
        If the last batch has fewer samples than there are processes, some of them get an empty slice; use ``drop_last``
        when training on several. Crop comes before flip; black pixels are added before normalising.

    Example:
        >>> part = Images(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> batches = Batches(part, mean=(0.5,), std=(0.5,), batch_size=2)
        >>> [index.tolist() for _, _, index in batches]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        images: Images,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        flip: bool = False,
        crop_padding: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str | None = None,
    ) -> None:
        self.batch_size = check_count("Batches", "batch_size", batch_size)
        self.crop_padding = check_count("Batches", "crop_padding", crop_padding, low=0)
        self.seed = check_count("Batches", "seed", seed, low=0)
        self.world_size = check_count("Batches", "world_size", world_size)
        self.rank = check_count("Batches", "rank", rank, low=0)
        if rank >= world_size:
            raise InputError("Batches", f"rank must be below world_size {world_size}", rank, "Count ranks from 0.")
        if batch_size < world_size:
            raise InputError(
                "Batches",
                f"batch_size must be at least one sample for each of {world_size} processes",
                batch_size,
                "batch_size counts the samples of all processes together: choose a larger one.",
            )
        if drop_last and len(images) < batch_size:
            raise InputError(
                "Batches",
                f"with drop_last there must be at least batch_size={batch_size} images",
                len(images),
                "Choose a smaller batch_size, or drop_last=False.",
            )
        self.flip, self.shuffle, self.drop_last = flip, shuffle, drop_last
        self.images = images if device is None else images.to(device)
        self._scale, self._shift = multiply_add(
            mean, std, channels=self.images.images.shape[1], device=self.images.images.device
        )

    def __len__(self) -> int:
        """Number of batches in an epoch, the same on every rank."""
        count = len(self.images)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        plan = self._plan()
        for step in range(len(self)):
            start = step * self.batch_size
            size = min(self.batch_size, len(self.images) - start)
            mine = slice(start + size * self.rank // self.world_size, start + size * (self.rank + 1) // self.world_size)
            index = plan.order[mine]
            pixels = self.images.images.index_select(0, index)
            if self.crop_padding:
                pixels = _crop(pixels, plan.top[mine], plan.left[mine], self.crop_padding)
            if self.flip:
                pixels = torch.where(plan.mirrored[mine, None, None, None], pixels.flip(3), pixels)
            yield pixels.float().mul_(self._scale).add_(self._shift), self.images.target[index], index

    def _plan(self) -> _Plan:
        """All random numbers of the epoch, drawn whether used or not: switching one option leaves the others alone."""
        random, count = stream(Purpose.EPOCH, self.seed, self._epoch), len(self.images)
        order = random.permutation(count)
        mirrored = random.random_sample(count) < 0.5
        corner = random.random_sample((2, count))
        # The corner of the window in the padded image: uniform on the 2 * padding + 1 places.
        top, left = (corner * (2 * self.crop_padding + 1)).astype(np.int64)
        arrays = (order.astype(np.int64) if self.shuffle else np.arange(count), mirrored, top, left)
        return _Plan(*(torch.from_numpy(array).to(self.images.target.device) for array in arrays))


@dataclass(frozen=True)
class _Plan:
    """Order of the samples, and at each place in that order how its image is augmented; each ``(N,)``."""

    order: Tensor
    mirrored: Tensor
    top: Tensor
    left: Tensor


def _crop(pixels: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """``pixels (B, channels, H, W)`` padded with black, then a window of the old size cut out at ``top, left (B,)``."""
    batch, channels, height, width = pixels.shape
    padded = pixels.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding:-padding, padding:-padding] = pixels  # several times faster than F.pad for uint8
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, channels, places, places, H, W), a view
    return windows[torch.arange(batch, device=pixels.device), :, top, left]
