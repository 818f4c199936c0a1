"""One training: the objective, its data and every setting of the loop, as :func:`fedlas.lab.train.fit` takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fedlas._core.ranks import new_accelerator
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.hooks import Hook
from fedlas.lab.train.progress import ShowProgress, TrainingProgress
from fedlas.objective import Objective

__all__ = ["EpochBatches", "TrainingJob"]


class EpochBatches(Protocol):
    """Training data: batches ``(inputs, target, index)`` whose order depends on the epoch alone."""

    def __iter__(self) -> Any: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, on which data, and how.

    Attributes:
        objective: Model and criterion; trained in place.
        train: Training batches of this process.
        val: Validation batches, the whole part on every process.
        folder: Holds ``checkpoint.pt`` and ``log.jsonl``.
        config: Configuration of the loop.
        optimizer: Configuration of the optimizer.
        schedule: Configuration of the learning rate.
        identity: Resolved configuration of the run. A checkpoint of another configuration is refused.
        accelerator: ``accelerate.Accelerator``.
        name: Text in front of the progress bar.
        hooks: Observers that add to the log. They read the input of the model's head, or of the module that the
            objective names.
        on_record: Called on the main process with each record, after it is in the log.
        show: Shows the progress.
    """

    objective: Objective
    train: EpochBatches
    val: EpochBatches
    folder: Path
    config: TrainConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    identity: Mapping[str, Any]
    accelerator: Any = field(default_factory=new_accelerator)
    name: str = "train"
    hooks: Sequence[Hook] = ()
    on_record: Callable[[Mapping[str, Any]], None] | None = None
    show: ShowProgress = TrainingProgress
