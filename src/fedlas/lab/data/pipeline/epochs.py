"""What batches from memory and from disk share: slices of each process, normalization, and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas._core.pixels import multiply_add
from fedlas.lab.data.base import Flip, Part


class Epochs:
    """Batches of one part, in an order and with an augmentation that depend on the epoch.

    Args:
        part: A part, in memory or on disk.
        mean: Mean of each channel in [0, 1] units.
        std: Standard deviation of each channel, above 0.
        batch_size: Samples per step over all processes together.
        flip: Mirror each image left to right with probability 1/2, or in every other epoch.
        shuffle: Use another order in each epoch.
        drop_last: Leave out a last batch of fewer than ``batch_size`` samples.
        seed: Whole number >= 0.
        rank: Which slice of each batch this process gets.
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
        self.batch_size = check_count("Batches", "batch_size", batch_size)
        self.seed = check_count("Batches", "seed", seed, low=0)
        self.world_size = check_count("Batches", "world_size", world_size)
        self.rank = check_count("Batches", "rank", rank, low=0)
        if rank >= world_size:
            raise InputError("Batches", f"rank must be below world_size {world_size}", rank, "Count ranks from 0.")
        if batch_size < world_size:
            expected = f"batch_size must be at least one sample for each of {world_size} processes"
            fix = "batch_size counts the samples of all processes together: choose a larger one."
            raise InputError("Batches", expected, batch_size, fix)
        if drop_last and len(part) < batch_size:
            expected = f"with drop_last there must be at least batch_size={batch_size} images"
            raise InputError("Batches", expected, len(part), "Choose a smaller batch_size, or drop_last=False.")
        self.flip, self.shuffle, self.drop_last = flip, shuffle, drop_last
        self._scale, self._shift = multiply_add(mean, std, channels=part.shape[0], device=part.target.device)

    def __len__(self) -> int:
        """Number of batches in an epoch, the same on every rank."""
        count = len(self._part)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def slices(self) -> Iterator[slice]:
        """The places in the epoch's order that this process gets, batch by batch."""
        for step in range(len(self)):
            start = step * self.batch_size
            size = min(self.batch_size, len(self._part) - start)
            yield slice(start + size * self.rank // self.world_size, start + size * (self.rank + 1) // self.world_size)

    def normalized(self, pixels: Tensor) -> Tensor:
        """``(pixels / 255 - mean) / std`` of uint8 ``(B, channels, H, W)``, float32."""
        return pixels.float().mul_(self._scale).add_(self._shift)

    @property
    def epoch(self) -> int:
        """The epoch that decides order and augmentation of the next iteration."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, a whole number >= 0, of the iterations that start after this call."""
        self._epoch = check_count("Batches.set_epoch", "epoch", epoch, low=0)
