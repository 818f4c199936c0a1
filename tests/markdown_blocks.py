"""Fenced blocks of the documentation, and what an HTML comment before one says about running it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
RESULTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "results").rglob("*.md"))
OUTSIDE = ["README.md", "CONTRIBUTING.md", *RESULTS]
"""Their commands are checked but not run, and other tests run their code."""

DRAWINGS = {
    ("docs/architecture.md", 1): "the rooms in the order of imports",
    ("docs/architecture.md", 2): "the flow of data",
}
"""Fences without a language, by page and place on it: no code."""

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(\w*)(.*)$")
_MARKER = re.compile(r"^<!-- (not run|parsed only|exits with)(?::)? (.+) -->$")
_PAGE_MARKER = re.compile(r"^<!-- commands of this page are parsed only: (.+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its page, relative to the repository.
        line: Where it begins, from 1.
        place: Which block of the page it is, from 1.
        language: ``python``, ``console``, ...; empty for none.
        title: Name of the file that it is, if it is one.
        text: What stands in it.
        marker: ``"not run"``, ``"parsed only"``, ``"exits with"`` or None.
        said: Reason or exit status that the marker gives.
    """

    page: str
    line: int
    place: int
    language: str
    title: str | None
    text: str
    marker: str | None
    said: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The commands of a console block as words; comments, and variables that are set for one, left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [_without_variables(words) for words in found if words]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order; a fence that is not closed is an error."""
    return blocks_in((ROOT / page).read_text(encoding="utf-8"), page)


def blocks_in(text: str, page: str) -> list[Block]:
    lines, found, at = text.splitlines(), [], 0
    whole = _PAGE_MARKER.search(text)
    while at < len(lines):
        opened = _FENCE.match(lines[at])
        if opened is None:
            at += 1
            continue
        indent, fence, language, rest = opened.groups()
        directive = rest.startswith("{")
        end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == fence), None)
        assert end is not None, f"{page}:{at + 1}: the fence is not closed"
        if directive:  # of Sphinx: no code
            at = end + 1
            continue
        title = re.search(r'title="([^"]+)"', rest)
        marker, said = _marker(lines[:at])
        if marker is None and whole is not None and language == "console":
            marker, said = "parsed only", whole[1]
        inside = "\n".join(line.removeprefix(indent) for line in lines[at + 1 : end]) + "\n"
        found.append(
            Block(
                page,
                at + 1,
                len(found) + 1,
                language,
                title[1] if title else None,
                inside,
                marker,
                said,
            )
        )
        at = end + 1
    return found


def _marker(before: list[str]) -> tuple[str | None, str]:
    last = next((line.strip() for line in reversed(before) if line.strip()), "")
    found = _MARKER.match(last)
    assert found or not re.match(r"<!-- (not|parsed|exits)", last), (
        f"a marker that says nothing: {last}"
    )
    return (found[1], found[2]) if found else (None, "")


def _without_variables(words: list[str]) -> list[str]:
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words
