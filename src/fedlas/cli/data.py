"""``fedlas data check``: checks that a data set is complete and readable."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import print_lines, print_renderable, rich_table
from fedlas.cli.arguments import AddSubcommand, add_flag, add_option
from fedlas.cli.recipe_options import add_set

if TYPE_CHECKING:
    from fedlas.lab.data.check import DatasetCheck


def add_data(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas data``."""
    parser = add(_run, "check NAME [PATH]")
    add_option(parser, "action", "check", "check the data set", choices=["check"])
    add_option(parser, "name", "NAME", "data set, see 'fedlas list datasets'")
    add_option(
        parser,
        "path",
        "PATH",
        "its folder (default: $FEDLAS_DATA, then the usual places)",
        nargs="?",
    )
    add_flag(parser, "--quick", "count images on disk without reading them (default: read all)")
    add_set(parser, "KEY=VALUE", "set an option of the data set, e.g. extra=true")


def _run(args: argparse.Namespace) -> int:
    """Check a data set and print the result; return 1 if it has problems."""
    from fedlas.lab.data.check import check_dataset
    from fedlas.lab.recipes.recipe import parse_options

    with ProgressBar("reading images", total=None) as bar:
        checked = check_dataset(
            args.name,
            args.path,
            quick=args.quick,
            options=parse_options(args.set),
            on_image=lambda done, total: bar.update(done=done, total=total),
        )
    print_renderable(_parts_table(checked))
    print_lines(*_verdict_lines(args.name, checked))
    return 1 if checked.problems else 0


def _parts_table(checked: DatasetCheck) -> Any:
    from fedlas.lab.data import ImageFiles

    source = checked.source
    published = checked.expected
    rows = []
    for label in source.parts:
        counts = checked.counts(label)
        of_class = _format_range([int(counts.min()), int(counts.max())])
        count = "" if published is None else f"{getattr(published, label):,}"
        shape = source.train.shape
        sizes = "not read" if len(shape) == 3 else f"{shape[0]:,} features"
        if checked.sizes[label]:
            heights, widths = zip(*checked.sizes[label], strict=True)
            sizes = f"{_format_range(heights)} x {_format_range(widths)}"
        where = "on disk" if isinstance(getattr(source, label), ImageFiles) else "in memory"
        rows.append((label, f"{int(counts.sum()):,}", count, of_class, sizes, where))
    heads = ("part", "samples", "published", "of a class", "height x width", "where")
    title = f"{source.name}, {source.num_classes:,} classes"
    return rich_table(heads, rows, title=title, right=(1, 2, 3), box="HEAVY_HEAD")


def _format_range(values: Sequence[int]) -> str:
    low = min(values)
    high = max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _verdict_lines(name: str, checked: DatasetCheck) -> list[str]:
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
