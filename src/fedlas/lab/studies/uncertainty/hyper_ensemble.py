"""Hyper-deep ensemble of runs on disk, of any losses, settings and seeds (Wenzel et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.check import InputError, check_choice, check_count
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.deep_ensemble import APART, test_predictions
from fedlas.lab.studies.uncertainty.members import shared_predictions
from fedlas.zoo.uncertainty.ensemble import average
from fedlas.zoo.uncertainty.hyper_ensemble import greedy_selection

_NAME = "hyper-ensemble"


@UNCERTAINTY.register(
    _NAME,
    title="Hyper-deep ensemble",
    paper="Hyperparameter Ensembles for Robustness",
    year=2020,
    url="https://arxiv.org/abs/2006.13570",
    least=2,
    most=None,
)
def hyper_ensemble(runs: Sequence[RunFolder], *, size: int = 4, selection: str = "greedy") -> Result:
    """Hyper-ensemble: the mean of the probabilities of runs of different settings, picked greedily on validation.

    Args:
        runs: The pool: at least two finished runs on the same data.
        size: Most different runs in the ensemble.
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
    check_count(_NAME, "size", size)
    check_choice(_NAME, "selection", selection, ("greedy", "all"))
    test, val = test_predictions(_NAME, runs), shared_predictions(runs, "val")
    if selection == "all":
        notes = [] if val is not None else [APART]
        return Result(average(*test), None if val is None else average(*val), notes)
    if val is None:
        raise InputError(
            _NAME,
            "a selection needs runs validated on the same images",
            "different validation parts",
            "Train them with one data.split_seed, or set selection=all.",
        )
    # The selection sees validation only, so the test part stays honest.
    counts = greedy_selection(val, size=size)
    picked = {member.name: count for member, count in zip(runs, counts, strict=True) if count}
    kept = sum(int(member.metrics["parameters"]) for member in runs if member.name in picked)
    said = ", ".join(f"{name} ({count})" for name, count in picked.items())
    return Result(
        average(*test, weights=counts),
        average(*val, weights=counts),
        notes=[f"picked by validation NLL, with their weights: {said}"],
        parameters=kept,
        details={"picked": picked},
    )
