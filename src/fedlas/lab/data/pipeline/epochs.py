"""The epoch of training batches: what their order and augmentation depend on, together with the seed."""

from __future__ import annotations

from fedlas._core.check import check_count


class Epochs:
    """Batches that differ from epoch to epoch.

    State:
        The epoch, counted from 0, that the next iteration has.
    """

    _epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose order and augmentation the next iteration has."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, a whole number >= 0, for iterations that start from now on."""
        self._epoch = check_count("Batches.set_epoch", "epoch", epoch, low=0)
