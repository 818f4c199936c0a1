"""Pieces of Markdown that every report in it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fedlas._core.terminal import printable


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A table padded to equal widths, so that it reads as plain text too; the first ``left`` columns to the left."""
    body = [list(heads), *map(list, rows)]
    widths = [max(3, *(len(row[i]) for row in body)) for i in range(len(heads))]
    rule = [("-" * w if i < left else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    lines = [
        [text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
        for row in (body[0], rule, *body[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """``text`` on one line, with what Markdown would read as markup escaped, control and format characters too."""
    return re.sub(r"([\\`*\[\]|<])", r"\\\1", printable(" ".join(text.split())))


def code_block(lines: Iterable[str]) -> str:
    """An indented block, which no content can end early."""
    return "\n".join(f"    {printable(line)}" for text in lines for line in text.split("\n"))
