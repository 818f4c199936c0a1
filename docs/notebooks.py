"""Makes notebooks of pages of the documentation: ``python docs/notebooks.py`` writes them to ``examples/``.

The tests run the blocks of the pages, so a notebook holds no code that is not tested, and no output of one machine.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

DOCS = Path(__file__).parent
NOTEBOOKS = {
    "start.md": "get-started.ipynb",
    "reliability-diagram.md": "reliability-diagrams.ipynb",
}
"""Name in ``examples/`` by page."""

_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
# Figures are drawn when the site is built, so a notebook has none to show.
_LEFT_OUT = re.compile(
    r"^<div.*?</div>\n|^!\[.*?\)\n|^<p class=\"caption\">.*?</p>\n|^<!--.*?-->\n",
    re.MULTILINE | re.DOTALL,
)


def notebook(page: str) -> str:
    """The notebook of a page, as the text of its file."""
    text = (DOCS / page).read_text(encoding="utf-8")
    cells: list[Any] = []
    at = 0
    for block in [*_BLOCK.finditer(text), None]:
        words = _LEFT_OUT.sub("", text[at : block.start() if block else len(text)])
        words = (
            re.sub(r"\]\((?!http|#)([\w./-]+\.md)", r"](../docs/\1", words)
            .replace("../docs/../", "../")
            .strip()
        )
        if words:
            cells.append(
                new_markdown_cell(re.sub(r"\n{3,}", "\n\n", words), id=f"cell-{len(cells)}")
            )
        if block:
            language, code = block.groups()
            lines = code.rstrip("\n").split("\n")
            # A notebook runs in its own folder, so the repository is the one above.
            commands = (
                f"!{line}".replace("pip install .", "pip install ..").replace("'.[", "'..[")
                for line in lines
            )
            shown = code if language == "python" else "\n".join(commands)
            cells.append(new_code_cell(shown.rstrip("\n"), id=f"cell-{len(cells)}"))
            at = block.end()
    made = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    nbformat.validate(made)
    return str(nbformat.writes(made)) + "\n"


if __name__ == "__main__":
    for page, name in NOTEBOOKS.items():
        (DOCS.parent / "examples" / name).write_text(notebook(page), encoding="utf-8")
