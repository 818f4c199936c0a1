"""Two-stage training from a finished run: its body stays, a new head is trained (Jordahn and Olmos 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive, seed_everything
from fedlas.features import find_head
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.runs.measure import held_out_predictions
from fedlas.lab.runs.training import train_as_planned
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.train import OptimizerConfig, ScheduleConfig
from fedlas.losses import LOSSES
from fedlas.objective import Objective
from fedlas.uncertainty.two_stage import LatentKL, MLPHead, TwoStage, VariationalHead

_PAPER = {
    "paper": "Decoupling Feature Extraction and Classification Layers for Calibrated Neural Networks",
    "year": 2024,
    "url": "https://arxiv.org/abs/2405.01196",
    "least": 1,
    "most": 1,
}


@UNCERTAINTY.register("two-stage", title="Two-stage training", **_PAPER)
def two_stage(
    runs: Sequence[RunFolder], *, folder: Path, epochs: int = 40, lr: float = 1e-3, hidden: int = 256, loss: str = "ce"
) -> Result:
    """Two-stage training (TST): the body of a run, frozen, under a new MLP head.

    Args:
        runs: One finished run, the first stage.
        folder: Where the second stage keeps its checkpoint.
        epochs: Of the second stage.
        lr: Learning rate of AdamW, constant, without weight decay.
        hidden: Size of the head's two hidden layers.
        loss: Registry name of the loss of the second stage, with its default options.

    Returns:
        Predictions of the epoch with the lowest NLL on validation.

    Raises:
        InputError: For options out of range, an unknown loss, or a model without a linear head.

    Note:
        The second stage sees the run's training part, augmented as in the run, in another order. The body is in
        ``eval()`` all along: its batch norms normalize with, and keep, the statistics of the first stage. Batch size
        and precision are the run's; weights are not averaged.
    """
    return _second_stage(
        runs[0], "two-stage", folder, epochs=epochs, lr=lr, loss=loss, hidden=check_count("two-stage", "hidden", hidden)
    )


@UNCERTAINTY.register("two-stage-variational", title="Variational two-stage training", **_PAPER)
def two_stage_variational(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    epochs: int = 40,
    lr: float = 1e-3,
    hidden: int = 256,
    samples: int = 100,
    kl_weight: float = 0.01,
) -> Result:
    """Variational two-stage training (V-TST): the same with a Gaussian last hidden layer, trained by the ELBO.

    Args:
        runs: One finished run, the first stage.
        folder: Where the second stage keeps its checkpoint.
        epochs: Of the second stage.
        lr: Learning rate of AdamW, constant, without weight decay.
        hidden: Size of the head's hidden layer and of the latent one.
        samples: Draws of the latent layer for a prediction.
        kl_weight: Factor of the KL term, a sum over the latent units; 1 is the evidence lower bound.

    Returns:
        Log of the mean probabilities over the draws, of the epoch with the lowest NLL on validation.

    Raises:
        InputError: For options out of range, or a model without a linear head.

    Note:
        As :func:`two_stage`. A training batch has one draw for each sample. With the bound itself (``kl_weight`` 1) the
        KL term of a latent layer as wide as this outweighs the labels and predictions stay close to uniform; 0.01 is
        what the published code defaults to.
    """
    return _second_stage(
        runs[0],
        "two-stage-variational",
        folder,
        epochs=epochs,
        lr=lr,
        loss="ce",
        hidden=check_count("two-stage-variational", "hidden", hidden),
        variational={
            "samples": check_count("two-stage-variational", "samples", samples),
            "kl_weight": check_number("two-stage-variational", "kl_weight", kl_weight, low=0),
        },
    )


def _second_stage(
    member: RunFolder,
    name: str,
    folder: Path,
    *,
    epochs: int,
    lr: float,
    loss: str,
    hidden: int,
    variational: dict[str, Any] | None = None,
) -> Result:
    check_count(name, "epochs", epochs)
    check_number(name, "lr", lr, low=0, low_open=True)
    accelerator = new_accelerator()
    trained = load_trained(member).to(accelerator.device)
    # The second stage has random streams of its own, and the first one's loss does not matter to it.
    splits, seed = trained.splits, derive(member.run.seed, name)
    criterion = LOSSES.build(loss, {}, num_classes=splits.num_classes, num_samples=len(splits.train))
    seed_everything(derive(seed, "head"))
    size = _head_inputs(name, trained.objective.model)
    # A plain or a Gaussian head in place of the run's own.
    head: nn.Module
    if variational is None:
        head, penalty = MLPHead(size, hidden, splits.num_classes), None
    else:
        head = VariationalHead(size, hidden, splits.num_classes, samples=variational["samples"], seed=seed)
        penalty = LatentKL(variational["kl_weight"])
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
    fitted = train_as_planned(
        stage,
        Objective(model, criterion, head=head, penalty=penalty),
        splits,
        accelerator=accelerator,
        identity={
            **stage.config(),
            "first": member.run.config(),
            "hidden": hidden,
            "loss": loss,
            **(variational or {}),
        },
        label=f"{name} of {member.run.name}",
    )
    # The best epoch's predictions on the run's own parts.
    val, test = held_out_predictions(member.run, splits, model)
    return Result(
        test=test,
        val=val,
        notes=[f"second stage: epoch {fitted.best_epoch} of {epochs}, chosen by NLL on validation"],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        details={"best_epoch": fitted.best_epoch},
    )


def _head_inputs(owner: str, model: nn.Module) -> int:
    head = find_head(model)
    size = getattr(head, "in_features", None)
    if isinstance(size, int):
        return size
    raise InputError(owner, "the model must end in a linear layer", type(head).__name__, "Use another method.")
