"""What ``fedlas tune`` does once its arguments are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fedlas._core.extras import require
from fedlas._core.ranks import is_main_process
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.tune.best import next_commands
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.report import HEADS, rows, write_numbers, write_page
from fedlas.lab.tune.study import run_study
from fedlas.lab.tune.summary import Outcome, notes, what_was_run


def tune(tuning: Tuning, *, keep: bool = False) -> int:
    """Do the trials that have not ended, write the report, print its table and what to run next.

    Args:
        tuning: From :func:`fedlas.lab.tune.plan.plan_tuning`.
        keep: Keep the checkpoints of all trials.

    Returns:
        0, or 1 if a method has no trial that is done.

    Raises:
        InputError: As :func:`fedlas.lab.tune.study.run_study`.
    """
    require("optuna", extra="tune")
    require_page_packages()
    errors = _console(stderr=True)
    trials = sum(method.trials(tuning.budget) for method in tuning.methods)
    methods = ", ".join(method.name for method in tuning.methods)
    text = f"{tuning.recipe.name}: {trials} trials of {methods}, in {tuning.folder}"
    errors.print(text, highlight=False, markup=False, soft_wrap=True)
    run_study(tuning, console=errors, keep=keep, after_round=partial(write_numbers, tuning))
    if not is_main_process():
        return 0
    outcomes = write_numbers(tuning)
    page = write_page(tuning, outcomes)
    screen = _console()
    screen.print(table(tuning, outcomes))
    for line in (what_was_run(tuning, outcomes), *notes(tuning, outcomes)):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    for name in ("tune.md", "tune.json", "best.yaml"):
        if (tuning.folder / name).exists():
            screen.print(f"written: {tuning.folder / name}", highlight=False, markup=False, soft_wrap=True)
    screen.print(f"report: {page}", highlight=False, markup=False, soft_wrap=True)
    for what, command in next_commands(tuning, outcomes):
        screen.print(f"next, {what}:\n  {command}", highlight=False, markup=False, soft_wrap=True)
    return 0 if all(outcome.best is not None for outcome in outcomes) else 1


def table(tuning: Tuning, outcomes: Sequence[Outcome]) -> Any:
    """A ``rich`` table, one row a method."""
    made = require("rich.table", extra="bench").Table(
        title=f"{tuning.goal.title} of the validation part, {tuning.goal.direction}",
        title_justify="left",
        box=require("rich.box", extra="bench").SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, head in enumerate(HEADS):
        made.add_column(head, justify="left" if i in (0, 4) else "right", overflow="fold")
    text = require("rich.text", extra="bench").Text
    for row in rows(tuning, outcomes):
        made.add_row(*map(text, row))
    return made


def _console(*, stderr: bool = False) -> Any:
    return require("rich.console", extra="bench").Console(stderr=stderr, quiet=not is_main_process())
