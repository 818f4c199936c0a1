"""The Python of README and documentation is what a type checker lets a user write."""

import re

import pytest

from markdown_blocks import PAGES, ROOT, blocks_of

api = pytest.importorskip("mypy.api")

PLACEHOLDERS = ("name-defined", "used-before-def", "has-type", "no-redef")
"""Pages use names such as ``model`` that stand for the user's own."""
OTHERS = ("SubFigure", '"Tensor" not callable', "tuple[Tensor, Tensor]")
"""Types of matplotlib and torch that are wider than the values, and one error that a page shows on purpose."""


@pytest.mark.system
def test_snippets_have_the_types_that_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    for page in (*PAGES, "README.md"):
        blocks = [block for block in blocks_of(page) if block.language == "python"]
        text = "\n".join(f"# {block.where}\n{block.text}" for block in blocks)
        (tmp_path / f"page_{re.sub(r'[^a-z]', '_', page[:-3].lower())}.py").write_text(text)
    options = [
        "--config-file=",
        "--ignore-missing-imports",
        "--follow-imports=silent",
        "--allow-redefinition-new",
    ]
    options += ["--local-partial-types", f"--cache-dir={ROOT / '.mypy_cache' / 'docs'}"]
    options += [f"--disable-error-code={code}" for code in PLACEHOLDERS]
    found, problems, _ = api.run([*options, *map(str, sorted(tmp_path.glob("page_*.py")))])
    lines = [
        line
        for line in found.splitlines()
        if ": error:" in line and not any(text in line for text in OTHERS)
    ]
    assert "\n".join(lines) == ""
    assert "Success" in found or ": error:" in found, problems
