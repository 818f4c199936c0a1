"""The documentation site, built by Sphinx and served on this machine."""

import functools
import http.server
import threading

import pytest

from browser.screens import SCREENS, Screen, broken_links, opened

pytestmark = pytest.mark.system

PAGES = (
    "docs/index.html",
    "docs/method.html",
    "docs/calibrators.html",
    "docs/gallery/index.html",
    "docs/gallery/churn.html",
    "docs/troubleshooting.html",
    "docs/reliability-diagram.html",
    "docs/reference/command-line.html",
    "docs/reference/diagnose.html",
    "results/fashion-mnist/README.html",
)
DESK, PHONE = SCREENS[0], Screen("light", 390)
FOCUS = """() => {
  const element = document.activeElement, style = getComputedStyle(element)
  if (element === document.body) return null
  const ring = style.outlineStyle !== "none" || style.boxShadow !== "none"
  const name = element.ariaLabel || element.innerText || element.querySelector("title")?.textContent || ""
  return [name.trim(), ring && element.checkVisibility()]
}"""
"""What has the focus, and whether it can be seen."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(docs_site):
    """Its address while the module's tests run."""
    handler = functools.partial(_Quiet, directory=str(docs_site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("screen", SCREENS, ids=str)
@pytest.mark.parametrize("name", PAGES)
def test_it_looks_right_and_leads_somewhere(browser, docs_site, site, name, screen):
    with opened(browser, site + name, screen, inside=site) as there:
        there.open_all()
        there.picture(f"docs/{name}")
        found = there.audit()
        broken = broken_links(there.page, docs_site, site) if screen == DESK else []
        if not screen.phone:
            found += [f"printed: {fault}" for fault in there.audit(printed=True)]
    assert not found, "\n".join(["", *found])
    assert broken == []


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=str)
@pytest.mark.parametrize("from_disk", [False, True])
def test_search_finds_and_leads_there(browser, docs_site, site, screen, from_disk):
    root = docs_site.as_uri() + "/" if from_disk else site
    with opened(browser, root + "docs/index.html", screen, inside=root) as there:
        page = there.page
        page.keyboard.press("Control+k")
        page.keyboard.type("isotonic")
        page.keyboard.press("Enter")
        first = page.locator("#search-results ul.search a").first
        first.wait_for()
        first.click()
        page.wait_for_url(lambda url: "search.html" not in url)
        assert "isotonic" in page.locator("article").inner_text().lower()
        assert there.faults == []


def test_the_theme_can_be_chosen_and_stays(browser, site):
    with opened(browser, site + "docs/reliability-diagram.html", DESK, inside=site) as there:
        page = there.page
        theme = "document.documentElement.dataset.theme"
        assert page.evaluate(theme) == "light"
        page.locator("button.theme-switch-button:visible").click()
        page.locator("[data-mode=dark]:visible, .theme-switch-button:visible").last.click()
        assert page.evaluate(theme) == "dark"
        # a figure follows the theme of the page, not that of the system
        assert (
            page.evaluate("getComputedStyle(document.querySelector('article img')).colorScheme")
            == "dark"
        )
        page.goto(site + "docs/method.html")
        assert page.evaluate(theme) == "dark"


@pytest.mark.parametrize("name", ["docs/calibrators.html", "docs/gallery/index.html"])
def test_the_keyboard_reaches_everything_and_comes_back(browser, site, name):
    with opened(browser, site + name, DESK, inside=site) as there:
        page, stops = there.page, []
        while len(stops) < 150:
            page.keyboard.press("Tab")
            stop = page.evaluate(FOCUS)
            if stop is None:
                break
            stops.append(stop)
        names = [name for name, _ in stops]
        assert [name for name, seen in stops if not seen] == []
        assert names[0] == "Skip to main content"
        assert "" not in names
        parts = ["Gallery", "Color mode", "Search", "Home", "own" if "gallery" in name else "Next"]
        places = [next(i for i, label in enumerate(names) if part in label) for part in parts]
        assert places == sorted(places)
        assert len(stops) < 150  # it leaves the page, and nothing holds it
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")


def test_dialogs_close_and_give_the_keyboard_back(browser, site):
    name = "document.activeElement.ariaLabel || document.activeElement.innerText"
    with opened(browser, site + "docs/calibrators.html", DESK, inside=site) as there:
        page = there.page
        page.locator(".search-button-field").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.type") == "search"
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert "Search" in page.evaluate(name)
        page.locator("button.theme-switch-button:visible").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        back = "document.activeElement.matches('.theme-switch-button')"
        page.wait_for_function(back, timeout=20_000)
    with opened(browser, site + "docs/calibrators.html", PHONE, inside=site) as there:
        page = there.page
        for button in (".primary-toggle", ".secondary-toggle"):
            page.locator(f"button{button}").focus()
            page.keyboard.press("Enter")
            page.locator("dialog[open]").wait_for()
            page.keyboard.press("Escape")
            page.locator("dialog[open]").wait_for(state="detached")
            assert page.evaluate(f"document.activeElement.matches('{button}')")


def test_the_menu_of_a_phone_leads_to_every_part(browser, site):
    with opened(browser, site + "docs/index.html", PHONE, inside=site) as there:
        page = there.page
        page.locator("button.primary-toggle").click()
        page.get_by_role("dialog").get_by_role("link", name="Reference").click()
        page.locator("article").get_by_role("link", name="fedlas.stats", exact=True).click()
        page.wait_for_url("**/reference/stats.html")
        assert page.locator("h1").inner_text().startswith("fedlas.stats")
        assert there.faults == []


def test_code_is_copied(browser, site):
    with opened(browser, site + "docs/index.html", DESK, inside=site) as there:
        page = there.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        code = page.locator("div.highlight pre").first
        code.hover()
        page.locator("button.copybtn").first.click()
        page.wait_for_function("navigator.clipboard.readText().then(text => text.length > 0)")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == code.inner_text().strip()
