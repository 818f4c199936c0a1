"""Uncertainty methods on one finished run: dropout, Bayesian weights, post-hoc calibration, and Bayesian heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import check_count
from fedlas._core.progress import track
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive_seed
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.features import find_head
from fedlas.lab.runs.data import held_out_parts
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import TrainedRun, load_trained_run
from fedlas.lab.runs.predict import predict_held_out, predict_part
from fedlas.lab.runs.train import build_objective, build_training_job, train_run
from fedlas.lab.studies.run_parts import load_held_out
from fedlas.lab.studies.uncertainty.apply import MethodResult, register_method
from fedlas.zoo.uncertainty.bayes_by_backprop import SampledWeights
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig
from fedlas.zoo.uncertainty.last_layer_laplace import LastLayerLaplace, Link, Structure
from fedlas.zoo.uncertainty.matrix_gaussian import Covariance, MatrixGaussian
from fedlas.zoo.uncertainty.mc_dropout import DropoutSamples, require_dropout_layers
from fedlas.zoo.uncertainty.probabilistic_backprop import Prior, ProbabilisticBackprop


@register_method(
    "mc-dropout", "MC dropout", "Dropout as a Bayesian Approximation", 2016, "1506.02142"
)
def mc_dropout_of_run(runs: Sequence[RunFolder], *, samples: int = 20) -> MethodResult:
    """MC dropout: the mean of the probabilities over forward passes with dropout on; nothing is trained.

    Args:
        runs: One finished run of a model with dropout (``model.dropout``).
        samples: Number of forward passes; more of them only reduce the noise of the mean.

    Returns:
        Log of the mean probabilities.

    Raises:
        InputError: For a number out of range, or a model whose dropout is 0.
    """
    check_count("samples", samples)
    trained = load_trained_run(runs[0]).to(new_accelerator().device)
    run = trained.run
    splits = trained.splits
    model = DropoutSamples(
        trained.objective.model, samples=samples, seed=derive_seed(run.seed, "mc-dropout")
    )
    val, test = (
        predict_part(model, by, part, batch_size=run.recipe.train.batch_size, features=False)
        for by, part in track(held_out_parts(run, splits), f"{samples} passes")
    )
    layers = len(require_dropout_layers(trained.objective.model))
    return MethodResult(
        test, val, notes=[f"{samples} passes, {layers} layer{'s' * (layers != 1)} of dropout"]
    )


@register_method(
    "bayes-by-backprop",
    "Bayes by backprop",
    "Weight Uncertainty in Neural Networks",
    2015,
    "1505.05424",
)
def bayes_by_backprop(
    runs: Sequence[RunFolder], *, folder: Path, samples: int = 32
) -> MethodResult:
    """Bayes by backprop: Gaussian weights trained with the run's recipe; the mean of the probabilities over draws.

    A run that was trained with ``model.bayesian``, which also sets the prior, predicts directly. For any other run a
    Bayesian twin is trained on its recipe, seed and data: the same loss, schedule and start, with the default prior in
    place of weight decay.

    Args:
        runs: One finished run.
        folder: Where the twin keeps its checkpoint.
        samples: Draws of all weights for a prediction.

    Returns:
        Log of the mean probabilities over the draws, of the epoch that the recipe selects by the mean weights.

    Raises:
        InputError: For a number out of range.
        MissingExtraError: Without torch-uncertainty.
    """
    check_count("samples", samples)
    accelerator = new_accelerator()
    trained = load_trained_run(runs[0]).to(accelerator.device)
    run = trained.run
    splits = trained.splits
    objective = trained.objective
    note = "the run itself is Bayesian"
    # A plain run has no distribution over weights, so a Bayesian twin is trained with its settings.
    if run.recipe.model.bayesian is None:
        network = replace(run.recipe.model, bayesian=BayesianConfig())
        optimizer = replace(run.recipe.optimizer, weight_decay=0.0)
        twin = replace(
            run, recipe=replace(run.recipe, model=network, optimizer=optimizer), folder=folder
        )
        objective = build_objective(twin, splits, rank=accelerator.process_index)
        job = replace(
            build_training_job(twin, objective, splits, accelerator),
            name=f"bayes-by-backprop like {run.name}",
        )
        fitted = train_run(twin, splits, job)
        note = (
            f"trained again like {run.name}: epoch {fitted.best_epoch} of {run.recipe.train.epochs}"
        )
    model = SampledWeights(
        objective.model, samples=samples, seed=derive_seed(run.seed, "bayes-by-backprop")
    )
    val, test = predict_held_out(run, splits, model)
    parameters = sum(parameter.numel() for parameter in objective.model.parameters())
    return MethodResult(test=test, val=val, notes=[note], parameters=parameters)


@register_method(
    "post-hoc",
    "Post-hoc calibration",
    "On Calibration of Modern Neural Networks",
    2017,
    "1706.04599",
)
def post_hoc(runs: Sequence[RunFolder], *, calibrator: str = "temperature") -> MethodResult:
    """Post-hoc calibration: a calibrator fitted to the run's validation part, as a baseline.

    Args:
        runs: One finished run.
        calibrator: Registry name, see ``fedlas list calibrators``.

    Returns:
        The calibrated predictions; those on validation are what the calibrator was fitted on.

    Raises:
        InputError: For an unknown calibrator, or one that needs fields that the run has not saved.
        MissingExtraError: If it needs a package that is not installed.
    """
    entry = CALIBRATORS[calibrator]
    held_out = load_held_out(runs[0].path, data=runs[0].data_root)
    fitted, notes = fit_with_notes(entry.value(), held_out.fit_predictions(entry, only=True)[0])
    val, test = (
        replace(fitted.transform(runs[0].predictions(part)), features=None)
        for part in ("val", "test")
    )
    return MethodResult(test, val, notes)


@register_method(
    "last-layer-laplace",
    "Last-layer Laplace",
    "Laplace Redux - Effortless Bayesian Deep Learning",
    2021,
    "2106.14806",
)
def last_layer_laplace(
    runs: Sequence[RunFolder],
    *,
    structure: Structure = "kron",
    link: Link = "probit",
    samples: int = 100,
    prior_precision: float | None = None,
) -> MethodResult:
    """Laplace approximation of the last layer: a Gaussian around the head's weights; nothing is trained.

    Args:
        runs: One finished run.
        structure: Form of the curvature: ``kron``, ``full`` (for small heads) or ``diag``.
        link: From Gaussian logits to probabilities: ``probit``, ``mc`` or ``bridge``.
        samples: Draws for ``mc``.
        prior_precision: Precision of the weights' prior; null maximizes the marginal likelihood of the training part.

    Returns:
        Log of the mean probabilities. The accuracy may differ from the run's.

    Raises:
        InputError: For options out of range, or a head that is not a linear layer, or too large for ``full``.
        MissingExtraError: Without laplace-torch.

    Note:
        It is fitted on the run's training part without augmentation, with dropout off. See
        :class:`~fedlas.zoo.uncertainty.LastLayerLaplace`.
    """
    trained = load_trained_run(runs[0]).to(new_accelerator().device)
    laplace = LastLayerLaplace(
        find_head(trained.objective.model),
        structure=structure,
        prior_precision=prior_precision,
        link=link,
        samples=samples,
        seed=derive_seed(runs[0].run.seed, "last-layer-laplace"),
    )
    run = trained.run
    splits = trained.splits
    objective = trained.objective
    size = run.recipe.train.batch_size
    laplace.fit(predict_part(objective, splits, splits.train, batch_size=size, features=True))
    # The new logits are no linear function of the features, so the features are left out.
    parts = predict_held_out(run, splits, objective, features=True)
    val, test = (replace(laplace.predict(part), features=None) for part in parts)
    parameters = (
        sum(parameter.numel() for parameter in objective.model.parameters())
        + laplace.covariance_size
    )
    details = {
        "prior_precision": laplace.prior_precision,
        "log_marginal_likelihood": laplace.log_marginal_likelihood,
    }
    return MethodResult(test, val, parameters=parameters, details=details)


@register_method(
    "matrix-gaussian",
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
    """Matrix-Gaussian posterior: a new head on the run's features with matrix-Gaussian weights, trained by the ELBO.

    Args:
        runs: One finished run.
        hidden: Units of the head's hidden layer; 0 for none.
        covariance: Covariance of a matrix's rows and of its columns: ``diag`` as in the paper, or ``full``.
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
    trained = load_trained_run(runs[0]).to(new_accelerator().device)
    head = MatrixGaussian(
        hidden=hidden,
        covariance=covariance,
        epochs=epochs,
        lr=lr,
        batch_size=trained.run.recipe.train.batch_size,
        kl_weight=kl_weight,
        samples=samples,
        seed=derive_seed(runs[0].run.seed, "matrix-gaussian"),
    )
    result = _fit_and_predict(
        trained, head, progress=lambda epochs: track(epochs, "matrix-gaussian")
    )
    note = f"a new head on the features: {epochs} epochs, {hidden} hidden units"
    return replace(result, notes=[note], details={"kl": head.kl})


@register_method(
    "probabilistic-backprop",
    "Probabilistic backpropagation",
    "Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks",
    2015,
    "1502.05336",
)
def probabilistic_backprop(
    runs: Sequence[RunFolder], *, hidden: int = 50, passes: int = 10, prior: Prior = "fixed"
) -> MethodResult:
    """Probabilistic backpropagation: a new head on the run's features with Gaussian weights.

    Args:
        runs: One finished run.
        hidden: Units of the head's hidden layer; 0 for none.
        passes: Passes over the training part.
        prior: Prior of the weights: ``fixed``, or ``learned`` with the weights as in the paper.

    Returns:
        Log of the probabilities under the posterior; nothing is sampled.

    Raises:
        InputError: For options out of range.

    Note:
        The run's body does not change. The paper treats regression; labels enter as multinomial probit. See
        :class:`~fedlas.zoo.uncertainty.ProbabilisticBackprop`. A pass takes about half a millisecond a sample.
    """
    trained = load_trained_run(runs[0]).to(new_accelerator().device)
    head = ProbabilisticBackprop(
        hidden=hidden,
        passes=passes,
        prior=prior,
        seed=derive_seed(runs[0].run.seed, "probabilistic-backprop"),
    )
    result = _fit_and_predict(
        trained, head, progress=lambda passes: track(passes, "probabilistic-backprop")
    )
    note = f"a new head on the features: {passes} passes, {hidden} hidden units"
    shape, rate = head.precision
    return replace(result, notes=[note], details={"prior_precision": shape / rate})


def _fit_and_predict(trained: TrainedRun, head: Any, **options: Any) -> MethodResult:
    """Fit ``head`` to the features of a run's training part, and return its predictions on the other parts."""
    splits = trained.splits
    size = trained.run.recipe.train.batch_size
    train = predict_part(trained.objective, splits, splits.train, batch_size=size, features=True)
    parts = predict_held_out(trained.run, splits, trained.objective, features=True)
    head.fit(train, **options)
    # The new logits are no linear function of the features, so the features are left out.
    val, test = (replace(head.predict(part), features=None) for part in parts)
    parameters = (
        sum(parameter.numel() for parameter in trained.objective.model.parameters())
        + head.num_parameters
    )
    return MethodResult(test=test, val=val, parameters=parameters)
