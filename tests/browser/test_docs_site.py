"""The documentation site, built by mkdocs and served on this machine."""

import functools
import http.server
import threading

import pytest

from browser.screens import SCREENS, Screen, broken_links, opened

pytestmark = pytest.mark.system

PAGES = (
    "index.html",
    "method.html",
    "methods.html",
    "troubleshooting.html",
    "reliability-diagram.html",
    "reference/command-line.html",
    "reference/diagnose.html",
    "results/fashion-mnist/overview.html",
)
DESK, PHONE = SCREENS[0], Screen("light", 390)


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
    with opened(browser, root + "index.html", screen, inside=root) as there:
        page = there.page
        if screen.phone:
            page.locator("label.md-header__button[for=__search]").click()
        # The search refuses a first letter alone, which a loaded machine may ask it for.
        page.locator("input.md-search__input").fill("isotoni")
        page.locator("input.md-search__input").press("c")
        first = page.locator(".md-search-result__link").first
        first.wait_for(timeout=20_000)
        first.click()
        page.wait_for_url(lambda url: "index.html" not in url)
        assert "isotonic" in page.locator("article").inner_text().lower()
        assert there.faults == []


def test_the_theme_can_be_chosen_and_stays(browser, site):
    light, dark = "default", "slate"
    with opened(browser, site + "index.html", DESK, inside=site) as there:
        page = there.page
        scheme = "document.body.getAttribute('data-md-color-scheme')"
        assert page.evaluate(scheme) == light
        seen = []
        for _ in range(3):
            page.locator("form[data-md-component=palette] label:visible").click()
            seen.append(page.evaluate(scheme))
            if seen[-1] == dark:
                page.goto(site + "method.html")
                assert page.evaluate(scheme) == dark
        assert set(seen) == {light, dark}


def test_the_menu_of_a_phone_leads_to_every_part(browser, site):
    with opened(browser, site + "index.html", PHONE, inside=site) as there:
        page = there.page
        page.locator("label.md-header__button[for=__drawer]").click()
        page.locator("nav.md-nav--primary").get_by_text("Reference", exact=True).first.click()
        page.locator("article").get_by_role("link", name="fedlas.stats", exact=True).click()
        page.wait_for_url("**/reference/stats.html")
        assert page.locator("h1").inner_text().startswith("fedlas.stats")
        assert there.faults == []


def test_code_is_copied(browser, site):
    with opened(browser, site + "index.html", DESK, inside=site) as there:
        page = there.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        code = page.locator("pre > code").first
        code.hover()
        page.locator(".md-clipboard, [data-md-type=copy]").first.click()
        page.wait_for_function("navigator.clipboard.readText().then(text => text.length > 0)")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == code.inner_text().strip()
