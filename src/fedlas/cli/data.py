"""``fedlas data check``: what is there, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas.lab.data.check import Checked, PartFacts, check_dataset, where
from fedlas.lab.recipes.recipe import parse_options


def data_check(name: str, root: Path | None, *, quick: bool = False, options: list[str] | None = None) -> int:
    """Check a data set and print what was found.

    Args:
        name: Registered data set.
        root: Where its files are; None searches the usual places.
        quick: Do not decode images on disk.
        options: Options of the data set, ``key=value``.

    Returns:
        0, or 1 if something is wrong with it.

    Raises:
        InputError: If it cannot be loaded at all; the message says what to do.
    """
    rich: Any = require("rich.progress", extra="bench")
    stderr = require("rich.console", extra="bench").Console(stderr=True)
    with rich.Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("reading images", total=None)
        found = check_dataset(
            name,
            None if root is None else str(root),
            quick=quick,
            options=parse_options(options or []),
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
        )
    console = require("rich.console", extra="bench").Console()
    console.print(_table(found))
    console.print(_verdict(name, found), highlight=False, markup=False, soft_wrap=True)
    return 1 if found.problems else 0


def _table(found: Checked) -> Any:
    source = found.source
    table = require("rich.table", extra="bench").Table(title=f"{source.name}, {source.num_classes:,} classes")
    for heading in ("part", "images", "published", "of a class", "height x width", "where"):
        table.add_column(heading, justify="right" if heading in ("images", "published", "of a class") else "left")
    for label, part in (("train", source.train), ("test", source.test)):
        facts, published = found.parts[label], found.expected
        count = "" if published is None else f"{published.train if label == 'train' else published.test:,}"
        each = f"{facts.fewest:,}" if facts.fewest == facts.most else f"{facts.fewest:,} to {facts.most:,}"
        table.add_row(label, f"{facts.images:,}", count, each, _sizes(facts), where(part))
    return table


def _sizes(facts: PartFacts) -> str:
    if not facts.sizes:
        return "not read"
    if len(facts.sizes) == 1:
        (height, width), _ = facts.sizes[0]
        return f"{height} x {width}"
    heights, widths = zip(*(size for size, _ in facts.sizes), strict=True)
    low_high = ((min(lengths), max(lengths)) for lengths in (heights, widths))
    return " x ".join(str(low) if low == high else f"{low} to {high}" for low, high in low_high)


def _verdict(name: str, found: Checked) -> str:
    if found.problems:
        fix = "Extract its archive again; if that does not help, download it again, or repair single files."
        return "\n".join([*(f"{name}: {problem}" for problem in found.problems), fix])
    read = "every image was read" if found.decoded else "images were not read (leave out --quick)"
    size = "is as published" if found.expected is not None else "can be used"
    return f"{name} {size}; {read}."
