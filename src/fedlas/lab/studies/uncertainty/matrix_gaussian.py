"""Matrix-Gaussian posteriors on the features of a finished run (Louizos and Welling 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas._core.terminal import track
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.features import num_parameters, parts_of
from fedlas.zoo.uncertainty.matrix_gaussian import Covariance, MatrixGaussian

_NAME = "matrix-gaussian"


@UNCERTAINTY.register(
    _NAME,
    title="Matrix-Gaussian posterior",
    paper="Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors",
    year=2016,
    url="https://arxiv.org/abs/1603.04733",
    least=1,
    most=1,
)
def matrix_gaussian(
    runs: Sequence[RunFolder],
    *,
    hidden: int = 50,
    covariance: Covariance = "diag",
    epochs: int = 100,
    lr: float = 0.01,
    kl_weight: float = 1.0,
    samples: int = 100,
) -> Result:
    """Matrix-Gaussian posterior: a new head on the run's features, its weights Gaussian matrices trained by the ELBO.

    Args:
        runs: One finished run.
        hidden: Units of the head's hidden layer; 0 for none.
        covariance: Of a matrix's rows and of its columns: ``diag`` as in the paper, or ``full``.
        epochs: Passes over the training part.
        lr: Learning rate of Adam at the start; it falls to 0 along a cosine.
        kl_weight: Factor of the KL term; 1 is the evidence lower bound.
        samples: Draws of all weights for a prediction.

    Returns:
        Log of the mean probabilities over the draws.

    Raises:
        InputError: For options out of range.

    Note:
        The run's body does not change. Batch size is the run's. With few training samples the bound itself keeps
        predictions far less sure than the labels warrant; ``kl_weight`` below 1 or a temperature mends that. See
        :class:`~fedlas.zoo.uncertainty.MatrixGaussian`.
    """
    trained = load_trained(runs[0]).to(new_accelerator().device)
    head = MatrixGaussian(
        hidden=hidden,
        covariance=covariance,
        epochs=epochs,
        lr=lr,
        batch_size=trained.run.recipe.train.batch_size,
        kl_weight=kl_weight,
        samples=samples,
        seed=derive(runs[0].run.seed, _NAME),
    )
    parts = parts_of(trained)
    head.fit(parts.train, progress=lambda epochs: track(epochs, _NAME))
    test, val = parts.held_out(head.predict)
    return Result(
        test=test,
        val=val,
        notes=[f"a new head on the features: {epochs} epochs, {hidden} hidden units"],
        parameters=num_parameters(trained) + head.num_kept,
        details={"kl": head.kl},
    )
