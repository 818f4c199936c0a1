"""The machine's own Chromium, and the pages it opens."""

import os
import shutil

import pytest

from browser.made import make_pages

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def missing(reason):
    """A user without a browser skips these tests; CI may not."""
    if "FEDLAS_CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window: the one in $FEDLAS_CHROMIUM, or the first on the PATH."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed: pip install 'fedlas[test]'")
    program = os.environ.get("FEDLAS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing("there is no Chromium: apt-get install chromium, or name it in FEDLAS_CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def folder(browser, tmp_path_factory):
    """Folder of all pages. Test processes side by side share it; without a browser nothing is made."""
    base = tmp_path_factory.getbasetemp()
    return make_pages((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pages")
