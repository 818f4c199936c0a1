"""Intervals and noise floors of predictions, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fedlas._core.terminal import Bar, say
from fedlas.predictions.predictions import AnyPredictions
from fedlas.stats.estimates import Estimate, estimated, measurable

SEED = 0
"""Of all replicates: runs on the same test set are resampled alike."""
_QUIET = 10.0
"""Seconds between two lines where there is no terminal for a bar."""


def estimates_by_stage(
    stages: Mapping[str, AnyPredictions],
    metrics: Sequence[str],
    *,
    num_bins: int,
    replicates: int,
    values: Mapping[str, Mapping[str, float]] | None = None,
    console: Any = None,
) -> dict[str, dict[str, Estimate]]:
    """Return estimates by stage, then by registry name, and show a progress bar.

    Args:
        stages: Predictions by stage.
        metrics: What to compute, where it can be.
        num_bins: Bins of the metrics that have any.
        replicates: 0 computes nothing; nor are intervals of a single sample.
        values: The metrics by stage, if they have been computed.
        console: A ``rich.console.Console``; None makes one on standard error.
    """
    if not replicates:
        return {}
    many = {stage: each for stage, each in stages.items() if each.num_samples > 1}
    found: dict[str, dict[str, Estimate]] = {stage: {} for stage in stages}
    options: dict[str, Any] = {"num_bins": num_bins, "replicates": replicates, "seed": SEED}
    with progress_bar(len(many), console) as advance:
        for stage, each in many.items():
            names = measurable(metrics, each)
            found[stage] = estimated(
                "intervals",
                each,
                names,
                **options,
                values=None if values is None else values[stage],
                advance=partial(advance, stage),
            )[0]
    return found


@contextmanager
def progress_bar(total: int, console: Any = None) -> Iterator[Callable[[str, float], None]]:
    """A function ``advance(name, steps)`` that moves a bar with the time left; plain lines where there is no terminal.

    Args:
        total: Steps in all, which can be taken in parts; a bar of 0 is not shown.
        console: A ``rich.console.Console``; None makes one on standard error.
    """
    done, shown = 0.0, time.monotonic()

    def advance(name: str, steps: float) -> None:
        nonlocal done, shown
        done += steps
        bar.advance(steps)
        bar.update(text=name)
        if not bar.live and time.monotonic() - shown > _QUIET:
            shown = time.monotonic()
            say(f"intervals: {done / max(total, 1):.0%}, {name}", on=bar.console)

    with Bar("intervals", total=total, on=console, quiet=total == 0) as bar:
        yield advance
