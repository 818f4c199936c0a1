"""The table of references in docs/references.md names what there is."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def rows(text):
    """Cells of each row of the tables in ``text``, without heads."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] not in ("name", "work", "---")]


def test_every_reference_has_a_name_that_exists_or_says_why_not():
    references = rows((DOCS / "references.md").read_text(encoding="utf-8"))
    kinds = (
        "losses",
        "all-losses",
        "calibrators",
        "metrics",
        "uncertainty",
        "recipes",
        "data-sets",
    )
    pages = [(DOCS / f"{kind}.md").read_text(encoding="utf-8") for kind in kinds]
    names = {cells[0] for page in pages for cells in rows(page)}
    assert len(references) > 40
    for work, _, here in references:
        assert re.search(r"\d{4}", work), work
        found = re.findall(r"`([^`]+)`", here)
        assert found or here == "not here", work
        for name in found:
            assert name in names or name.startswith(("fedlas.zoo.ood.", "data.")), name
