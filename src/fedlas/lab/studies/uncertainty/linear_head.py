"""A linear head on the frozen body of a finished run: SpHOR's second stage, and what it finds of held-out classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.measure import held_out_predictions, predictions_of, unknown_predictions
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.second_stage import SecondStage, second_stage
from fedlas.zoo.ood import angular_separability, detection_metrics, max_logit_score, norm_separability


@UNCERTAINTY.register(
    "linear-head",
    title="Linear head on a frozen body",
    paper="SpHOR: A Representation Learning Perspective on Open-set Recognition",
    year=2026,
    url="https://arxiv.org/abs/2503.08049",
    least=1,
    most=1,
)
def linear_head(
    runs: Sequence[RunFolder], *, folder: Path, epochs: int = 40, lr: float = 1e-3, loss: str = "ce"
) -> Result:
    """Second stage of SpHOR: the body of a run, frozen, under a new linear head; measures a run's held-out classes.

    Args:
        runs: One finished run, the first stage; of any loss.
        folder: Where the second stage keeps its checkpoint.
        epochs: Of the second stage.
        lr: Learning rate of AdamW, constant, without weight decay.
        loss: Registry name of the loss of the second stage, with its default options.

    Returns:
        Predictions of the epoch with the lowest NLL on validation. If the run holds out classes, the details have
        ``auroc`` and ``oscr`` of the new head's maximum logit on their test images, and ``angular_separability`` and
        ``norm_separability`` of the features, which the head does not change.

    Raises:
        InputError: For options out of range, an unknown loss, or a model without a linear head.

    Note:
        Data, batch norms, batch size and precision are as in two-stage training. The published code extracts the
        features once, from one augmented pass, and trains by SGD at 0.01 with a cosine schedule, 20 epochs long.
    """
    stage = second_stage(
        runs[0],
        "linear-head",
        folder,
        epochs=epochs,
        lr=lr,
        loss=loss,
        make_head=lambda size, classes, _seed: nn.Linear(size, classes),
        settings={},
    )
    result = stage.result()
    if not stage.run.recipe.data.hold_out_classes:
        return result
    count, found = _open_set(stage)
    notes = [
        f"{count:,} images of held-out classes, maximum logit: AUROC {found['auroc']:.4f}, OSCR {found['oscr']:.4f}",
        f"separability of the features: by angle {found['angular_separability']:.4f}, "
        f"by norm {found['norm_separability']:.4f}",
    ]
    return replace(result, notes=[*result.notes, *notes], details={**result.details, **found})


def _open_set(stage: SecondStage) -> tuple[int, dict[str, float]]:
    """Number of images of held-out classes, and how well the head and its features detect them."""
    run, splits, model = stage.run, stage.splits, stage.model
    _, known = held_out_predictions(run, splits, model, features=True)
    unknown = unknown_predictions(run, splits, model, features=True)
    # Class means are those of training images as they are, without augmentation.
    train = predictions_of(model, splits, splits.train, batch_size=run.recipe.train.batch_size, features=True)
    at_known, at_unknown, at_train = (cast(Tensor, each.features) for each in (known, unknown, train))
    detected = detection_metrics(
        max_logit_score(known.logits), max_logit_score(unknown.logits), id_correct=known.correct.numpy()
    )
    return len(unknown.logits), {
        "auroc": detected["auroc"],
        "oscr": detected["oscr"],
        "angular_separability": angular_separability(
            at_known, at_unknown, train_features=at_train, train_target=train.target
        ),
        "norm_separability": norm_separability(at_known, at_unknown),
    }
