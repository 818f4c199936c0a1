"""Bayesian heads on the features of one finished run; its network is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas._core.terminal import track
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import Trained, load_trained
from fedlas.lab.runs.predict import held_out_predictions, predictions_of
from fedlas.lab.studies.uncertainty.apply import MethodResult, method
from fedlas.zoo.uncertainty.matrix_gaussian import Covariance, MatrixGaussian
from fedlas.zoo.uncertainty.probabilistic_backprop import Prior, ProbabilisticBackprop

_MATRIX = "matrix-gaussian"
_PROBABILISTIC = "probabilistic-backprop"


@method(
    _MATRIX,
    "Matrix-Gaussian posterior",
    "Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors",
    2016,
    "1603.04733",
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
) -> MethodResult:
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
        seed=derive(runs[0].run.seed, _MATRIX),
    )
    result = _fitted(trained, head, progress=lambda epochs: track(epochs, _MATRIX))
    note = f"a new head on the features: {epochs} epochs, {hidden} hidden units"
    return replace(result, notes=[note], details={"kl": head.kl})


@method(
    _PROBABILISTIC,
    "Probabilistic backpropagation",
    "Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks",
    2015,
    "1502.05336",
)
def probabilistic_backprop(
    runs: Sequence[RunFolder], *, hidden: int = 50, passes: int = 10, prior: Prior = "fixed"
) -> MethodResult:
    """Probabilistic backpropagation: a new head on the run's features, its Gaussian weights updated sample by sample.

    Args:
        runs: One finished run.
        hidden: Units of the head's hidden layer; 0 for none.
        passes: Passes over the training part.
        prior: Of the weights: ``fixed``, or ``learned`` with the weights as in the paper.

    Returns:
        Log of the probabilities under the posterior; nothing is sampled.

    Raises:
        InputError: For options out of range.

    Note:
        The run's body does not change. The paper treats regression; labels enter as multinomial probit. See
        :class:`~fedlas.zoo.uncertainty.ProbabilisticBackprop`. A pass takes about half a millisecond a sample.
    """
    trained = load_trained(runs[0]).to(new_accelerator().device)
    head = ProbabilisticBackprop(
        hidden=hidden, passes=passes, prior=prior, seed=derive(runs[0].run.seed, _PROBABILISTIC)
    )
    result = _fitted(trained, head, progress=lambda passes: track(passes, _PROBABILISTIC))
    note = f"a new head on the features: {passes} passes, {hidden} hidden units"
    shape, rate = head.precision
    return replace(result, notes=[note], details={"prior_precision": shape / rate})


def _fitted(trained: Trained, head: Any, **options: Any) -> MethodResult:
    """Fit ``head`` on the features of a run's training part, without augmentation; predict the other parts."""
    splits = trained.splits
    size = trained.run.recipe.train.batch_size
    train = predictions_of(trained.objective, splits, splits.train, batch_size=size, features=True)
    parts = held_out_predictions(trained.run, splits, trained.objective, features=True)
    head.fit(train, **options)
    # The new logits are no linear function of the features, so the features are left out.
    val, test = (replace(head.predict(part), features=None) for part in parts)
    parameters = (
        sum(parameter.numel() for parameter in trained.objective.model.parameters())
        + head.num_parameters
    )
    return MethodResult(test=test, val=val, parameters=parameters)
