"""The second of two stages: a new head is trained on the frozen body of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive, seed_everything
from fedlas.features import find_head
from fedlas.lab.data import Splits
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.runs.measure import held_out_predictions
from fedlas.lab.runs.training import train_run, training_job
from fedlas.lab.studies.uncertainty.base import Result
from fedlas.lab.train import OptimizerConfig, ScheduleConfig
from fedlas.losses import LOSSES
from fedlas.objective import Objective
from fedlas.zoo.uncertainty.two_stage import TwoStage


@dataclass(frozen=True)
class SecondStage:
    """A new head, trained on the frozen body of a run.

    Attributes:
        run: The run of the first stage.
        model: The body with the new head.
        splits: The run's data.
        epochs: How many the head was trained for.
        best_epoch: The one whose weights the model has.
    """

    run: Run
    model: TwoStage
    splits: Splits
    epochs: int
    best_epoch: int

    def result(self) -> Result:
        """Predictions of the best epoch on the run's own parts."""
        val, test = held_out_predictions(self.run, self.splits, self.model)
        return Result(
            test=test,
            val=val,
            notes=[f"second stage: epoch {self.best_epoch} of {self.epochs}, chosen by NLL on validation"],
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            details={"best_epoch": self.best_epoch},
        )


def second_stage(
    member: RunFolder,
    name: str,
    folder: Path,
    *,
    epochs: int,
    lr: float,
    loss: str,
    make_head: Callable[[int, int, int], nn.Module],
    settings: Mapping[str, Any],
    penalty: nn.Module | None = None,
) -> SecondStage:
    """Train a new head on the frozen body of a finished run, or go on where an earlier start stopped.

    Args:
        member: The run.
        name: Of the method, for errors and its random streams.
        folder: Where the checkpoint is.
        epochs: At least 1.
        lr: Learning rate of AdamW, above 0.
        loss: Registry name of the loss.
        make_head: Called with the length of the features, the number of classes and a seed.
        settings: The head's own options, which a checkpoint is compared with.
        penalty: Added to the loss, see :class:`~fedlas.Objective`.

    Raises:
        InputError: For options out of range, an unknown loss, or a model without a linear head.
    """
    check_count(name, "epochs", epochs)
    check_number(name, "lr", lr, low=0, low_open=True)
    accelerator = new_accelerator()
    trained = load_trained(member).to(accelerator.device)
    # The second stage has random streams of its own, and the first one's loss does not matter to it.
    splits, seed = trained.splits, derive(member.run.seed, name)
    criterion = LOSSES.build(loss, {}, num_classes=splits.num_classes, num_samples=len(splits.train))
    seed_everything(derive(seed, "head"))
    head = make_head(_head_inputs(name, trained.objective.model), splits.num_classes, seed)
    # Ranks draw different noise; rank 0 draws what one process would.
    rank = int(accelerator.process_index)
    seed_everything(derive(seed, f"training/{rank}" if rank else "training"))
    model = TwoStage(trained.objective.model, head)
    # The training loop of any run, with the settings of this stage.
    recipe = replace(
        member.run.recipe,
        train=replace(member.run.recipe.train, epochs=epochs, select="nll", average="none"),
        optimizer=OptimizerConfig(name="adamw", lr=lr, weight_decay=0.0),
        schedule=ScheduleConfig(name="constant"),
    )
    stage = replace(member.run, recipe=recipe, seed=seed, folder=folder)
    objective = Objective(model, criterion, head=head, penalty=penalty)
    job = replace(
        training_job(stage, objective, splits, accelerator),
        identity={**stage.config(), "first": member.run.config(), "loss": loss, **settings},
        name=f"{name} of {member.run.name}",
    )
    fitted = train_run(stage, splits, job)
    return SecondStage(member.run, model, splits, epochs, fitted.best_epoch)


def _head_inputs(owner: str, model: nn.Module) -> int:
    head = find_head(model)
    size = getattr(head, "in_features", None)
    if isinstance(size, int):
        return size
    raise InputError(owner, "the model must end in a linear layer", type(head).__name__, "Use another method.")
