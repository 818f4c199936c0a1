"""The documentation's tables are what the registries say."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LONGEST = 1200
LOOK_UP = ("all-losses.md", "troubleshooting.md")
"""Longer pages, in which one looks something up and does not read from the first line on."""


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_short_enough_to_read(page):
    """One task a page; a second one gets a page of its own, and tables of measurements stand in ``results/``."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"<!-- fedlas list .*?<!-- end -->", "", text, flags=re.DOTALL)
    if page.name in LOOK_UP:
        assert len(text.split()) > LONGEST, "it is short: remove it from LOOK_UP"
    else:
        assert len(prose.split()) <= LONGEST
