"""Ensembles as uncertainty methods: deep, hyper-deep and orthogonal ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive_seed
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained_run
from fedlas.lab.runs.predict import predict_held_out
from fedlas.lab.runs.train import build_objective, build_training_job, train_run
from fedlas.lab.studies.uncertainty.apply import MethodResult, register_method, shared_predictions
from fedlas.lab.train.checkpoint import config_differences
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty.ensemble import average
from fedlas.zoo.uncertainty.hyper_ensemble import greedy_selection
from fedlas.zoo.uncertainty.orthogonality import OrthogonalityPenalty, layer_filters

NO_TEMPERATURE_NOTE = (
    "no temperature: the validation images of each run are training images of others; train the runs on one split, "
    "e.g. with --set data.split_seed=0"
)
"""Note of a result without a validation part."""


@register_method(
    "deep-ensemble",
    "Deep ensemble",
    "Simple and Scalable Predictive Uncertainty Estimation",
    2017,
    "1612.01474",
    min_runs=2,
    max_runs=None,
)
def deep_ensemble(runs: Sequence[RunFolder]) -> MethodResult:
    """Deep ensemble: the mean of the probabilities of runs that differ only in the seed.

    Args:
        runs: At least two finished runs.

    Returns:
        Log of the mean probabilities, on test and, if all runs were validated on the same images, on validation.

    Raises:
        InputError: If the runs differ in more than the seed, or were tested on different images.

    Note:
        The paper also trains on adversarial examples; its gain was small and ensembles since go without.
    """
    for member in runs[1:]:
        if changes := config_differences(
            _config_without_seed(runs[0]), _config_without_seed(member)
        ):
            raise InputError(
                "runs must differ only in the seed",
                f"{member.name}, which differs from {runs[0].name} in {'; '.join(changes)}",
                "Use hyper-ensemble for runs of different settings.",
            )
    test = _test_predictions(runs)
    val = shared_predictions(runs, "val")
    return _averaged_result(test, val)


def _test_predictions(runs: Sequence[RunFolder]) -> list[Predictions]:
    """Return each run's test predictions; raise InputError if the runs have different test images."""
    predictions = shared_predictions(runs, "test")
    if predictions is None:
        raise InputError(
            "runs must be tested on the same images",
            "different parts of the test set",
            "Leave data.test_size out, or train the runs with one data.split_seed.",
        )
    return predictions


def _averaged_result(
    test: Sequence[Predictions], val: Sequence[Predictions] | None
) -> MethodResult:
    return MethodResult(
        average(*test),
        None if val is None else average(*val),
        [NO_TEMPERATURE_NOTE] if val is None else [],
    )


def _config_without_seed(member: RunFolder) -> dict[str, object]:
    return {key: value for key, value in member.run.config().items() if key != "seed"}


@register_method(
    "hyper-ensemble",
    "Hyper-deep ensemble",
    "Hyperparameter Ensembles for Robustness",
    2020,
    "2006.13570",
    min_runs=2,
    max_runs=None,
)
def hyper_ensemble(
    runs: Sequence[RunFolder], *, size: int = 4, selection: str = "greedy"
) -> MethodResult:
    """Hyper-ensemble: the mean of the probabilities of runs with different settings, selected greedily on validation.

    Args:
        runs: The pool: at least two finished runs on the same data.
        size: Maximum number of different runs in the ensemble.
        selection: ``greedy`` (with replacement, by validation NLL, so runs may weigh differently) or ``all`` (every
            run, all alike; ``size`` does not matter).

    Returns:
        Log of the weighted mean probabilities; ``details`` holds how often each run was picked.

    Raises:
        InputError: For options out of range, runs tested on different images or, with ``greedy``, validated on
            different ones.

    Note:
        The paper draws the pool by a random search and trains the chosen settings again from other seeds, before it
        selects from those. Here the pool is what was trained: variants in the recipe's ``losses``, seeds, other
        recipes. The validation part then serves three times: to choose epochs, to pick runs, and to fit a temperature.
    """
    check_count("size", size)
    check_choice("selection", selection, ("greedy", "all"))
    test = _test_predictions(runs)
    val = shared_predictions(runs, "val")
    if selection == "all":
        return _averaged_result(test, val)
    if val is None:
        raise InputError(
            "selection=greedy requires runs with the same validation images",
            "different validation parts",
            "Train them with one data.split_seed, or set selection=all.",
        )
    # The selection sees validation only, so the test part stays honest.
    counts = greedy_selection(val, size=size)
    picked = {member.name: count for member, count in zip(runs, counts, strict=True) if count}
    parameters = sum(int(member.metrics["parameters"]) for member in runs if member.name in picked)
    weights = ", ".join(f"{name} ({count})" for name, count in picked.items())
    return MethodResult(
        average(*test, weights=counts),
        average(*val, weights=counts),
        notes=[f"picked by validation NLL, with their weights: {weights}"],
        parameters=parameters,
        details={"picked": picked},
    )


@register_method(
    "orthogonal-ensemble",
    "Orthogonal ensemble",
    "Orthogonal Ensemble Networks for Biomedical Image Segmentation",
    2021,
    "2105.10827",
)
def orthogonal_ensemble(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    members: int = 5,
    self_weight: float = 0.1,
    inter_weight: float = 0.1,
) -> MethodResult:
    """Orthogonal ensemble: the mean of the probabilities of members trained in turn with decorrelated filters.

    Args:
        runs: One finished run: its recipe, loss and data are taken, not its weights.
        folder: Holds ``member0``, ``member1``, ... with a checkpoint each.
        members: Networks, at least 2.
        self_weight: Weight of the correlation among a member's own filters.
        inter_weight: Weight of the correlation with the filters of earlier members.

    Returns:
        Log of the mean probabilities of the members, each with its best epoch by the recipe's choice.

    Raises:
        InputError: For options out of range, or a run with ``model.bayesian``.

    Note:
        All members train and select on the run's split, and differ in initial weights and in the order of the data;
        the first has the run's own. See :class:`~fedlas.zoo.uncertainty.OrthogonalityPenalty` for the terms.
    """
    check_count("members", members, low=2)
    weights = {"self_weight": self_weight, "inter_weight": inter_weight}
    # its checks, before anything is trained
    OrthogonalityPenalty(self_weight=self_weight, inter_weight=inter_weight)
    if runs[0].run.recipe.model.bayesian is not None:  # its own penalty would be lost
        raise InputError(
            "the run must not have Bayesian layers",
            "model.bayesian",
            "Pass a run without model.bayesian.",
        )
    accelerator = new_accelerator()
    trained = load_trained_run(runs[0]).to(accelerator.device)
    run = trained.run
    splits = trained.splits
    # Members are trained in turn, because each is kept apart from those before it.
    earlier: list[dict[str, Tensor]] = []
    parts: list[tuple[Predictions, Predictions]] = []
    parameters = 0
    for number in range(members):
        # The seed decides weights and order of a member; the split stays that of the run.
        seed = run.seed if number == 0 else derive_seed(run.seed, f"orthogonal-ensemble/{number}")
        member = replace(run, seed=seed, folder=folder / f"member{number}")
        objective = build_objective(member, splits, rank=accelerator.process_index)
        objective.penalty = OrthogonalityPenalty(earlier, **weights)
        job = replace(
            build_training_job(member, objective, splits, accelerator),
            identity={**member.config(), "like": run.config(), "member": number, **weights},
            name=f"member {number + 1} of {members}",
        )
        train_run(member, splits, job)
        # A copy, so that the next member compares itself with the filters as they were at the end.
        earlier.append(
            {name: rows.detach().clone() for name, rows in layer_filters(objective.model).items()}
        )
        parameters += sum(parameter.numel() for parameter in objective.model.parameters())
        parts.append(predict_held_out(run, splits, objective))
    val, test = (average(*each) for each in zip(*parts, strict=True))
    return MethodResult(test=test, val=val, parameters=parameters, details={"members": members})
