"""Sentences and tables in order, for a terminal or as text."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass

from fedlas._core.terminal import say, show
from fedlas.present.table import Table, markdown, terminal


@dataclass(frozen=True)
class Note:
    """A sentence that explains the block above it."""

    text: str


Block = str | Note | Table


def show_blocks(blocks: Iterable[Block], *, details: bool = False, as_markdown: bool = False) -> None:
    """Print sentences and tables.

    Args:
        blocks: In their order.
        details: Print the further lines of cells, such as intervals.
        as_markdown: Print Markdown tables rather than those of a terminal, and break no line.
    """
    for block in blocks:
        if isinstance(block, Table) and as_markdown:
            say(block.title, "", *markdown(block).split("\n"), "", *block.notes)
        elif isinstance(block, Table):
            show(terminal(block, details=details))
        elif isinstance(block, Note):
            say(block.text, style="dim", wrap=not as_markdown)
        else:
            say(block, wrap=not as_markdown)


def text_of(blocks: Iterable[Block], *, details: bool = False) -> str:
    """Return what :func:`show_blocks` prints."""
    with redirect_stdout(io.StringIO()) as text:
        show_blocks(blocks, details=details)
    return text.getvalue().rstrip("\n")
