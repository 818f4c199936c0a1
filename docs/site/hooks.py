"""What MkDocs calls while it builds the site: pages from outside ``docs/``, figures, links, the command line.

Figures and the reference are made at each build and never committed, so they cannot be older than the code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_line import command_line
from figures import FIGURES, draw
from links import PAGES, ROOT, for_site, outside_code
from mkdocs.structure.files import File

_FIGURE = re.compile(r"!\[([^\]]*)\]\(((?:\.\./)?)figures/([a-z0-9-]+)\.svg\)")
_COMMAND_LINE = "<!-- the command line, from its parsers -->"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that stand elsewhere in the repository, and the figures, each for light and dark pages."""
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(
                File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8"))
            )
    for path in sorted((ROOT / "results").glob("*/*.svg")):
        name, content = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=content))
    for name in FIGURES:
        for theme in ("light", "dark"):
            files.append(
                File.generated(config, f"figures/{name}-{theme}.svg", content=draw(name, theme))
            )
    return files


def on_page_markdown(markdown: str, page: Any, **_kwargs: Any) -> str:
    """Links, figures and the reference of one page."""
    uri = page.file.src_uri
    source = next(
        (path for path, name in PAGES.items() if name == uri and page.file.generated_by),
        f"docs/{uri}",
    )
    text = for_site(markdown, source, uri)
    text = outside_code(text, lambda part: _FIGURE.sub(_two_themes, part))
    return text.replace(_COMMAND_LINE, command_line()) if _COMMAND_LINE in text else text


def on_post_build(config: Any) -> None:
    """Write the search index as a script too: a page that was opened from disk may not fetch it."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")


def _two_themes(found: re.Match[str]) -> str:
    words, up, name = found.groups()
    return "".join(
        f"![{words}]({up}figures/{name}-{theme}.svg#only-{theme})" for theme in ("light", "dark")
    )
