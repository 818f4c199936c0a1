"""Dry run of a study: the spaces, and the trials, runs, steps and folders of every method. Nothing starts."""

from __future__ import annotations

from collections.abc import Sequence

from fedlas._core.terminal import say
from fedlas.lab.runs.forecast import forecast, train_size
from fedlas.lab.tune.listing import words
from fedlas.lab.tune.plan import Tuning
from fedlas.lab.tune.study import check_study
from fedlas.lab.tune.summary import outcomes_of, what_was_run


def dry_run(tuning: Tuning) -> int:
    """Print what a study would do.

    Returns:
        0.

    Raises:
        InputError: As :func:`fedlas.lab.tune.study.check_study`.
    """
    check_study(tuning)
    recipe, outcomes = tuning.recipe, outcomes_of(tuning)
    images = train_size(recipe)
    size = "images (their number is known once they are read)" if images is None else f"about {images:,} images"
    say(f"{recipe.name}: {recipe.title}")
    say(f"  {recipe.model.name} on {size} of {recipe.data.name}, batch {recipe.train.batch_size}")
    say(f"  {what_was_run(tuning, outcomes)}", "")

    # What is searched.
    spaces = [("method", "parameter", "preset", "searched")]
    for method in tuning.methods:
        for key, domain in method.space.items():
            spaces.append((method.name, key, str(method.preset[key]), words(domain)))
        if not method.space:
            spaces.append((method.name, "—", "", "nothing to tune: one setting"))
    _print(spaces)

    # What it costs.
    each = forecast(tuning.runs(tuning.methods[0], 0, {})[0]).steps
    seeds = len(tuning.seeds)
    plans = [("method", "trials", "ended", "runs", "steps", "folder")]
    total = left = 0
    for outcome in outcomes:
        runs, ended = outcome.planned * seeds, len(outcome.trials)
        total, left = total + runs, left + (outcome.planned - ended) * seeds
        steps = "?" if each is None else f"{runs * each:,}"
        folder = str(tuning.trial_folder(outcome.method, 0).parent)
        plans.append((outcome.method.name, str(outcome.planned), str(ended), str(runs), steps, folder))
    say("")
    _print(plans)
    steps = "" if each is None else f", about {total * each:,} steps, {left * each:,} of them left"
    say("", f"{total} runs, {left} of them left{steps}; results in {tuning.folder}")
    return 0


def _print(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(f"  {text}")
