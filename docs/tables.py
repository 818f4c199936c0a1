"""Fills the tables of the documentation: ``python docs/tables.py`` rewrites the text between the markers.

A Markdown file marks a place with ``<!-- fedlas list KIND -->`` and ``<!-- end -->``.
"""

import re
from pathlib import Path

from fedlas.cli.listing import listing

_PLACE = re.compile(r"(<!-- fedlas list (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """``text`` with its tables up to date."""
    return _PLACE.sub(
        lambda found: f"{found[1]}\n{listing(found[2]).markdown()}\n\n{found[3]}", text
    )


if __name__ == "__main__":
    for page in sorted(Path(__file__).parent.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
