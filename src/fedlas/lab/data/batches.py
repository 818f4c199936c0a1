"""Batches of one part, from memory or disk: order, slices per process, augmentation and normalization."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedlas._core.check import InputError, check_count
from fedlas._core.pixels import normalization_scale_shift
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.base import Flip, Images, Part
from fedlas.lab.data.files import DatasetItems, ImageFiles


class SeededBatches:
    """Base class of batches over one part, with order and augmentation determined by seed and epoch.

    Args:
        part: A part, in memory or on disk.
        mean: Mean of each channel or feature, of uint8 images in [0, 1] units; empty leaves inputs unchanged.
        std: Standard deviation of each, above 0; empty exactly when ``mean`` is.
        batch_size: Samples per step over all processes together.
        flip: Mirror each image left to right with probability 1/2, or in every other epoch.
        shuffle: Use another order in each epoch.
        drop_last: Leave out a last batch of fewer than ``batch_size`` samples.
        seed: Whole number >= 0.
        rank: Index of this process, from 0, and so of its slice of each batch.
        world_size: Number of processes; each gets a contiguous slice of the same batch, sizes differing by at most one.

    Raises:
        InputError: For numbers out of range, statistics that do not fit the channels, or no batch at all.

    State:
        The epoch, counted from 0, of the next iteration.
    """

    _epoch = 0

    def __init__(
        self,
        part: Part,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        flip: Flip = False,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._part = part
        self.batch_size = check_count("batch_size", batch_size)
        self.seed = check_count("seed", seed, low=0)
        self.world_size = check_count("world_size", world_size)
        self.rank = check_count("rank", rank, low=0)
        if rank >= world_size:
            raise InputError(
                f"rank must be below world_size {world_size}", rank, "Count ranks from 0."
            )
        if batch_size < world_size:
            expected = f"batch_size must be at least {world_size}, one sample per process"
            fix = "Choose a larger batch_size; it counts the samples of all processes together."
            raise InputError(expected, batch_size, fix)
        if drop_last and len(part) < batch_size:
            expected = f"with drop_last the part must have at least batch_size={batch_size} samples"
            raise InputError(
                expected, len(part), "Choose a smaller batch_size, or drop_last=False."
            )
        self.flip = flip
        self.shuffle = shuffle
        self.drop_last = drop_last
        floats = isinstance(part, Images) and part.images.is_floating_point()
        self._normalization: tuple[Tensor, Tensor] | None = None
        if mean or std:
            self._normalization = normalization_scale_shift(
                mean,
                std,
                channels=part.shape[0],
                device=part.target.device,
                max_value=1.0 if floats else 255.0,
                axes=len(part.shape) - 1,
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on every rank."""
        count = len(self._part)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def slices(self) -> Iterator[slice]:
        """Yield the slice of the epoch's order that this process gets, batch by batch."""
        for step in range(len(self)):
            start = step * self.batch_size
            size = min(self.batch_size, len(self._part) - start)
            yield slice(
                start + size * self.rank // self.world_size,
                start + size * (self.rank + 1) // self.world_size,
            )

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return normalized float32 inputs: ``(x / 255 - mean) / std`` for uint8, ``(x - mean) / std`` for floats."""
        if self._normalization is None:
            return pixels.float()
        scale, shift = self._normalization
        return pixels.float().mul_(scale).add_(shift)

    @property
    def epoch(self) -> int:
        """Epoch that determines order and augmentation of the next iteration."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, a whole number >= 0, for iterations that start after this call."""
        self._epoch = check_count("epoch", epoch, low=0)


class Batches(SeededBatches):
    """Batches of one part in memory; one iteration is one epoch.

    Each item is ``(x, target, index)``: ``x`` float32 ``(B, channels, H, W)``, normalized; ``target`` int64 ``(B,)``;
    ``index`` int64 ``(B,)``, the position of each sample in ``images``. All are on the device of the images.

    Order and augmentation are a pure function of ``(seed, epoch)``: they touch no global generator and do not depend on
    device, process count or what was iterated before, so a run that is stopped and resumed sees the same data.

    Args:
        images: The part.
        crop_padding: Add that many black pixels on each side, then crop to the original size at a random place.
        **options: ``mean``, ``std``, ``batch_size`` and more, as ``SeededBatches`` takes them.

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
        self.crop_padding = check_count("crop_padding", crop_padding, low=0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        plan = self._draw_epoch()
        for indices in self.slices():
            index = plan["order"][indices]
            pixels = self.images.images.index_select(0, index)
            if self.crop_padding:
                pixels = _pad_and_crop(
                    pixels, plan["top"][indices], plan["left"][indices], self.crop_padding
                )
            if self.flip:
                pixels = torch.where(
                    plan["mirrored"][indices, None, None, None], pixels.flip(3), pixels
                )
            yield self.normalize(pixels), self.images.target[index], index

    def _draw_epoch(self) -> dict[str, Tensor]:
        """Return the order of the epoch, and mirroring and crop offsets in that order, each ``(N,)``.

        All random numbers are drawn, used or not, so that options do not affect each other.
        """
        random = seeded_generator(Purpose.EPOCH, self.seed, self._epoch)
        count = len(self.images)
        shuffled = random.permutation(count)
        order = shuffled.astype(np.int64) if self.shuffle else np.arange(count)
        mirrored = random.random_sample(count) < 0.5
        if self.flip == "alternating":  # the first epoch decides which images begin mirrored
            starts_mirrored = (
                seeded_generator(Purpose.EPOCH, self.seed, 0).random_sample(count) < 0.5
            )
            mirrored = starts_mirrored[order] ^ bool(self._epoch % 2)
        corner = random.random_sample((2, count))
        # The corner of the crop in the padded image is uniform on 2 * padding + 1 offsets.
        rows, columns = (corner * (2 * self.crop_padding + 1)).astype(np.int64)
        arrays = {"order": order, "mirrored": mirrored, "top": rows, "left": columns}
        return {
            name: torch.from_numpy(array).to(self.images.target.device)
            for name, array in arrays.items()
        }


def _pad_and_crop(pixels: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Pad ``pixels (B, channels, H, W)``, then crop to the original size at offsets ``top``, ``left`` ``(B,)``."""
    batch, channels, height, width = pixels.shape
    padded = pixels.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    # several times faster than F.pad for uint8
    padded[:, :, padding:-padding, padding:-padding] = pixels
    # (B, channels, offsets, offsets, H, W), a view
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(batch, device=pixels.device), :, top, left]


_SeededIndex = tuple[int, int | None]
"""Index of an image, and seed of its augmentation; None without augmentation."""


class StreamedBatches(SeededBatches):
    """Batches of one part on disk or of a ``Dataset``; one iteration is one epoch.

    Each item is ``(x, target, index)`` as in ``Batches``, on the device of the labels. Workers read, crop and flip
    images; the device normalizes them.

    Order and augmentation are a pure function of ``(seed, epoch)``: every image has its own seed, so they do not depend
    on the number of workers or processes, and they touch no global generator.

    Args:
        files: The part.
        augment: Crop (and flip) as for training; otherwise crop as for testing.
        workers: Processes that read images; 0 reads in this process, None uses one for each core of this process's
            share, at most eight.
        **options: ``mean``, ``std``, ``batch_size`` and more, as ``SeededBatches`` takes them. Flips need ``augment``.

    Raises:
        InputError: For numbers out of range, statistics that do not fit the channels, or no batch at all; while
            iterating, for an image that cannot be read (the message names the file).

    State:
        The epoch, which :meth:`set_epoch` sets. Workers of shuffled batches live as long as the object.

    Example:
        >>> from tempfile import mkdtemp
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from fedlas.lab.data import View
        >>> folder, names = Path(mkdtemp()), ["1.png", "2.png"]
        >>> for name in names:
        ...     Image.new("RGB", (12, 10)).save(folder / name)
        >>> part = ImageFiles.from_lists(folder, names, [0, 1], View(resize=8, crop=8))
        >>> statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
        >>> x, target, index = next(iter(StreamedBatches(part, batch_size=2, workers=0, **statistics)))
        >>> x.shape, target.tolist(), index.tolist()
        (torch.Size([2, 3, 8, 8]), [0, 1], [0, 1])
    """

    def __init__(
        self,
        files: ImageFiles | DatasetItems,
        *,
        augment: bool = False,
        workers: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(files, **options)
        self.files = files
        self.augment = augment
        if workers is None:
            # A Dataset may not be picklable for another process, unlike file names.
            workers = _default_num_workers(self.world_size) if isinstance(files, ImageFiles) else 0
        self.workers = check_count("workers", workers, low=0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        device = self.files.target.device
        for pixels, index in self._loader:
            if isinstance(
                pixels, InputError
            ):  # a value, since DataLoader cannot rebuild an exception of four arguments
                raise pixels
            x = self.normalize(pixels.to(device, non_blocking=True))
            index = index.to(device, non_blocking=True)
            yield x, self.files.target[index], index

    @cached_property
    def _loader(self) -> DataLoader[Any]:
        # workers do not use the accelerator
        """``DataLoader`` that reads uint8 inputs on the CPU."""
        read = self.files.to("cpu").make_reader(augment=self.augment, flip=bool(self.flip))
        return DataLoader(
            _SeededDataset(read),
            batch_sampler=_BatchSampler(self),
            num_workers=self.workers,
            collate_fn=partial(_collate, self.files.shape),
            pin_memory=self.files.target.device.type == "cuda",
            persistent_workers=self.workers > 0 and self.shuffle,
            # DataLoader draws from it in each iteration, not from the global generator
            generator=torch.Generator(),
        )


class _BatchSampler:
    """Batch sampler that yields the batches of an epoch as lists of seeded indices, in the main process."""

    def __init__(self, batches: StreamedBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[_SeededIndex]]:
        batches = self.batches
        count = len(self.batches.files)
        random = seeded_generator(Purpose.EPOCH, batches.seed, batches.epoch)
        order = random.permutation(count).tolist()
        seeds = random.randint(0, 2**62, count).tolist()
        for mine in batches.slices():
            places = range(mine.start, mine.stop)
            yield [
                (order[i] if batches.shuffle else i, seeds[i] if batches.augment else None)
                for i in places
            ]


class _SeededDataset(Dataset[Any]):
    """Data set that reads samples by seeded index; a read error is returned instead of raised."""

    def __init__(self, read: Callable[[int], Tensor]) -> None:
        self.read = read

    def __getitem__(self, place: _SeededIndex) -> tuple[Tensor, int] | InputError:
        row, seed = place
        # torchvision draws from the CPU's global generator; torch.manual_seed would seed accelerators too
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
            try:
                return self.read(row), row
            except InputError as error:
                return error


def _collate(shape: tuple[int, ...], items: list[Any]) -> tuple[Tensor | InputError, Tensor]:
    """Return stacked inputs and their indices, or the first read error and no indices."""
    wrong = next((item for item in items if isinstance(item, InputError)), None)
    if wrong is not None:
        return wrong, torch.empty(0, dtype=torch.int64)
    index = torch.tensor([row for _, row in items], dtype=torch.int64)
    if not items:  # this rank's slice of a last batch with fewer samples than ranks
        return torch.empty((0, *shape), dtype=torch.uint8), index
    return torch.stack([pixels for pixels, _ in items]), index


def _default_num_workers(world_size: int) -> int:
    """Return one reading process per core of this rank's share, at most eight."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(8, cores // world_size))
