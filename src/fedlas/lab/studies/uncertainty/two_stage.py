"""Two-stage training: a new head on the frozen body of a finished run (Jordahn and Olmos 2024; Bahavan et al. 2026)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive_seed, seed_everything
from fedlas.features import find_head
from fedlas.lab.data import Splits
from fedlas.lab.recipes.planning import find_target_loss
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained_run
from fedlas.lab.runs.predict import predict_held_out, predict_held_out_classes
from fedlas.lab.runs.train import build_training_job, train_run
from fedlas.lab.studies.uncertainty.apply import MethodResult, register_method
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig
from fedlas.losses import LOSSES
from fedlas.objective import Objective
from fedlas.zoo.ood import detection_metrics, max_logit_score
from fedlas.zoo.uncertainty.two_stage import LatentKL, MLPHead, TwoStage, VariationalHead

_PAPER = (
    "Decoupling Feature Extraction and Classification Layers for Calibrated Neural Networks",
    2024,
    "2405.01196",
)


@register_method("two-stage", "Two-stage training", *_PAPER)
def two_stage(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    epochs: int = 40,
    lr: float = 1e-3,
    hidden: int = 256,
    loss: str = "ce",
) -> MethodResult:
    """Two-stage training (TST): a new MLP head on the frozen body of a run.

    Args:
        runs: One finished run, the first stage.
        folder: Where the second stage keeps its checkpoint.
        epochs: Epochs of the second stage.
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
    check_count("hidden", hidden)
    result, *_ = train_new_head(
        runs[0],
        "two-stage",
        folder,
        epochs=epochs,
        lr=lr,
        loss=loss,
        make_head=lambda size, classes, _seed: MLPHead(size, hidden, classes),
        settings={"hidden": hidden},
    )
    return result


@register_method("two-stage-variational", "Variational two-stage training", *_PAPER)
def two_stage_variational(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    epochs: int = 40,
    lr: float = 1e-3,
    hidden: int = 256,
    samples: int = 100,
    kl_weight: float = 0.01,
) -> MethodResult:
    """Variational two-stage training (V-TST): a new head with a Gaussian latent layer on the frozen body of a run.

    Args:
        runs: One finished run, the first stage.
        folder: Where the second stage keeps its checkpoint.
        epochs: Epochs of the second stage.
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
    name = "two-stage-variational"
    check_count("hidden", hidden)
    check_count("samples", samples)
    check_number("kl_weight", kl_weight, low=0)
    result, *_ = train_new_head(
        runs[0],
        name,
        folder,
        epochs=epochs,
        lr=lr,
        loss="ce",
        make_head=lambda size, classes, seed: VariationalHead(
            size, hidden, classes, samples=samples, seed=seed
        ),
        penalty=LatentKL(kl_weight),
        settings={"hidden": hidden, "samples": samples, "kl_weight": kl_weight},
    )
    return result


@register_method(
    "linear-head",
    "Linear head on a frozen body",
    "SpHOR: A Representation Learning Perspective on Open-set Recognition",
    2026,
    "2503.08049",
)
def linear_head(
    runs: Sequence[RunFolder], *, folder: Path, epochs: int = 40, lr: float = 1e-3, loss: str = "ce"
) -> MethodResult:
    """Linear head (second stage of SpHOR): a new linear head on the frozen body of a run.

    Args:
        runs: One finished run, the first stage; of any loss.
        folder: Where the second stage keeps its checkpoint.
        epochs: Epochs of the second stage.
        lr: Learning rate of AdamW, constant, without weight decay.
        loss: Registry name of the loss of the second stage, with its default options.

    Returns:
        Predictions of the epoch with the lowest NLL on validation. If the run holds out classes, the details have
        ``auroc`` and ``oscr`` of the new head's maximum logit on their test images.

    Raises:
        InputError: For options out of range, an unknown loss, or a model without a linear head.

    Note:
        Data, batch norms, batch size and precision are as in two-stage training. The published code extracts the
        features once, from one augmented pass, and trains by SGD at 0.01 with a cosine schedule, 20 epochs long.
    """
    result, model, splits = train_new_head(
        runs[0],
        "linear-head",
        folder,
        epochs=epochs,
        lr=lr,
        loss=loss,
        make_head=lambda size, classes, _seed: nn.Linear(size, classes),
        settings={},
    )
    run = runs[0].run
    if not run.recipe.data.hold_out_classes:
        return result
    unknown = predict_held_out_classes(run, splits, model, features=False)
    scores = (max_logit_score(part.tensors().logits) for part in (result.test, unknown))
    metrics = detection_metrics(*scores, id_correct=result.test.correct)
    details = {name: metrics[name] for name in ("auroc", "oscr")}
    note = f"{len(unknown.logits):,} images of held-out classes, maximum logit: " + ", ".join(
        f"{name.upper()} {value:.4f}" for name, value in details.items()
    )
    return replace(result, notes=[*result.notes, note], details={**result.details, **details})


def train_new_head(
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
) -> tuple[MethodResult, TwoStage, Splits]:
    """Train a new head on the frozen body of a finished run, or resume from its checkpoint.

    Args:
        member: The run.
        name: Name of the method, for errors and its random streams.
        folder: Folder of the checkpoint.
        epochs: At least 1.
        lr: Learning rate of AdamW, above 0.
        loss: Registry name of the loss.
        make_head: Called with the length of the features, the number of classes and a seed.
        settings: Options of the head, which must agree with those in a checkpoint.
        penalty: Added to the loss, see :class:`~fedlas.Objective`.

    Returns:
        Predictions of the best epoch on the run's own parts, the body with the new head, and the run's data.

    Raises:
        InputError: For options out of range, an unknown loss, or a model without a linear head.
    """
    check_count("epochs", epochs)
    check_number("lr", lr, low=0, low_open=True)
    accelerator = new_accelerator()
    trained = load_trained_run(member).to(accelerator.device)
    # The second stage has random streams of its own, and the first one's loss does not matter to it.
    splits = trained.splits
    seed = derive_seed(member.run.seed, name)
    sizes = {
        "num_classes": splits.num_classes,
        "num_samples": len(splits.train),
        "num_epochs": epochs,
    }
    criterion = LOSSES.build(loss, {}, **sizes)
    if find_target_loss(criterion) is not None:
        raise InputError("the loss must not need out-of-fold targets", loss, "Choose another loss.")
    seed_everything(derive_seed(seed, "head"))
    head = make_head(_head_input_size(trained.objective.model), splits.num_classes, seed)
    # Ranks draw different noise; rank 0 draws what one process would.
    rank = int(accelerator.process_index)
    seed_everything(derive_seed(seed, f"training/{rank}" if rank else "training"))
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
        build_training_job(stage, objective, splits, accelerator),
        identity={**stage.config(), "first": member.run.config(), "loss": loss, **settings},
        name=f"{name} of {member.run.name}",
    )
    best = train_run(stage, splits, job).best_epoch
    val, test = predict_held_out(member.run, splits, model)
    notes = [f"second stage: epoch {best} of {epochs}, chosen by NLL on validation"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return MethodResult(test, val, notes, parameters, {"best_epoch": best}), model, splits


def _head_input_size(model: nn.Module) -> int:
    head = find_head(model)
    size = getattr(head, "in_features", None)
    if isinstance(size, int):
        return size
    raise InputError(
        "the model must end in a linear layer", type(head).__name__, "Use another method."
    )
