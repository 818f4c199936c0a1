"""Groups studied runs that differ in their seed only, and gives each group a name of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedlas.lab.recipes.plan import Run
from fedlas.lab.studies.diagnose.study import Study


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but the seed.

    Attributes:
        place: What distinguishes it from groups of the same loss, and a space; empty if the loss does.
        studies: At least one, each of another seed.
    """

    place: str
    studies: tuple[Study, ...]

    @property
    def name(self) -> str:
        """Place and loss."""
        return self.place + self.studies[0].run.loss

    def name_of(self, study: Study) -> str:
        """Place and name of one of its runs."""
        return self.place + study.run.name


def grouped(studies: Sequence[Study]) -> list[RunGroup]:
    """The studies in groups, in the order in which each begins.

    What tells groups apart is the first of these that does: the loss, recipe and loss, the bench's folder and loss, a
    number. Runs of several recipes are always named by more than their loss. A run that is there twice is in a second
    group, since a mean over it and itself would be one over two seeds by name only.
    """
    members: dict[tuple[str, int], list[Study]] = {}
    for study in studies:
        key, copy = _but_seed(study.run), 0
        while any(member.run.seed == study.run.seed for member in members.get((key, copy), ())):
            copy += 1
        members.setdefault((key, copy), []).append(study)
    groups = [tuple(group) for group in members.values()]
    places = _places([group[0].run for group in groups])
    return [RunGroup(place, group) for place, group in zip(places, groups, strict=True)]


def _but_seed(run: Run) -> str:
    return json.dumps({key: value for key, value in run.config().items() if key != "seed"}, sort_keys=True, default=str)


def _places(runs: Sequence[Run]) -> list[str]:
    ways: list[Callable[[Run], str]] = [
        lambda run: f"{run.recipe.name} ",
        lambda run: f"{run.folder.resolve().parent.name} ",
    ]
    if len({run.recipe.name for run in runs}) == 1:
        ways.insert(0, lambda _run: "")
    for way in ways:
        if len({(way(run), run.loss) for run in runs}) == len(runs):
            return [way(run) for run in runs]
    return [f"#{number} " for number in range(1, len(runs) + 1)]
