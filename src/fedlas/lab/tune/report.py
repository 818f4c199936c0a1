"""``tune.json``, ``tune.md`` and ``tune.html``: every trial, the table, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.files import write_json, write_text
from fedlas.lab.report.markdown import code_block, grid, plain
from fedlas.lab.report.page import MOST_WIDTH, Picture, ThemeName, picture, render
from fedlas.lab.runs import provenance
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.tune.best import next_commands, write_best
from fedlas.lab.tune.domain import Range
from fedlas.lab.tune.listing import words
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.record import Trial
from fedlas.lab.tune.sampler import STARTUP, write_storage
from fedlas.lab.tune.study import settings
from fedlas.lab.tune.summary import Outcome, notes, outcomes_of, title, what_was_run
from fedlas.plots import DARK, LIGHT, best_so_far, new_axes, parameter_effect
from fedlas.plots.theme import legend_height

HEADS = ("method", "preset", "best", "difference", "best parameters", "done", "failed")
"""Heads of the table of methods."""


def write_numbers(tuning: Tuning) -> list[Outcome]:
    """Write everything but the page: after each round of trials, so that a stop leaves what there is.

    Returns:
        What became of each method.
    """
    outcomes = outcomes_of(tuning)
    write_best(tuning, outcomes)
    write_storage(tuning, {outcome.method.name: outcome.trials for outcome in outcomes})
    write_json(tuning.folder / "tune.json", as_json(tuning, outcomes))
    write_text(tuning.folder / "tune.md", as_markdown(tuning, outcomes))
    return outcomes


def write_page(tuning: Tuning, outcomes: Sequence[Outcome]) -> Path:
    """Write ``tune.html``: no script, no network, light and dark."""
    page = render(
        "tune.html.j2",
        title=title(tuning),
        statement=what_was_run(tuning, outcomes),
        commands=provenance.commands(RunFolder(tuning.folder).starts),
        heads=HEADS,
        rows=rows(tuning, outcomes),
        goal=tuning.goal,
        notes=notes(tuning, outcomes),
        then=next_commands(tuning, outcomes),
        course=_course(tuning, outcomes),
        methods=[
            {
                "name": outcome.method.name,
                "space": _space(outcome),
                "pictures": _effects(tuning, outcome),
                "keys": list(outcome.method.space),
                "trials": [_cells(tuning, outcome, trial) for trial in outcome.trials],
            }
            for outcome in outcomes
        ],
        startup=STARTUP,
        environment=provenance.environment(RunFolder(tuning.folder).starts),
    )
    return write_text(tuning.folder / "tune.html", page)


def rows(tuning: Tuning, outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The table of methods, under :data:`HEADS`."""
    show = tuning.goal.show
    return [
        [
            outcome.method.name,
            show(outcome.preset),
            show(None if outcome.best is None else outcome.best.value),
            show(outcome.gain, sign=True),
            best_parameters(outcome),
            f"{outcome.done} of {outcome.planned}",
            str(len(outcome.failed)),
        ]
        for outcome in outcomes
    ]


def best_parameters(outcome: Outcome) -> str:
    """The best trial's parameters, in words where there are none."""
    if outcome.best is None:
        return "no trial is done"
    if not outcome.method.space:
        return "nothing to tune"
    return f"{settings(outcome.best.params)}{' (the preset)' if outcome.best.is_preset else ''}"


def as_json(tuning: Tuning, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, in full precision."""
    methods = {
        outcome.method.name: {
            "space": {key: domain.text for key, domain in outcome.method.space.items()},
            "planned": outcome.planned,
            "preset": outcome.preset,
            "best": None if outcome.best is None else outcome.best.number,
            "best_value": None if outcome.best is None else outcome.best.value,
            "best_params": None if outcome.best is None else dict(outcome.best.params),
            "trials": [asdict(trial) for trial in outcome.trials],
        }
        for outcome in outcomes
    }
    content = {
        "study": tuning.config(),
        "budget": tuning.budget,
        "direction": "maximise" if tuning.goal.maximize else "minimise",
        "finished": all(len(outcome.trials) == outcome.planned for outcome in outcomes),
        "methods": methods,
        "notes": notes(tuning, outcomes),
        "environment": RunFolder(tuning.folder).starts,
    }
    found: dict[str, Any] = _plain(content)
    return found


def as_markdown(tuning: Tuning, outcomes: Sequence[Outcome]) -> str:
    """``tune.md``."""
    parts = [f"# {plain(title(tuning))}", plain(what_was_run(tuning, outcomes))]
    if commands := provenance.commands(RunFolder(tuning.folder).starts):
        parts.append(code_block(commands))
    parts.append(grid(HEADS, [[plain(cell) for cell in row] for row in rows(tuning, outcomes)], left=1))
    parts.append("\n".join(f"- {plain(note)}" for note in notes(tuning, outcomes)))
    if then := next_commands(tuning, outcomes):
        parts.append("## Next")
        for what, command in then:
            parts += [f"{plain(what[:1].upper() + what[1:])}:", code_block([command])]
    for outcome in outcomes:
        keys = list(outcome.method.space)
        heads = ["trial", *map(plain, keys), plain(tuning.goal.title), "seconds", ""]
        table = [list(map(plain, _cells(tuning, outcome, trial))) for trial in outcome.trials]
        parts += [f"## {plain(outcome.method.name)}", plain(_space(outcome)), grid(heads, table, left=1)]
    environment = [
        [key, plain("; ".join(values))]
        for key, values in provenance.environment(RunFolder(tuning.folder).starts).items()
    ]
    parts += ["## Environment", grid(["", ""], environment, left=2)]
    return "\n\n".join(parts) + "\n"


def _space(outcome: Outcome) -> str:
    method = outcome.method
    if not method.space:
        return "Nothing to tune."
    ranges = "; ".join(f"{key} {words(domain)}, preset {method.preset[key]}" for key, domain in method.space.items())
    return f"Searched: {ranges}."


def _cells(tuning: Tuning, outcome: Outcome, trial: Trial) -> list[str]:
    """One trial in the table of its method."""
    words = ["preset"] if trial.is_preset else []
    words += ["best"] if trial is outcome.best else []
    words += [f"failed: {trial.reason}"] if trial.value is None else []
    params = [settings({"": trial.params[key]}).strip() for key in outcome.method.space]
    return [str(trial.number), *params, tuning.goal.show(trial.value), f"{trial.seconds:.1f}", ", ".join(words)]


def _course(tuning: Tuning, outcomes: Sequence[Outcome]) -> Picture | None:
    values = {outcome.method.name: [_scaled(tuning, trial) for trial in outcome.trials] for outcome in outcomes}
    if not any(value is not None for found in values.values() for value in found):
        return None

    def draw(theme: ThemeName) -> Any:
        axes = new_axes(
            LIGHT if theme == "light" else DARK, size=(MOST_WIDTH, 2.7 + legend_height(list(values), MOST_WIDTH))
        )
        return best_so_far(values, label=tuning.goal.title, maximize=tuning.goal.maximize, ax=axes, theme=theme)

    return picture(draw, f"Best validation {tuning.goal.title} so far over the trials, a line a method")


def _effects(tuning: Tuning, outcome: Outcome) -> list[Picture]:
    found = []
    for key, domain in outcome.method.space.items():
        values = [_scaled(tuning, trial) for trial in outcome.trials]
        if not values:
            continue
        draw = partial(
            _effect,
            settings=[trial.params[key] for trial in outcome.trials],
            values=values,
            name=key,
            label=tuning.goal.title,
            best=None if outcome.best is None else outcome.best.number,
            log=isinstance(domain, Range) and domain.log,
            limits=(domain.low, domain.high) if isinstance(domain, Range) else None,
        )
        found.append(picture(draw, f"{tuning.goal.title} over {key} of {outcome.method.name}, a point a trial"))
    return found


def _effect(theme: ThemeName, **options: Any) -> Any:
    axes = new_axes(LIGHT if theme == "light" else DARK, size=(MOST_WIDTH, 3.0))
    return parameter_effect(ax=axes, theme=theme, legend=False, **options)


def _scaled(tuning: Tuning, trial: Trial) -> float | None:
    return None if trial.value is None else trial.value * (100 if tuning.goal.about["percent"] else 1)


def _plain(value: Any) -> Any:
    """What JSON has no number for, as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
