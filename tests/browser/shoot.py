"""Screenshots of pages as people see them first: desktop and phone, light and dark.

    python tests/browser/shoot.py PAGE.html [PAGE.html ...] [--out shots]

Writes NAME-light-1280.png, NAME-dark-1280.png, NAME-light-390.png and NAME-dark-390.png of each page; NAME is that of
its folder and file. Chromium is $FEDLAS_CHROMIUM, or the first on the PATH.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

HEIGHTS = {1280: 800, 390: 844}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def shoot(browser, page, out):
    """The four files of a page."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for width, height in HEIGHTS.items():
        for theme in ("light", "dark"):
            opened = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=theme
            )
            opened.goto(page.resolve().as_uri())
            made.append(out / f"{page.resolve().parent.name}-{page.stem}-{theme}-{width}.png")
            opened.screenshot(path=made[-1])
            opened.close()
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE.html")
    parser.add_argument("--out", type=Path, default=Path("shots"))
    options = parser.parse_args()
    program = os.environ.get("FEDLAS_CHROMIUM") or next(
        filter(None, map(shutil.which, PROGRAMS)), None
    )
    if program is None:
        sys.exit("there is no Chromium: install it, or name it in FEDLAS_CHROMIUM")
    if missing := [str(page) for page in options.pages if not page.is_file()]:
        sys.exit(f"no such page: {', '.join(missing)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for page in options.pages:
            print(*shoot(browser, page, options.out), sep="\n")


if __name__ == "__main__":
    main()
