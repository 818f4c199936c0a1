"""What a study found, and the sentences that go with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import Trial, best_of, load_trials
from fedlas.lab.tune.space import Method


@dataclass(frozen=True)
class Outcome:
    """Outcome of one method.

    Attributes:
        method: The method.
        trials: Trials that have ended, in order.
        planned: Number of planned trials.
        best: The best trial, the first among equals; None if none is done.
    """

    method: Method
    trials: tuple[Trial, ...]
    planned: int
    best: Trial | None

    @property
    def preset(self) -> float | None:
        """The preset's value; None if it failed or has not ended."""
        return self.trials[0].value if self.trials and self.trials[0].is_preset else None

    @property
    def gain(self) -> float | None:
        """Best value less the preset's."""
        if self.best is None or self.best.value is None or self.preset is None:
            return None
        return self.best.value - self.preset

    @property
    def failed(self) -> list[Trial]:
        """Trials that have no value."""
        return [trial for trial in self.trials if trial.value is None]

    @property
    def done(self) -> int:
        """Number of trials that have a value."""
        return len(self.trials) - len(self.failed)


def outcomes_of(tuning: Tuning) -> list[Outcome]:
    """Outcome of each method, from the trials on disk.

    Raises:
        InputError: If a trial cannot be read.
    """
    found = []
    for method in tuning.methods:
        trials = tuple(trial for trial in load_trials(tuning, method) if trial.ended)
        found.append(Outcome(method, trials, method.trials(tuning.budget), best_of(tuning, trials)))
    return found


def title(tuning: Tuning) -> str:
    """Heading of a report."""
    return f"Tuning on {tuning.recipe.name}"


def what_was_run(tuning: Tuning, outcomes: Sequence[Outcome]) -> str:
    """The budget, in a sentence."""
    seeds, epochs = len(tuning.seeds), tuning.recipe.train.epochs
    runs = f"{_count(seeds, 'seed')} ({listed(tuning.seeds)}) x {_count(epochs, 'epoch')}"
    each = f"{_count(tuning.budget, 'trial')} x {runs}"
    methods = f"{len(outcomes)} methods" if len(outcomes) > 1 else outcomes[0].method.name
    return (
        f"{methods}, the same budget for each: {each}. Objective: {tuning.goal.title} of the validation part "
        f"({tuning.goal.direction}) at the epoch with the best validation {tuning.recipe.train.select}, "
        f"the mean over the seeds."
    )


def verdicts(tuning: Tuning, outcomes: Sequence[Outcome]) -> list[str]:
    """What the search of each method found, in a sentence each, and what that may not be taken for."""
    show, lines = tuning.goal.show, []
    for outcome in outcomes:
        name = outcome.method.name
        if outcome.best is None:
            lines.append(f"{name}: no trial is done.")
        elif outcome.best.is_preset:
            lines.append(f"{name}: the preset, {show(outcome.preset)}, is the best of {_count(outcome.done, 'trial')}.")
        else:
            change = f" ({show(outcome.gain, sign=True)} against the preset)" if outcome.gain is not None else ""
            lines.append(f"{name}: {show(outcome.best.value)}{change}, the best of {_count(outcome.done, 'trial')}.")
    lines.append("The best is chosen on validation, so its value is optimistic. No difference is tested.")
    return lines


def notes(tuning: Tuning, outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader of the numbers must know."""
    lines = []
    missing = sum(outcome.planned - len(outcome.trials) for outcome in outcomes)
    if missing:
        lines.append(f"Not finished: {missing} of {sum(o.planned for o in outcomes)} trials are still to be done.")
    for outcome in outcomes:
        name, method = outcome.method.name, outcome.method
        # A small space is exhausted before the budget; the reader must know that the budgets then differ.
        if not method.space:
            lines.append(f"{name} has nothing to tune: its one setting was run once, the rest of its budget is unused.")
        elif method.settings < tuning.budget:
            count = int(method.settings)
            lines.append(f"{name} has {count} settings: each was run once, the rest of its budget is unused.")
        if not method.preset_inside:
            lines.append(f"The preset of {name} lies outside what is searched: it counts, but draws do not go near it.")
        lines += [f"{name} trial {t.number} failed and counts as done: {t.reason}" for t in outcome.failed]
    lines += [
        "Trial 0 of each method is the recipe's own preset, so tuned is never worse than it on validation, by "
        "construction.",
        "The best is the luckiest of its trials, and the epoch was chosen on the same validation part as the trial: "
        "its value here is optimistic, more so with more trials. No test has been made of any difference.",
        "The test part was not looked at. An honest number comes from a bench of the tuned settings with other seeds.",
    ]
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def listed(values: Sequence[object]) -> str:
    """``0, 1, 2``."""
    return ", ".join(map(str, values))
