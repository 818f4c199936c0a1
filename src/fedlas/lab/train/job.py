"""Training job: objective, data, configurations and hooks, as :func:`fedlas.lab.train.loop.fit` takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fedlas._core.ranks import Accelerator, new_accelerator
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.log import ShowProgress, TrainingProgress
from fedlas.objective import Objective
from fedlas.predictions import Predictions


class Hook(Protocol):
    """Observer of batches and predictions that adds entries to the log; it must not change the training.

    The features are what the criterion reads: the classifier head's input, unless the objective says otherwise.

    State:
        ``state_dict`` is part of each checkpoint. It must hold what a hook needs from earlier epochs, so that a resumed
        run has the same log as one that was never stopped.
    """

    def on_batch(self, logits: Tensor, index: Tensor | None) -> None:
        """Observe a training batch before the optimizer step: ``logits (B, C)`` of samples with indices ``(B,)``."""

    def on_held_out(self, logits: Tensor, features: Tensor) -> None:
        """Observe a validation batch in ``eval()``: ``logits (B, C)`` and ``features (B, D)``."""

    def on_epoch(
        self, predictions: Predictions, gather: Callable[[Any], list[Any]]
    ) -> Mapping[str, Any]:
        """Return the entries to add to the log record of an epoch, as JSON values.

        Args:
            predictions: Predictions of the batches given to :meth:`on_held_out`, in their order.
            gather: Returns its argument from every process, in the order of ranks. A collective: each process sees its
                own training batches, and the same validation batches as the others.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`state_dict`.

        Raises:
            KeyError: If an entry is missing; nothing changes then.
        """


class EpochBatches(Protocol):
    """Batches ``(inputs, target, index)`` whose order depends on the epoch alone."""

    def __iter__(self) -> Any: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, that determines the order."""


@dataclass(frozen=True)
class TrainingJob:
    """Objective, data, configurations and hooks of a training.

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
        frozen: Names of layers of the model that stay in ``eval()``; their parameters need no gradient.
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
    accelerator: Accelerator = field(default_factory=new_accelerator)
    name: str = "train"
    hooks: Sequence[Hook] = ()
    frozen: Sequence[str] = ()
    on_record: Callable[[Mapping[str, Any]], None] | None = None
    show: ShowProgress = TrainingProgress
