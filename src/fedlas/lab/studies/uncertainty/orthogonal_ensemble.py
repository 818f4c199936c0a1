"""Orthogonal ensemble on the recipe of a finished run (Larrazabal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas._core.ranks import new_accelerator
from fedlas._core.streams import derive
from fedlas.lab.recipes.plan import Run
from fedlas.lab.runs.build import build_objective
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.lab.runs.measure import held_out_predictions
from fedlas.lab.runs.training import train_run, training_job
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty.ensemble import average
from fedlas.zoo.uncertainty.orthogonality import OrthogonalityPenalty, filters

_NAME = "orthogonal-ensemble"


@UNCERTAINTY.register(
    _NAME,
    title="Orthogonal ensemble",
    paper="Orthogonal Ensemble Networks for Biomedical Image Segmentation",
    year=2021,
    url="https://arxiv.org/abs/2105.10827",
    least=1,
    most=1,
)
def orthogonal_ensemble(
    runs: Sequence[RunFolder],
    *,
    folder: Path,
    members: int = 5,
    self_weight: float = 0.1,
    inter_weight: float = 0.1,
) -> Result:
    """Orthogonal ensemble: members trained one after the other, their filters kept apart; the mean predicts.

    Args:
        runs: One finished run: its recipe, loss and data are taken, not its weights.
        folder: Holds ``member0``, ``member1``, ... with a checkpoint each.
        members: Networks, at least 2.
        self_weight: Weight of the correlation among a member's own filters.
        inter_weight: Weight of that with the filters of the members before it.

    Returns:
        Log of the mean probabilities of the members, each with its best epoch by the recipe's choice.

    Raises:
        InputError: For options out of range, or a run with ``model.bayesian``.

    Note:
        All members train and select on the run's split, and differ in initial weights and in the order of the data;
        the first has the run's own. See :class:`~fedlas.zoo.uncertainty.OrthogonalityPenalty` for the terms.
    """
    check_count(_NAME, "members", members, low=2)
    OrthogonalityPenalty(self_weight=self_weight, inter_weight=inter_weight)  # its checks, before anything is trained
    if runs[0].run.recipe.model.bayesian is not None:  # its own penalty would be lost
        raise InputError(_NAME, "the run must have plain weights", "model.bayesian", "Take a run without it.")
    accelerator = new_accelerator()
    trained = load_trained(runs[0]).to(accelerator.device)
    run, splits = trained.run, trained.splits
    # Members are trained in turn, because each is kept apart from those before it.
    earlier: list[dict[str, Tensor]] = []
    parts: list[tuple[Predictions, Predictions]] = []
    parameters = 0
    for number in range(members):
        member = _member(run, number, folder)
        objective = build_objective(member, splits, rank=accelerator.process_index)
        objective.penalty = OrthogonalityPenalty(earlier, self_weight=self_weight, inter_weight=inter_weight)
        job = replace(
            training_job(member, objective, splits, accelerator),
            identity={
                **member.config(),
                "like": run.config(),
                "member": number,
                "self_weight": self_weight,
                "inter_weight": inter_weight,
            },
            name=f"member {number + 1} of {members}",
        )
        train_run(member, splits, job)
        # A copy, so that the next member compares itself with the filters as they were at the end.
        earlier.append({name: rows.detach().clone() for name, rows in filters(objective.model).items()})
        parameters += sum(parameter.numel() for parameter in objective.model.parameters())
        parts.append(held_out_predictions(run, splits, objective))
    val, test = (average(*found) for found in zip(*parts, strict=True))
    return Result(test=test, val=val, parameters=parameters, details={"members": members})


def _member(run: Run, number: int, folder: Path) -> Run:
    """A run whose seed decides weights and order of a member; the split stays that of ``run``."""
    seed = run.seed if number == 0 else derive(run.seed, f"{_NAME}/{number}")
    return replace(run, seed=seed, folder=folder / f"member{number}")
