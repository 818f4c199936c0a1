"""``fedlas data check``: checks that a data set is complete and readable."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlas._core.progress import Bar
from fedlas._core.terminal import say, show, table
from fedlas.cli.arguments import AddSubcommand, flag, option
from fedlas.cli.bench_group import add_set

if TYPE_CHECKING:
    from fedlas.lab.data.check import Checked


def add_data(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas data``."""
    parser = add(_check, "check NAME [PATH]")
    option(parser, "action", "check", "check the data set", choices=["check"])
    option(parser, "name", "NAME", "data set, see 'fedlas list datasets'")
    option(
        parser,
        "path",
        "PATH",
        "its folder (default: $FEDLAS_DATA, then the usual places)",
        nargs="?",
    )
    flag(parser, "--quick", "count images on disk without reading them (default: read all)")
    add_set(parser, "KEY=VALUE", "set an option of the data set, e.g. extra=true")


def _check(args: argparse.Namespace) -> int:
    """Check a data set and print the result; return 1 if it has problems."""
    from fedlas.lab.data.check import check_dataset
    from fedlas.lab.recipes.recipe import parse_options

    with Bar("reading images", total=None) as bar:
        checked = check_dataset(
            args.name,
            args.path,
            quick=args.quick,
            options=parse_options(args.set),
            on_image=lambda done, total: bar.update(done=done, total=total),
        )
    show(_table(checked))
    say(*_verdict(args.name, checked))
    return 1 if checked.problems else 0


def _table(checked: Checked) -> Any:
    from fedlas.lab.data import Files

    source = checked.source
    published = checked.expected
    rows = []
    for label in source.parts:
        counts = checked.counts(label)
        of_class = _range([int(counts.min()), int(counts.max())])
        count = "" if published is None else f"{getattr(published, label):,}"
        shape = source.train.shape
        sizes = "not read" if len(shape) == 3 else f"{shape[0]:,} features"
        if checked.sizes[label]:
            heights, widths = zip(*checked.sizes[label], strict=True)
            sizes = f"{_range(heights)} x {_range(widths)}"
        where = "on disk" if isinstance(getattr(source, label), Files) else "in memory"
        rows.append((label, f"{int(counts.sum()):,}", count, of_class, sizes, where))
    heads = ("part", "samples", "published", "of a class", "height x width", "where")
    title = f"{source.name}, {source.num_classes:,} classes"
    return table(heads, rows, title=title, right=(1, 2, 3), box="HEAVY_HEAD")


def _range(values: Sequence[int]) -> str:
    low = min(values)
    high = max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _verdict(name: str, checked: Checked) -> list[str]:
    if checked.problems:
        fix = "Extract the archive again; if that does not help, download it again or repair the named files."
        return [
            *(line for problem in checked.problems for line in f"{name}: {problem}".split("\n")),
            fix,
        ]
    read = (
        "every sample was read" if checked.decoded else "images were not read (leave out --quick)"
    )
    size = "is as published" if checked.expected is not None else "can be used"
    return [f"{name} {size}; {read}."]
