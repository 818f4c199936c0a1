"""The mean over random passes of one network: with dropout on, or with weights that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas._core.terminal import track
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import Trained, build_objective, load_trained
from fedlas.lab.runs.data import held_out
from fedlas.lab.runs.execute import held_out_predictions, predictions_of, train_run, training_job
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.uncertainty.base import Result, method
from fedlas.objective import Objective
from fedlas.zoo.uncertainty.bayes_by_backprop import SampledWeights
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig
from fedlas.zoo.uncertainty.mc_dropout import DropoutSamples, active_dropout

_DROPOUT, _BAYES = "mc-dropout", "bayes-by-backprop"


@method(_DROPOUT, "MC dropout", "Dropout as a Bayesian Approximation", 2016, "1506.02142")
def mc_dropout(runs: Sequence[RunFolder], *, samples: int = 20) -> Result:
    """MC dropout: the mean of the probabilities over passes with dropout on; nothing is trained.

    Args:
        runs: One finished run of a model with dropout (``model.dropout``).
        samples: Passes; more only make the mean steadier.

    Returns:
        Log of the mean probabilities.

    Raises:
        InputError: For a number out of range, or a model whose dropout is 0.
    """
    check_count(_DROPOUT, "samples", samples)
    trained = load_trained(runs[0]).to(new_accelerator().device)
    run, splits = trained.run, trained.splits
    model = DropoutSamples(trained.objective.model, samples=samples, seed=derive(run.seed, _DROPOUT))
    val, test = (
        predictions_of(model, by, part, batch_size=run.recipe.train.batch_size, features=False)
        for by, part in track(held_out(run, splits), f"{samples} passes")
    )
    layers = len(active_dropout(trained.objective.model))
    return Result(test, val, notes=[f"{samples} passes, {layers} layer{'s' * (layers != 1)} of dropout"])


@method(_BAYES, "Bayes by backprop", "Weight Uncertainty in Neural Networks", 2015, "1505.05424")
def bayes_by_backprop(runs: Sequence[RunFolder], *, folder: Path, samples: int = 32) -> Result:
    """Bayes by backprop: Gaussian weights, trained on the run's recipe; the mean over draws predicts.

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
    check_count(_BAYES, "samples", samples)
    accelerator = new_accelerator()
    trained = load_trained(runs[0]).to(accelerator.device)
    # A plain run has no distribution over weights, so a Bayesian twin is trained with its settings.
    if trained.run.recipe.model.bayesian is None:
        objective, note = _train_twin(trained, accelerator, folder)
    else:
        objective, note = trained.objective, "the run itself is Bayesian"
    model = SampledWeights(objective.model, samples=samples, seed=derive(trained.run.seed, _BAYES))
    val, test = held_out_predictions(trained.run, trained.splits, model)
    parameters = sum(parameter.numel() for parameter in objective.model.parameters())
    return Result(test=test, val=val, notes=[note], parameters=parameters)


def bayesian_twin(run: Run, config: BayesianConfig, folder: Path) -> Run:
    """The same run with Gaussian weights and without weight decay, in another folder."""
    recipe = replace(
        run.recipe,
        model=replace(run.recipe.model, bayesian=config),
        optimizer=replace(run.recipe.optimizer, weight_decay=0.0),
    )
    return replace(run, recipe=recipe, folder=folder)


def _train_twin(trained: Trained, accelerator: Any, folder: Path) -> tuple[Objective, str]:
    twin = bayesian_twin(trained.run, BayesianConfig(), folder)
    objective = build_objective(twin, trained.splits, rank=accelerator.process_index)
    job = training_job(twin, objective, trained.splits, accelerator)
    fitted = train_run(twin, trained.splits, replace(job, name=f"{_BAYES} like {trained.run.name}"))
    epochs = twin.recipe.train.epochs
    return objective, f"trained anew like {trained.run.name}: epoch {fitted.best_epoch} of {epochs}"
