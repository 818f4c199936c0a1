"""Tables as Markdown or LaTeX: the options of subcommands that print them, and the printing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlas._core.terminal import print_lines

if TYPE_CHECKING:
    from fedlas.present.table import Block


def add_markup_flags(parser: argparse.ArgumentParser, default: str = "for the terminal") -> None:
    """Add ``--markdown`` and ``--latex``, which print tables to paste into a document."""
    for name, text in (
        ("markdown", "print Markdown tables"),
        ("latex", "print LaTeX tables, without sentences"),
    ):
        parser.add_argument(
            f"--{name}",
            dest="markup",
            action="store_const",
            const=name,
            help=f"{text} (default: {default})",
        )


def print_in_format(
    args: argparse.Namespace, blocks: Sequence[Block], caption: str = "", label: str = ""
) -> None:
    """Print blocks for the terminal, as Markdown, or as LaTeX (tables only, with this caption and label)."""
    from fedlas.present.table import Table, latex_table, print_blocks

    if args.markup != "latex":
        print_blocks(blocks, as_markdown=args.markup == "markdown", details=args.details)
        return
    tables = [block for block in blocks if isinstance(block, Table)]
    for number, table in enumerate(tables, start=1):
        text = f"{table.title}. {caption or ' '.join(table.notes)}"
        numbered = f"{label} {number}" if label and len(tables) > 1 else label
        print_lines(*latex_table(table, caption=text, label=numbered).split("\n"))
