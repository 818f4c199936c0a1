"""Fills the tables of the documentation: ``python docs/tables.py`` rewrites the text between the markers.

A Markdown file marks a place with ``<!-- fedlas list KIND -->`` and ``<!-- end -->``; with
``KIND first`` it has the recommended rows, with ``KIND others`` the rest.
"""

import re
from pathlib import Path

from fedlas.cli.listing import list_kind

RECOMMENDED = {
    "losses": "ce ls mbls fedlas fedlas+ tempered-past controlled",
    "calibrators": "auto temperature structured spline bcts matrix dirichlet vector platt beta isotonic venn-abers",
    "metrics": "nll brier ece smooth_ece accuracy classwise_ece aurc",
    "uncertainty": "deep-ensemble last-layer-laplace mc-dropout",
    "ood": "knn",
}
"""Rows that a table of this kind shows first, in the order in which the page above it recommends them."""
_PLACE = re.compile(r"(<!-- fedlas list (\w+)( first| others)? -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """``text`` with its tables up to date."""
    return _PLACE.sub(
        lambda found: f"{found[1]}\n{_table(found[2], (found[3] or '').strip())}\n\n{found[4]}",
        text,
    )


def _table(kind: str, rows_shown: str) -> str:
    """The table of a kind, recommended rows first and the others as they are registered, or one of the two."""
    head, rule, *rows = list_kind(kind).markdown().split("\n")
    first = RECOMMENDED.get(kind, "").split()
    places = {name: place for place, name in enumerate(first)}

    def place(row: str) -> int:
        return places.get(row.split(" | ")[0].removeprefix("| ").strip(), len(first))

    rows.sort(key=place)
    if rows_shown:
        rows = [row for row in rows if (place(row) < len(first)) == (rows_shown == "first")]
    return "\n".join([head, rule, *rows])


if __name__ == "__main__":
    for page in sorted(Path(__file__).parent.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
