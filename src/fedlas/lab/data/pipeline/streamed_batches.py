"""Batches of large images that workers read from disk, crop and augment while the model computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedlas._core.check import InputError, check_count
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.files import Files
from fedlas.lab.data.pipeline.epochs import Epochs

_Place = tuple[int, int | None]
"""Row of an image and seed of its augmentation; None without augmentation."""


class StreamedBatches(Epochs):
    """Iterate over one part of a data set on disk, once per epoch, as :class:`~fedlas.lab.data.Batches` does in memory.

    Each item is ``(x, target, index)`` as there, on the device of the files. Workers read, crop and flip images;
    the device normalizes them.

    Order and augmentation are a pure function of ``(seed, epoch)``: every image has its own seed, so they do not depend
    on the number of workers or processes, and they touch no global generator.

    Args:
        files: The part.
        augment: Crop (and flip) as for training; otherwise crop as for testing.
        workers: Processes that read images; 0 reads in this process, None uses one for each core of this process's
            share, at most eight.
        **options: ``mean``, ``std``, ``batch_size`` and more, as ``Epochs`` takes them. Flips need ``augment``.

    Raises:
        InputError: For numbers out of range, statistics that do not fit the channels, or no batch at all; while
            iterating, for an image that cannot be read (the message names the file).

    State:
        The epoch, which :meth:`set_epoch` sets. Workers of shuffled batches live as long as the object.
    """

    def __init__(self, files: Files, *, augment: bool = False, workers: int | None = None, **options: Any) -> None:
        super().__init__(files, **options)
        self.files, self.augment = files, augment
        self.workers = (
            _default_workers(self.world_size) if workers is None else check_count("data", "workers", workers, low=0)
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        device = self.files.target.device
        for pixels, index in self._loader:
            if isinstance(
                pixels, InputError
            ):  # a value, since DataLoader cannot rebuild an exception of four arguments
                raise pixels
            x = self.normalized(pixels.to(device, non_blocking=True))
            index = index.to(device, non_blocking=True)
            yield x, self.files.target[index], index

    @cached_property
    def _loader(self) -> DataLoader[Any]:
        pipeline = self.files.view.pipeline(augment=self.augment, flip=bool(self.flip))
        return DataLoader(
            _Rows(self.files.to("cpu"), pipeline),  # workers do not use the accelerator
            batch_sampler=_Plan(self),
            num_workers=self.workers,
            collate_fn=partial(_collate, self.files.shape),
            pin_memory=self.files.target.device.type == "cuda",
            persistent_workers=self.workers > 0 and self.shuffle,
            generator=torch.Generator(),  # DataLoader draws from it in each iteration, not from the global generator
        )


class _Plan:
    """Batch sampler: the batches of an epoch as lists of places, iterated in the main process."""

    def __init__(self, batches: StreamedBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[_Place]]:
        own, count = self.batches, len(self.batches.files)
        random = stream(Purpose.EPOCH, own.seed, own.epoch)
        order = random.permutation(count).tolist()
        seeds = random.randint(0, 2**62, count).tolist()
        for mine in own.slices():
            places = range(mine.start, mine.stop)
            yield [(order[i] if own.shuffle else i, seeds[i] if own.augment else None) for i in places]


class _Rows(Dataset[Any]):
    def __init__(self, files: Files, pipeline: Callable[[Any], Tensor]) -> None:
        self.files, self.pipeline = files, pipeline

    def __getitem__(self, place: _Place) -> tuple[Tensor, int] | InputError:
        (row, seed), files = place, self.files
        try:
            image = files.open(row)
        except InputError as error:
            return error
        if seed is None:
            pixels = self.pipeline(image)
        else:  # torchvision draws from the CPU's global generator; torch.manual_seed would seed accelerators too
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                pixels = self.pipeline(image)
        return (pixels if files.corruption is None else files.corruption(pixels, row)), row


def _collate(shape: tuple[int, int, int], items: list[Any]) -> tuple[Tensor | InputError, Tensor]:
    wrong = next((item for item in items if isinstance(item, InputError)), None)
    if wrong is not None:
        return wrong, torch.empty(0, dtype=torch.int64)
    index = torch.tensor([row for _, row in items], dtype=torch.int64)
    if not items:  # this rank's slice of a last batch with fewer samples than ranks
        return torch.empty((0, *shape), dtype=torch.uint8), index
    return torch.stack([pixels for pixels, _ in items]), index


def _default_workers(world_size: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // world_size))
