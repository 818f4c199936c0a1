"""``fedlas bench`` of a group of recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.terminal import say
from fedlas.cli.commands import bench
from fedlas.lab.bench.suite import Group


def bench_group(
    group: Group,
    *,
    losses: Sequence[str] = (),
    seeds: Sequence[int] = (),
    out: Path | None = None,
    **options: Any,
) -> int:
    """Run every recipe of a group; one that cannot be run is said and does not stop the others.

    Args:
        group: What to run.
        losses: None means each recipe's.
        seeds: None means each recipe's.
        out: See :meth:`Group.folder`.
        **options: Further ones of :func:`fedlas.cli.commands.bench`.

    Returns:
        0, or 1 if a run of one of several recipes failed, or a recipe could not be run.

    Raises:
        InputError: As :func:`fedlas.cli.commands.bench` for one recipe; for several only before the first starts.
    """
    if len(group.recipes) == 1:
        return bench(group.recipes[0], losses=losses, seeds=seeds, out=out, **options)
    planned, status = group.plan(losses=losses, seeds=seeds, out=out), 0
    failed: list[str] = []
    for number, (recipe, _) in enumerate(planned, start=1):
        say("", f"{group.name} [{number}/{len(planned)}]", style="bold", wrap=True, stderr=True)
        try:
            done = bench(recipe, losses=losses, seeds=seeds, out=group.folder(recipe, out), **options)
        except InputError as error:
            say(f"{recipe.name} cannot be run: {error}", style="red", stderr=True)
            done = 1
        if done:
            failed.append(recipe.name)
        status = max(status, done)
    if failed:
        say(f"not complete: {', '.join(failed)}", style="bold red", wrap=True, stderr=True)
    say(*(f"then: {command}" for command in group.then), stderr=True)
    return status
