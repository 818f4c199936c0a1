"""Every page that the library writes, in Chromium: light and dark, on a desk and on a phone, and on paper."""

from pathlib import Path

import pytest

import fedlas.bench
from browser.made import PAGES, TEMPLATES
from browser.reported import unreported
from browser.screens import SCREENS, broken_links, opened


@pytest.mark.parametrize("screen", SCREENS, ids=str)
@pytest.mark.parametrize("name", PAGES)
def test_it_looks_right(browser, folder, name, screen):
    with opened(browser, (folder / name).as_uri(), screen) as there:
        there.open_all()
        there.picture(name)
        found = there.audit()
        on_paper = [] if screen.phone else there.audit(printed=True)  # paper is as wide, whoever prints
    faults = unreported(name, found + on_paper)
    assert not faults, "\n".join(["", *faults])


def test_every_page_is_opened(folder):
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")} == set(PAGES)


def test_every_template_is_used_by_a_page(folder):
    templates = Path(fedlas.bench.__file__).parent / "templates"
    whole = {path.name for path in templates.iterdir() if "<!doctype" in path.read_text(encoding="utf-8").lower()}
    assert whole
    assert whole <= set((folder / TEMPLATES).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(browser, folder, name):
    with opened(browser, (folder / name).as_uri(), SCREENS[0]) as there:
        assert broken_links(there.page, folder) == []
