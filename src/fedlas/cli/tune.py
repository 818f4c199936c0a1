"""What ``fedlas tune`` does once its arguments are parsed."""

from __future__ import annotations

from functools import partial

from fedlas._core.collective import is_main_process
from fedlas._core.extras import require
from fedlas._core.terminal import console, say, show
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.table import terminal
from fedlas.lab.tune.best import next_commands
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.report import methods_table, write_numbers, write_page
from fedlas.lab.tune.study import run_study
from fedlas.lab.tune.summary import notes, verdicts, what_was_run


def tune(tuning: Tuning, *, keep: bool = False, details: bool = False) -> int:
    """Do the trials that have not ended, write the report, print its table and what to run next.

    Args:
        tuning: From :func:`fedlas.lab.tune.plan.plan_tuning`.
        keep: Keep the checkpoints of all trials.
        details: Print the best parameters, what was run, and how to read it.

    Returns:
        0, or 1 if a method has no trial that is done.

    Raises:
        InputError: As :func:`fedlas.lab.tune.study.run_study`.
    """
    require("optuna", extra="tune")
    require_page_packages()
    trials = sum(method.trials(tuning.budget) for method in tuning.methods)
    methods = ", ".join(method.name for method in tuning.methods)
    say(f"{tuning.recipe.name}: {trials} trials of {methods}, in {tuning.folder}", stderr=True)
    run_study(tuning, console=console(stderr=True), keep=keep, after_round=partial(write_numbers, tuning))
    if not is_main_process():
        return 0
    outcomes = write_numbers(tuning)
    page = write_page(tuning, outcomes)
    say(*verdicts(tuning, outcomes), wrap=True)
    table = methods_table(tuning, outcomes)
    show(terminal(table if details else table.where((0, 1, 2, 3, 5))))
    if details:
        say(what_was_run(tuning, outcomes), *notes(tuning, outcomes), wrap=True)
    for name in ("tune.md", "tune.json", "best.yaml"):
        if (tuning.folder / name).exists():
            say(f"written: {tuning.folder / name}")
    say(f"report: {page}")
    for what, command in next_commands(tuning, outcomes):
        say(f"next, {what}:", f"  {command}")
    return 0 if all(outcome.best is not None for outcome in outcomes) else 1
