"""The machine's own Chromium, and the pages it opens."""

import importlib.util
import os
import shutil

import pytest

from browser.made import make_pages
from browser.shoot import PROGRAMS


def missing(reason):
    """A user without a browser skips these tests; CI may not."""
    if "FEDLAS_CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium():
    """Where Chromium is: $FEDLAS_CHROMIUM, or the first on the PATH."""
    if importlib.util.find_spec("playwright") is None:
        missing("playwright is not installed: pip install 'fedlas[test]'")
    program = os.environ.get("FEDLAS_CHROMIUM") or next(
        filter(None, map(shutil.which, PROGRAMS)), None
    )
    if program is None:
        missing("there is no Chromium: apt-get install chromium, or name it in FEDLAS_CHROMIUM")
    return program


@pytest.fixture(scope="module")
def browser(chromium):
    """Chromium without a window. It ends with the module: while playwright runs, other tests cannot use asyncio."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"], timeout=300_000
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def folder(chromium, once):
    """Folder of all pages; without a browser nothing is made."""
    return once("pages", make_pages)
