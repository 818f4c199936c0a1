"""Links of the repository's Markdown files, made to work on the site.

In the repository a page links to files beside it: ``../examples/plain_pytorch.py``, ``../CHANGELOG.md``. The site has
some of them as pages, shows the source of the examples on one, and has no place for the others: of those it gives the
path. A link to what does not exist stays unchanged, so that a strict build fails on it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "results/README.md": "results.md",
    **{
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT)
        .as_posix()
        .replace("README.md", "overview.md")
        for path in sorted((ROOT / "results").rglob("*.md"))
        if path.parent.name != "results" or path.name != "README.md"
    },
    "README.md": "index.md",
}
"""Files of the repository that are pages of the site, and which; what ``README.md`` says, the first page says too."""
WITH_EXAMPLES = "integrations.md"
"""The page that shows the source of every example."""

_FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2[ \t]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_WHOLE_EXAMPLE = re.compile(r"^\[([^\]]+)\]\(\.\./(examples/(\w+)\.py)\)$", re.MULTILINE)


def for_site(text: str, source: str, page: str) -> str:
    """``text`` with links that work on the site.

    Args:
        text: Markdown.
        source: Where it stands in the repository, e.g. ``docs/methods.md``.
        page: What it is on the site, e.g. ``methods.md``.
    """
    if page == WITH_EXAMPLES:
        text = _WHOLE_EXAMPLE.sub(_source_of, text)
    return outside_code(
        text, lambda part: _LINK.sub(lambda found: _link(found[1], found[2], source, page), part)
    )


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """``text`` with everything but its fenced blocks changed."""
    parts, end = [], 0
    for block in _FENCED.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def _source_of(found: re.Match[str]) -> str:
    code = (ROOT / found[2]).read_text(encoding="utf-8").rstrip()
    return (
        f'<details class="example" id="{found[3]}" markdown="1"><summary>{found[1]} ({found[2]})</summary>\n\n'
        f"````python\n{code}\n````\n\n</details>"
    )


def _link(text: str, target: str, source: str, page: str) -> str:
    as_it_was = f"[{text}]({target})"
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return as_it_was
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    anchor = f"#{anchor}" if anchor else ""
    here = posixpath.dirname(page)
    if place in PAGES:
        return f"[{text}]({posixpath.relpath(PAGES[place], here or '.')}{anchor})"
    if place.startswith("docs/"):
        return f"[{text}]({posixpath.relpath(place.removeprefix('docs/'), here or '.')}{anchor})"
    if not (ROOT / place).exists():
        return as_it_was
    if place.startswith("examples/") and place.endswith(".py"):
        return f"[{text}]({posixpath.relpath(WITH_EXAMPLES, here or '.')}#{Path(place).stem})"
    return text if place in text.replace("`", "") else f"{text} (`{place}` in the repository)"
