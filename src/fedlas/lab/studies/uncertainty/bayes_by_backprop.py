"""Bayes by backprop on the recipe of a finished run (Blundell et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import Trained, load_trained
from fedlas.lab.runs.measure import held_out_predictions
from fedlas.lab.runs.training import train_run, training_job
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.objective import Objective
from fedlas.zoo.uncertainty.bayes_by_backprop import SampledWeights
from fedlas.zoo.uncertainty.bayesian_layers import BayesianConfig

_NAME = "bayes-by-backprop"


@UNCERTAINTY.register(
    _NAME,
    title="Bayes by backprop",
    paper="Weight Uncertainty in Neural Networks",
    year=2015,
    url="https://arxiv.org/abs/1505.05424",
    least=1,
    most=1,
)
def bayes_by_backprop(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    samples: int = 32,
    prior_sigma: float | None = None,
    prior_sigma_2: float | None = None,
    prior_pi: float | None = None,
    sigma_init: float | None = None,
    kl_weight: float | None = None,
) -> Result:
    """Bayes by backprop: Gaussian weights, trained on the run's recipe; the mean over draws predicts.

    A run that was trained with ``model.bayesian`` predicts directly. Of any other run the recipe, seed and data are
    taken, and its Bayesian twin is trained: the same loss, schedule and start, no weight decay, whose place the prior
    takes.

    Args:
        runs: One finished run.
        folder: Where the twin keeps its checkpoint.
        samples: Draws of all weights for a prediction.
        prior_sigma: This and the following are options of :class:`~fedlas.zoo.uncertainty.BayesianConfig`; null is its
            default. For a run that is Bayesian already all must be null.
        prior_sigma_2: Second component of the prior.
        prior_pi: Share of the first component.
        sigma_init: Standard deviations at the start.
        kl_weight: Factor of the KL term.

    Returns:
        Log of the mean probabilities over the draws, of the epoch that the recipe selects by the mean weights.

    Raises:
        InputError: For options out of range, or of the prior for a run that has one.
        MissingExtraError: Without torch-uncertainty.
    """
    check_count(_NAME, "samples", samples)
    given = {
        "prior_sigma": prior_sigma,
        "prior_sigma_2": prior_sigma_2,
        "prior_pi": prior_pi,
        "sigma_init": sigma_init,
        "kl_weight": kl_weight,
    }
    options = {key: value for key, value in given.items() if value is not None}
    accelerator = new_accelerator()
    trained = load_trained(runs[0]).to(accelerator.device)
    # A plain run has no distribution over weights, so a Bayesian twin is trained with its settings.
    if trained.run.recipe.model.bayesian is None:
        objective, note = _train_twin(trained, accelerator, folder, BayesianConfig(**options))
    elif options:
        raise InputError(
            _NAME,
            "a run with model.bayesian has its prior already",
            ", ".join(options),
            "Leave the options of the prior out.",
        )
    else:
        objective, note = trained.objective, "the run itself is Bayesian"
    run, splits = trained.run, trained.splits
    model = SampledWeights(objective.model, samples=samples, seed=derive(run.seed, _NAME))
    val, test = held_out_predictions(run, splits, model)
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


def _train_twin(trained: Trained, accelerator: Any, folder: Path, config: BayesianConfig) -> tuple[Objective, str]:
    twin = bayesian_twin(trained.run, config, folder)
    objective = build_objective(twin, trained.splits, rank=accelerator.process_index)
    job = training_job(twin, objective, trained.splits, accelerator)
    fitted = train_run(twin, trained.splits, replace(job, name=f"{_NAME} like {trained.run.name}"))
    epochs = twin.recipe.train.epochs
    return objective, f"trained anew like {trained.run.name}: epoch {fitted.best_epoch} of {epochs}"
