"""``fedlas data check``: what is there, and what is missing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedlas._core.terminal import Bar, say, show, table
from fedlas.cli.arguments import AddSubcommand
from fedlas.cli.bench_group import add_set
from fedlas.lab.data.check import Checked, PartFacts, check_dataset, where
from fedlas.lab.recipes.recipe import parse_options


def add_data(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_data, "check NAME [PATH]")
    parser.add_argument("action", choices=["check"], metavar="check", help="the only thing to do with data so far")
    parser.add_argument("name", metavar="NAME", help="data set, see 'fedlas list datasets'")
    parser.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, help="where it is (default: $FEDLAS_DATA, then the usual places)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="count, but do not read images on disk (default: read all)"
    )
    add_set(parser, "KEY=VALUE", "set an option of the data set, e.g. extra=true")


def _data(args: argparse.Namespace) -> int:
    return data_check(args.name, args.path, quick=args.quick, options=args.set)


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
    with Bar("reading images", total=None) as bar:
        found = check_dataset(
            name,
            None if root is None else str(root),
            quick=quick,
            options=parse_options(options or []),
            on_image=lambda done, total: bar.update(done=done, total=total),
        )
    show(_table(found))
    say(*_verdict(name, found))
    return 1 if found.problems else 0


def _table(found: Checked) -> Any:
    source = found.source
    rows = []
    for label, part in (("train", source.train), ("test", source.test)):
        facts, published = found.parts[label], found.expected
        count = "" if published is None else f"{published.train if label == 'train' else published.test:,}"
        each = f"{facts.fewest:,}" if facts.fewest == facts.most else f"{facts.fewest:,} to {facts.most:,}"
        rows.append((label, f"{facts.images:,}", count, each, _sizes(facts), where(part)))
    heads = ("part", "images", "published", "of a class", "height x width", "where")
    title = f"{source.name}, {source.num_classes:,} classes"
    return table(heads, rows, title=title, right=(1, 2, 3), box="HEAVY_HEAD")


def _sizes(facts: PartFacts) -> str:
    if not facts.sizes:
        return "not read"
    if len(facts.sizes) == 1:
        (height, width), _ = facts.sizes[0]
        return f"{height} x {width}"
    heights, widths = zip(*(size for size, _ in facts.sizes), strict=True)
    low_high = ((min(lengths), max(lengths)) for lengths in (heights, widths))
    return " x ".join(str(low) if low == high else f"{low} to {high}" for low, high in low_high)


def _verdict(name: str, found: Checked) -> list[str]:
    if found.problems:
        fix = "Extract its archive again; if that does not help, download it again, or repair single files."
        return [*(line for problem in found.problems for line in f"{name}: {problem}".split("\n")), fix]
    read = "every image was read" if found.decoded else "images were not read (leave out --quick)"
    size = "is as published" if found.expected is not None else "can be used"
    return [f"{name} {size}; {read}."]
