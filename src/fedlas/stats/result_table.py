"""Table of named results, printable in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Any, TypeVar

from fedlas._core.extras import require

K = TypeVar("K")
V = TypeVar("V")


class ResultTable(dict[K, V]):
    """Dict of dataclasses that prints as a table, one row per name; fields with tuples are left out."""

    def to_frame(self) -> Any:
        """Return a pandas data frame with one row per name and one column per field."""
        rows = {name: _row_cells(result) for name, result in self.items()}
        return require("pandas", extra="tables").DataFrame.from_dict(rows, orient="index")

    def __str__(self) -> str:
        """Return a table with one line per name and one column per field that has a value."""
        rows = [{"": str(name)} | _row_cells(each) for name, each in self.items()]
        shown = [
            name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)
        ]
        lines = [shown, *([_format_cell(row[name]) for name in shown] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if place else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _repr_html_(self) -> str:
        rows = [{"": name} | _row_cells(each) for name, each in self.items()]
        lines = [list(rows[0]), *(row.values() for row in rows)] if rows else []
        cells = (
            "".join(f"<td>{escape(_format_cell(cell))}</td>" for cell in line) for line in lines
        )
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def _row_cells(result: Any) -> dict[str, Any]:
    return {name: cell for name, cell in asdict(result).items() if not isinstance(cell, tuple)}


def _format_cell(cell: object) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
