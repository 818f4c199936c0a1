"""The documentation's tables are what the registries say."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def tool(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filled = tool("tables").filled


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert text == filled(text), "run make tables"


def test_there_are_tables():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert text.count("<!-- fedlas list ") == text.count("<!-- end -->") > 4
    assert filled(text.replace("| ce |", "| cee |")) == filled(text)
