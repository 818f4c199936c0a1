"""Every page that the library writes, in Chromium: light and dark, on a desk and on a phone, and on paper."""

from pathlib import Path

import pytest

import fedlas.lab.report
import fedlas.present
from browser.made import PAGES, TEMPLATES
from browser.screens import SCREENS, broken_links, opened

pytestmark = pytest.mark.system


@pytest.mark.parametrize("screen", SCREENS[:2], ids=["desk", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_it_looks_right_and_leads_somewhere(browser, folder, name, screen):
    with opened(browser, (folder / name).as_uri(), screen) as there:
        there.open_all()
        broken = broken_links(there.page, folder)
        found = []
        for theme in ("light", "dark"):
            there.wear(theme)
            there.picture(name)
            found += [f"{theme}: {fault}" for fault in there.audit()]
        if not screen.phone:  # paper is as wide, whoever prints
            for theme in ("dark", "light"):
                there.wear(theme)
                found += [f"{theme}, printed: {fault}" for fault in there.audit(printed=True)]
    assert not found, "\n".join(["", *found])
    assert broken == []


def test_every_page_is_opened(folder):
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.html")} == set(PAGES)


def test_every_template_is_used_by_a_page(folder):
    rooms = [Path(room.__file__).parent for room in (fedlas.lab.report, fedlas.present)]
    templates = {path.name for room in rooms for path in (room / "templates").glob("*.j2")}
    assert templates
    assert (
        templates == set((folder / TEMPLATES).read_text(encoding="utf-8").splitlines()) & templates
    )
