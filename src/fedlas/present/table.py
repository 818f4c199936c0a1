"""``Table``, the table of every report, and its conversion to terminal, Markdown, HTML, LaTeX and CSV.

Pages show it with the macro ``table`` of ``macros.html.j2``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import inf, isnan
from typing import Any, Literal

from fedlas._core.terminal import Console, console, print_lines, print_renderable
from fedlas._core.terminal import rich_table as rich_table
from fedlas._core.text import escape_spreadsheet_cell, printable
from fedlas.metrics import METRICS
from fedlas.metrics.metric import Metric, find_measure, value_range

Mark = Literal["best", "leading", "same", "worse", "untested", "calibrated", ""]
SYMBOLS: dict[str, str] = {
    "best": "★", "leading": "☆", "same": "≈", "worse": "", "untested": "?", "calibrated": "~", "": "",
}  # fmt: skip
ARROWS: dict[bool | None, str] = {True: "↑", False: "↓", None: "→ 0"}
DASH = "—"
_INTERVAL_PATTERN = r"\[[-+]?[\d.]+, [-+]?[\d.]+\](?![:(\[])"
"""Brackets around two numbers, which Markdown takes for no link."""
_MARK_STYLES = {"best": "bold green", "leading": "green", "same": "green", "calibrated": "green"}


@dataclass(frozen=True)
class Column:
    """A table column: header, unit, direction and number format.

    Attributes:
        title: Head of the column.
        unit: ``"%"`` or nothing.
        arrow: ``"↑"`` if higher is better, ``"↓"`` if lower is, ``"→ 0"`` if zero is; empty if unknown.
        about: One line on what it measures.
        metric: Registry name; empty if it is no metric.
        places: Decimals; in percent two fewer.
        words: Whether it holds text, which is aligned to the left.
        shown: Whether a page with a choice of columns shows it at first.
        between: Least and largest value.
    """

    title: str
    unit: str = ""
    arrow: str = ""
    about: str = ""
    metric: str = ""
    places: int = 4
    words: bool = False
    shown: bool = True
    between: tuple[float, float] = (-inf, inf)

    @property
    def head(self) -> str:
        """Header: title, unit and direction, e.g. ``"ECE % ↓"``."""
        return " ".join(part for part in (self.title, self.unit, self.arrow) if part)

    def format(self, value: float | None) -> str:
        """Return ``value`` as text, a fraction as percent if the unit is percent; a dash for None or NaN."""
        if value is None or isnan(value):
            return DASH
        text = f"{100 * value:.{self.places - 2}f}" if self.unit else f"{value:.{self.places}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text  # no "-0.00"


@dataclass(frozen=True)
class Cell:
    """A table cell: text, mark, details and the number in full precision.

    Attributes:
        value: Its text.
        spread: Standard deviation as text; empty where there is none.
        mark: Result of the comparison or the test.
        extra: Text after the mark, such as a noise floor in brackets.
        details: Further lines, such as interval, noise floor and p-value: in a terminal a line each, elsewhere the
            first on a line of its own.
        tip: Shown on hover.
        number: The value at full precision, for CSV; None for text.
        link: Address that the text leads to.
        links: Further names with their addresses.
    """

    value: str = ""
    spread: str = ""
    mark: Mark = ""
    extra: str = ""
    details: tuple[str, ...] = ()
    tip: str = ""
    number: float | None = None
    link: str = ""
    links: tuple[tuple[str, str], ...] = ()

    @property
    def symbol(self) -> str:
        """The mark as one character, for output without color."""
        return SYMBOLS[self.mark]

    @property
    def text(self) -> str:
        """Value and spread, e.g. ``"2.21 ± 0.31"``."""
        return f"{self.value} ± {self.spread}" if self.spread else self.value


@dataclass(frozen=True)
class Table:
    """A table with a title and notes; the first column names the rows.

    Attributes:
        columns: One for each cell of a row.
        rows: Cells.
        title: Title above the table, also its name for screen readers.
        notes: Sentences below it.
        narrow: Whether a terminal shows it without space between the columns' borders.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    narrow: bool = False

    def where(self, indices: Sequence[int]) -> Table:
        """Return the table with a selection of columns, by index."""
        rows = tuple(tuple(row[number] for number in indices) for row in self.rows)
        return replace(self, columns=tuple(self.columns[number] for number in indices), rows=rows)


def metric_column(
    metric: str, *, event: bool = False, places: int | None = None, shown: bool = True
) -> Column:
    """Return the column of a metric; an unregistered metric has its name as title and no direction.

    Args:
        metric: Registry name.
        event: Whether the event of two classes is the subject, and its measures are meant.
        places: Decimals; None for the registered number.
        shown: As in :class:`Column`.
    """
    entry = find_measure(metric, event=event)
    if entry is None:
        return Column(metric, metric=metric, places=4 if places is None else places, shown=shown)
    return Column(
        entry.title,
        "%" if entry.percent else "",
        _metric_arrow(entry),
        strip_markup(entry.summary),
        metric,
        entry.places if places is None else places,
        shown=shown,
        between=value_range(entry),
    )


def _metric_arrow(entry: Metric) -> str:
    """Return the arrow or ideal value of a metric, or an empty string if it has no direction."""
    if entry.ideal is not None:
        return f"→ {entry.ideal:g}"
    directed = entry.subject != "event" or entry.higher_is_better is not None
    return ARROWS[entry.higher_is_better] if directed else ""


def make_table(
    heads: Sequence[str | Column],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    notes: Iterable[str] = (),
    left_aligned: Sequence[int] = (0,),
) -> Table:
    """Build a table from rows of text, numbers, None or cells.

    Args:
        heads: Heads of the columns.
        rows: Values of each row.
        title: As in :class:`Table`.
        notes: As in :class:`Table`.
        left_aligned: Columns that are aligned to the left.
    """
    columns = [
        head if isinstance(head, Column) else Column(head, words=number in left_aligned)
        for number, head in enumerate(heads)
    ]
    return Table(
        tuple(columns), tuple(tuple(map(to_cell, row)) for row in rows), title, tuple(notes)
    )


def to_cell(value: object) -> Cell:
    """Convert text, a number or None to a cell; a cell is returned unchanged."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, int | float):
        return Cell(str(value), number=value)
    return Cell("" if value is None else str(value))


def is_detail_metric(metric: str) -> bool:
    """Return whether ``metric`` is registered as a detail rather than a main metric."""
    entry = METRICS.get(metric)
    return entry is not None and entry.detail


def strip_markup(summary: str) -> str:
    """Return the first line of a docstring without markup; cross-references become the referenced name."""
    return re.sub(r":(?:[a-z]+:){1,2}`~?(?:[\w.]*\.)?(\w+)`", r"\1", summary).replace("`", "")


def terminal_table(table: Table, *, details: bool = False, arrows: bool = True) -> Any:
    """Convert a table to a ``rich`` table for the terminal.

    Args:
        table: The table.
        details: Whether to show the further lines of cells.
        arrows: Whether heads say which direction is better.
    """

    def format_cell(cell: Cell) -> list[tuple[str, str]]:
        style = _MARK_STYLES.get(cell.mark, "")
        spread = f" ±{cell.spread}" if cell.spread else ""
        mark = cell.symbol or " " * bool(spread)  # so that numbers without a mark stay in line
        extra = f" {cell.extra}" if cell.extra else ""
        below = "".join(f"\n{line}{' ' * len(mark)}" for line in cell.details if details)
        return [
            (f"{cell.value}{spread}{mark}", style),
            (extra, "dim"),
            (below, f"{style} dim".strip()),
        ]

    return rich_table(
        [c.head if arrows else c.head.removesuffix(f" {c.arrow}") for c in table.columns],
        [[format_cell(cell) for cell in row] for row in table.rows],
        title=table.title,
        caption=table.notes,
        right=[number for number, c in enumerate(table.columns) if number and not c.words],
        no_wrap=[0],
        padding=(0, int(arrows and not table.narrow), 0, 0),
        pad_edge=False,
    )


def markdown_table(table: Table) -> str:
    """Convert a table to Markdown, padded so that it also reads as plain text."""

    def format_cell(cell: Cell) -> str:
        text = (
            f"**{escape_markdown(cell.text)}**"
            if cell.mark == "best"
            else escape_markdown(cell.text)
        )
        details = [cell.details[:1], cell.details[1:]]
        below = [escape_markdown(", ".join(lines)) for lines in details if lines]
        return "<br>".join([f"{text} {cell.symbol} {escape_markdown(cell.extra)}".strip(), *below])

    words = [number == 0 or c.words for number, c in enumerate(table.columns)]
    body = [
        [escape_markdown(c.head) for c in table.columns],
        *([format_cell(cell) for cell in row] for row in table.rows),
    ]
    widths = [max(3, *(len(row[i]) for row in body)) for i in range(len(words))]
    rule = [
        ("-" * w if first else "-" * (w - 1) + ":") for first, w in zip(words, widths, strict=True)
    ]
    lines = [
        [
            text.ljust(w) if first else text.rjust(w)
            for first, text, w in zip(words, row, widths, strict=True)
        ]
        for row in (body[0], rule, *body[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_paragraphs(sentences: Iterable[str]) -> str:
    """Return an escaped HTML paragraph per sentence, for notebooks."""
    return "".join(f"<p>{escape(printable(sentence))}</p>" for sentence in sentences)


def html_table(table: Table) -> str:
    """Convert a table to escaped HTML, for notebooks."""

    def format_cell(cell: Cell) -> str:
        return escape(printable(f"{cell.text} {cell.symbol} {cell.extra}".rstrip(" ")))

    head = "".join(f"<th>{escape(printable(c.head))}</th>" for c in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{format_cell(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    title = f"<p><b>{escape(printable(table.title))}</b></p>" if table.title else ""
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def latex_table(table: Table, *, caption: str = "", label: str = "") -> str:
    r"""Convert a table to LaTeX with the rules of ``booktabs``; text is escaped.

    The best mean is bold, and one that is not distinguishable from it underlined.

    Args:
        table: The table.
        caption: Put the table into a ``table`` environment with this caption and the marks of the table explained.
        label: Label of that environment, without ``tab:``; by default the title of the table.

    Example:
        >>> print(latex_table(make_table(["loss", "ECE %"], [["ls_a", 1.5]])))
        \begin{tabular}{lr}
        \toprule
        loss & ECE \% \\
        \midrule
        ls\_a & 1.5 \\
        \bottomrule
        \end{tabular}
    """

    def format_cell(cell: Cell) -> str:
        text = _LATEX_MARKS.get(cell.mark, "{}").format(_escape_latex(cell.text))
        return f"{text} {_escape_latex(cell.extra)}".strip()

    kinds = "".join(
        "l" if number == 0 or c.words else "r" for number, c in enumerate(table.columns)
    )
    rows = [
        [_escape_latex(c.head) for c in table.columns],
        *([format_cell(c) for c in row] for row in table.rows),
    ]
    head, *body = [f"{' & '.join(row)} \\\\" for row in rows]
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *body]
    lines += [r"\bottomrule", r"\end{tabular}"]
    if not caption:
        return "\n".join(lines)
    used = {cell.mark for row in table.rows for cell in row}
    legend = dict.fromkeys(
        f"{text}: {about}." for mark, (text, about) in _LATEX_LEGEND.items() if mark in used
    )
    caption = " ".join([_escape_latex(caption), *legend])
    label = re.sub(r"[^0-9a-zA-Z]+", "-", label or table.title).strip("-")
    before = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
    ]
    return "\n".join([*before, *lines, r"\end{table}"])


_LATEX_MARKS = {"best": r"\textbf{{{}}}", "leading": r"\textbf{{{}}}", "same": r"\underline{{{}}}"}
_LATEX_MARKS |= {"calibrated": "{}$^{{\\sim}}$", "untested": "{}$^{{?}}$"}
_LATEX_LEGEND = {
    "best": (r"\textbf{Bold}", "best mean"),
    "leading": (r"\textbf{Bold}", "best mean"),
    "same": (r"\underline{Underlined}", "not distinguishable from it"),
    "untested": ("?", "not tested"),
}
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}
_LATEX_ESCAPES |= {
    "≤": r"$\le$",
    "~": r"$\sim$",
    "^": r"\textasciicircum{}",
    "→": r"$\to$",
    "—": "---",
}
_LATEX_ESCAPES |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX_ESCAPES.get(sign, sign) for sign in printable(text))


def table_to_csv(table: Table) -> str:
    """Convert a table to CSV with full precision; text that a spreadsheet would read as a formula is escaped."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([c.title for c in table.columns])
    for row in table.rows:
        writer.writerow(
            [
                escape_spreadsheet_cell(cell.value) if cell.number is None else cell.number
                for cell in row
            ]
        )
    return text.getvalue()


def escape_markdown(text: str) -> str:
    r"""Return ``text`` on one line, with Markdown markup and control characters escaped.

    Example:
        >>> print(escape_markdown("a|b [c] [0.1, 0.2]"))
        a\|b \[c\] [0.1, 0.2]
    """
    text = printable(" ".join(text.split()))
    return re.sub(
        rf"({_INTERVAL_PATTERN})|([\\`*\[\]|<])", lambda found: found[1] or f"\\{found[2]}", text
    )


def code_block(lines: Iterable[str]) -> str:
    """Return lines as an indented Markdown code block."""
    return "\n".join(f"    {printable(line)}" for text in lines for line in text.split("\n"))


def bullet_list(lines: Iterable[str]) -> str:
    """Return sentences as a Markdown list."""
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


@dataclass(frozen=True)
class Note:
    """An explanatory sentence, shown below another block."""

    text: str


Block = str | Note | Table


def print_blocks(
    blocks: Iterable[Block],
    *,
    details: bool = False,
    as_markdown: bool = False,
    on: Console | None = None,
) -> None:
    """Print sentences, notes and tables to the terminal.

    Args:
        blocks: In their order.
        details: Print the further lines of cells, such as intervals.
        as_markdown: Print tables as Markdown, and do not wrap lines.
        on: A ``rich.console.Console``; None makes one on standard output.
    """
    for block in blocks:
        if isinstance(block, Table) and as_markdown:
            print_lines(
                escape_markdown(block.title),
                "",
                *markdown_table(block).split("\n"),
                "",
                *block.notes,
                on=on,
            )
        elif isinstance(block, Table):
            print_renderable(terminal_table(block, details=details), on=on)
        elif isinstance(block, Note):
            print_lines(block.text, style="dim", wrap=not as_markdown, on=on)
        else:
            print_lines(block, wrap=not as_markdown, on=on)


def blocks_to_text(blocks: Iterable[Block], *, details: bool = False) -> str:
    """Return blocks as the text that :func:`print_blocks` prints."""
    text = io.StringIO()
    print_blocks(blocks, details=details, on=console(text=text))
    return text.getvalue().rstrip("\n")
