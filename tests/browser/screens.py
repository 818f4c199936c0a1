"""Opening a page in Chromium as a person would see it, and asking what is wrong with it."""

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

RULES = "\n".join(
    (Path(__file__).parent / "rules" / f"{name}.js").read_text(encoding="utf-8")
    for name in ("visible", "colors", "layout", "structure", "figures", "audit")
)
HEIGHT = 900
PAPER = 703
"""Pixels between the margins of an A4 page, 210 - 2 x 12 mm."""


@dataclass(frozen=True)
class Screen:
    """A theme and a width in pixels; up to 500 it is a phone."""

    theme: str
    width: int

    @property
    def phone(self):
        return self.width <= 500

    def __str__(self):
        return f"{self.theme}-{self.width}"


SCREENS = [Screen(theme, width) for theme in ("light", "dark") for width in (1280, 390)]


class Opened:
    """An open page and everything that went wrong while it was."""

    def __init__(self, page, screen, inside):
        self.page, self.screen, self.faults = page, screen, []
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._hear)
        page.route("**/*", lambda route: self._answer(route, inside))

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _answer(self, route, inside):
        if route.request.url.startswith((inside, "data:", "blob:")):
            route.continue_()
        else:
            self.faults.append(f"outside: {route.request.url}")
            route.abort()

    def wear(self, theme):
        """Change the theme of the system while the page is open."""
        self.screen = replace(self.screen, theme=theme)
        self.page.emulate_media(color_scheme=theme)

    def audit(self, *, printed=False):
        """What the rules find, and the faults so far."""
        screen = self.screen
        width = PAPER if printed else screen.width
        if printed:
            self.page.emulate_media(media="print")
            self.page.set_viewport_size({"width": PAPER, "height": HEIGHT})
        options = {"theme": screen.theme, "width": width, "phone": screen.phone, "print": printed}
        return self.faults + self.page.evaluate(
            f"(options) => {{ {RULES}\n return audit(options); }}", options
        )

    def open_all(self):
        """Open every folded part by a click on its head, and check that it opens."""
        for i, details in enumerate(
            self.page.locator("details:visible:not([open])").element_handles()
        ):
            details.query_selector("summary").click()
            assert details.get_attribute("open") is not None, f"folded part {i} stays shut"

    def picture(self, name):
        """A picture of the whole page, in $FEDLAS_SCREENSHOTS if that is set."""
        if folder := os.environ.get("FEDLAS_SCREENSHOTS"):
            path = (
                Path(folder) / f"{name.removesuffix('.html').replace('/', '_')}-{self.screen}.png"
            )
            self.page.screenshot(path=path, full_page=True)


@contextmanager
def opened(browser, address, screen, *, inside=None):
    """The page at ``address``; requests of anything that does not begin with ``inside`` are refused and noted.

    Args:
        browser: Of playwright.
        address: Of the page.
        screen: How large, and in which theme.
        inside: None is the folder of the page.
    """
    context = browser.new_context(
        viewport={"width": screen.width, "height": HEIGHT},
        color_scheme=screen.theme,
        is_mobile=screen.phone,
        has_touch=screen.phone,
        reduced_motion="reduce",
    )
    # a busy machine may take longer than playwright's 30 seconds
    context.set_default_timeout(300_000)
    try:
        page = context.new_page()
        there = Opened(page, screen, inside or address.rsplit("/", 1)[0])
        page.goto(address, wait_until="load")
        yield there
    finally:
        context.close()


def broken_links(page, folder, address=None):
    """Links of an open page whose target, file or anchor, is not there; those to other hosts are not followed.

    Args:
        page: Of playwright.
        folder: What no other link may lead out of.
        address: Under which a server shows ``folder``; None is from disk.
    """
    root = f"{(address or folder.as_uri()).rstrip('/')}/"
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    return [link for link in dict.fromkeys(links) if not _leads_somewhere(link, folder, root)]


def _leads_somewhere(link, folder, root):
    bare, anchor = urldefrag(link)
    if not bare.startswith(root):
        return urlsplit(bare).scheme in ("http", "https", "mailto") and not root.startswith(bare)
    target = folder / unquote(bare.removeprefix(root))
    if target.is_dir() and root.startswith("http"):
        target /= "index.html"
    if not target.exists():
        return False
    return not anchor or f'id="{unquote(anchor)}"' in target.read_text(encoding="utf-8")
