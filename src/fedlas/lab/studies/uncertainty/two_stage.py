"""Two-stage training from a finished run: its body stays, a new head is trained (Jordahn and Olmos 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import check_count, check_number
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.second_stage import second_stage
from fedlas.zoo.uncertainty.two_stage import LatentKL, MLPHead, VariationalHead

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
    check_count("two-stage", "hidden", hidden)
    return second_stage(
        runs[0],
        "two-stage",
        folder,
        epochs=epochs,
        lr=lr,
        loss=loss,
        make_head=lambda size, classes, _seed: MLPHead(size, hidden, classes),
        settings={"hidden": hidden},
    ).result()


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
    name = "two-stage-variational"
    check_count(name, "hidden", hidden)
    check_count(name, "samples", samples)
    check_number(name, "kl_weight", kl_weight, low=0)
    return second_stage(
        runs[0],
        name,
        folder,
        epochs=epochs,
        lr=lr,
        loss="ce",
        make_head=lambda size, classes, seed: VariationalHead(size, hidden, classes, samples=samples, seed=seed),
        penalty=LatentKL(kl_weight),
        settings={"hidden": hidden, "samples": samples, "kl_weight": kl_weight},
    ).result()
