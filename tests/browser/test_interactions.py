"""What can be clicked, folded and scrolled in the pages does what it promises."""

import struct

import pytest

from browser.screens import SCREENS, Screen, opened
from browser.shoot import shoot

pytestmark = pytest.mark.system

DESK, PHONE = SCREENS[0], Screen("dark", 390)
NARROW = Screen("dark", 490)  # on a phone that is held upright, tables stack instead
FOLDED = (
    "digits/report.html",
    "digits/diagnose.html",
    "evaluated/all.html",
)
SHOWN = "element => element.checkVisibility({contentVisibilityAuto: true})"


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=str)
@pytest.mark.parametrize("name", FOLDED)
def test_parts_unfold_and_fold_by_mouse_and_keyboard(browser, folder, name, screen):
    with opened(browser, (folder / name).as_uri(), screen) as there:
        parts = there.page.locator("details:visible:not([open])")
        assert parts.count()
        for part in parts.element_handles()[:4]:
            head, content = (
                part.query_selector("summary"),
                part.query_selector(":scope > :not(summary)"),
            )
            assert not content.evaluate(SHOWN)
            head.click()
            assert content.evaluate(SHOWN)
            head.press("Enter")
            assert not content.evaluate(SHOWN)


def test_the_report_leads_to_an_error_and_its_problems(browser, folder):
    with opened(browser, (folder / "digits/report.html").as_uri(), DESK) as there:
        page = there.page
        page.get_by_text("runs, with their files").click()
        page.get_by_role("link", name="error.txt").click()
        assert "must stay finite" in page.locator("body").inner_text()
        page.go_back()
        page.get_by_role("link", name="runs without numbers").click()
        page.wait_for_function(
            "document.querySelector('#problems').getBoundingClientRect().top < innerHeight"
        )
        assert there.faults == []


def test_columns_are_chosen_without_a_script(browser, folder):
    with opened(browser, (folder / "digits/report.html").as_uri(), DESK) as there:
        page = there.page
        page.locator("summary", has_text="Before temperature scaling").first.click()
        page.locator("summary", has_text="Choose columns").first.click()
        head = page.locator(".choose th", has_text="Smooth ECE").first
        assert not head.is_visible()
        page.locator(".columns label", has_text="Smooth ECE").first.locator("input").check()
        assert head.is_visible()
        assert there.faults == []


@pytest.mark.parametrize("name", [*FOLDED, "ood/scores/ood.html", "digits/fedlas-s0/card.html"])
def test_what_scrolls_sideways_is_reached_by_keyboard(browser, folder, name):
    """In a narrow window; the first column stays where it is."""
    with opened(browser, (folder / name).as_uri(), NARROW) as there:
        there.open_all()
        boxes = there.page.locator(".scroll").element_handles()
        wide = [box for box in boxes if box.evaluate("e => e.scrollWidth > e.clientWidth + 40")]
        assert wide
        for box in wide[:3]:
            box.focus()
            assert box.evaluate("e => document.activeElement === e")
            first = box.query_selector("tbody th:first-child")
            before = first.bounding_box()["x"]
            box.press("ArrowRight")
            there.page.wait_for_function("e => e.scrollLeft > 20", arg=box)
            box.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
            assert abs(first.bounding_box()["x"] - before) < 2


def test_screenshots_are_those_of_four_screens(browser, folder, tmp_path):
    made = shoot(browser, folder / "digits/report.html", tmp_path)
    assert [path.stem for path in made] == [
        f"digits-report-{theme}-{width}" for width in (1280, 390) for theme in ("light", "dark")
    ]
    sizes = {struct.unpack(">II", path.read_bytes()[16:24]) for path in made}  # of the PNG's header
    assert sizes == {(1280, 800), (390, 844)}
    assert len({path.read_bytes() for path in made}) == 4
