"""Building blocks of all pages: templates, page files, and figures as inline SVG that follow the page's theme."""

from __future__ import annotations

import base64
import functools
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fedlas
from fedlas._core.check import InputError
from fedlas._core.extras import require, require_all
from fedlas._core.files import write_atomically, write_text
from fedlas._core.outputs import FileKind, marked_kind
from fedlas._core.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fedlas.plots import Theme
    from fedlas.plots.theme import Axes
    from fedlas.predictions.any_predictions import AnyPredictions

ROOM = "fedlas.present"
"""Package whose templates every page may extend."""
MAX_FIGURE_WIDTH = 3.7
"""Inches of a figure: on the 340 pixels of a phone, labels of 8 points are 10 pixels; in a wider one, unreadable."""


@dataclass(frozen=True)
class QuestionAnswer:
    """Question, such as ``"Accuracy"``, and its answer in one sentence."""

    question: str
    text: str


def creation_note(period: str = "") -> str:
    """Return a sentence with the date, the fedlas version and the period of the samples."""
    samples = f"; samples of {period}" if period else ""
    return (
        f"Made on {datetime.now(UTC).date().isoformat()} by fedlas {fedlas.__version__}{samples}."
    )


def require_page_packages() -> None:
    """Raise MissingExtraError if a package that pages need is not installed.

    Raises:
        MissingExtraError: If a package is not installed.
    """
    require_all(("jinja2", "tables"), ("matplotlib.figure", "tables"))


_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)


_KIND_PATTERN = re.compile(r'<meta name="generator" content="(fedlas \w+)">')
_HEAD_BYTES, _TAIL_BYTES = 2_000, 100
"""Bytes of a page, and of a printed one, that say its kind."""


def page_kind(name: str, noun: str) -> FileKind:
    """Return the file kind of the pages that a template makes, as HTML or PDF."""

    def is_page(path: Path) -> bool:
        if path.suffix.lower() != ".pdf":
            with path.open(encoding="utf-8") as file:
                mark = _KIND_PATTERN.search(file.read(_HEAD_BYTES))
            return mark is not None and mark[1] == f"fedlas {name}"
        with path.open("rb") as pages:
            pages.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return pages.read().endswith(f"\n%fedlas {name}\n".encode())

    return FileKind(noun, is_page, (".html", ".htm", ".pdf"))


EVALUATION_PAGE = page_kind("evaluation", "a page of fedlas evaluate")
MONITOR_PAGE = page_kind("monitor", "a page of fedlas monitor")
HISTORY_PAGE = page_kind("history", "the page of a history")
CARD_PAGE = page_kind("card", "the page of a card")
DIAGNOSE_PAGE = page_kind("diagnose", "a report of fedlas runs diagnose")
OOD_PAGE = page_kind("ood", "a report of fedlas runs ood")
_CREATOR = "drawn by fedlas"
PICTURE_KIND = marked_kind("a picture of fedlas", _CREATOR.encode())


def check_page_output(output: Path) -> None:
    """Check that a page can be written to ``output`` before the work: packages are installed, and a browser for a PDF.

    Raises:
        InputError: If the name ends in ``.pdf`` and there is no browser to print it.
        MissingExtraError: If a package is not installed.
    """
    if output.suffix.lower() == ".pdf" and _find_browser() is None:
        fix = f"Write {output.with_suffix('.html')}, open it and print the page."
        raise InputError("a .pdf requires Chromium, Chrome or Edge on the PATH", "none", fix)
    require_page_packages()


def write_page(path: Path, page: str) -> Path:
    """Write a page as HTML, or as PDF printed by a browser.

    Raises:
        InputError: If it cannot be written, or the browser cannot print it.
    """
    if path.suffix.lower() != ".pdf":
        return write_text(path, page)
    browser = _find_browser()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "page.html")
        printed = source.with_suffix(".pdf")
        source.write_text(page, encoding="utf-8")
        command = [str(browser), "--headless", "--disable-gpu", "--no-pdf-header-footer"]
        # As root Chromium refuses its sandbox; the page is our own, and its policy forbids scripts and the network.
        command += ["--no-sandbox"] if getattr(os, "geteuid", int)() == 0 else []
        command += [
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={printed}",
            source.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not printed.is_file():
            reason = " ".join(done.stderr.split())[-200:]
            fix = f"Write {path.with_suffix('.html')}, open it and print the page."
            raise InputError(
                "the browser must be able to print the page", f"{browser}: {reason}", fix
            )
        kind = _KIND_PATTERN.search(page)
        mark = f"\n%{kind[1]}\n" if kind else ""  # a comment, which says that it may be replaced
        return write_atomically(path, lambda file: file.write(printed.read_bytes() + mark.encode()))


def _find_browser() -> str | None:
    """Return the first installed browser that can print pages, or None."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def render(template: str, *, package: str = ROOM, **context: Any) -> str:
    """Render a template; values are escaped, and a missing value is an error.

    Control and format characters other than line breaks are written out.

    Args:
        template: Name of the template.
        package: Package whose ``templates`` hold it; it may extend those of this package.
        **context: Values by name.
    """
    about = {"made": "", "kind": template.partition(".")[0], **context}
    page: str = _template_environment(package).get_template(template).render(**about)
    return page


def _template_environment(package: str) -> Any:
    from fedlas.plots import DARK, LIGHT

    jinja = require("jinja2", extra="tables")
    loaders = [jinja.PackageLoader(name, "templates") for name in dict.fromkeys((package, ROOM))]
    environment = jinja.Environment(
        loader=jinja.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        finalize=_to_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(light=_css_variables(LIGHT), dark=_css_variables(DARK))
    return environment


def _to_printable(value: object) -> Any:
    """Return text with control characters escaped; subclasses of ``str``, such as markup, are returned unchanged."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def new_page_axes(width: float = MAX_FIGURE_WIDTH, height: float = 2.9) -> Any:
    """Return new Axes in the light palette, to draw on for :func:`to_inline_svg`."""
    from fedlas.plots import LIGHT, new_axes

    return new_axes(LIGHT, size=(width, height))


def to_inline_svg(ax: Axes, alt: str) -> Any:
    """Return the figure of ``ax`` as inline SVG, with colors as variables of the page's stylesheet.

    Args:
        ax: Axes in the light palette, see :func:`new_page_axes`.
        alt: Alternative text for screen readers.

    Returns:
        Markup for a template. Text stays text, so that it can be searched and needs no outlines.
    """
    return require("markupsafe", extra="tables").Markup(_to_svg(ax, alt))


def to_themed_svg(ax: Axes, alt: str) -> str:
    """Return the figure of ``ax`` as a standalone SVG whose colors follow the reader's theme.

    Args:
        ax: As for :func:`to_inline_svg`.
        alt: Alternative text.
    """
    from fedlas.plots import DARK, LIGHT

    light, dark = (
        ";".join(f"--{name}:{color}" for name, color in _css_variables(theme).items())
        for theme in (LIGHT, DARK)
    )
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    svg = _to_svg(ax, alt)
    width, height = (
        float(size) for size in svg.split('viewBox="', 1)[1].split('"', 1)[0].split()[2:]
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace(
        "<svg", f'<svg {names} width="{width:.0f}pt" height="{height:.0f}pt"', 1
    ).replace(">", f">{style}", 1)


def _to_svg(ax: Axes, alt: str) -> str:
    picture: Any = ax.figure
    buffer = io.BytesIO()
    _save_reproducibly(picture, buffer, "svg", {"svg.fonttype": "none"})
    return _adapt_svg(buffer.getvalue().decode("utf-8"), alt)


def reliability_svg(
    name: str,
    predictions: AnyPredictions,
    num_bins: int,
    *,
    band: bool = False,
    themed: bool = False,
) -> Any:
    """Draw a small reliability diagram titled ``name``, as SVG.

    Args:
        name: Title.
        predictions: The predictions.
        num_bins: Number of bins.
        band: Whether to draw the consistency band.
        themed: Whether to return a standalone SVG for a notebook, instead of markup for a template.
    """
    from fedlas.plots import reliability_diagram

    options: dict[str, Any] = {"title": name, "legend": False, "band": band, "shares": False}
    ax = reliability_diagram(predictions, num_bins=num_bins, ax=new_page_axes(3.1, 3.3), **options)
    return (to_themed_svg if themed else to_inline_svg)(ax, f"Reliability diagram of {name}")


def reliability_image(name: str, predictions: AnyPredictions, num_bins: int) -> str:
    """Return an HTML image of a reliability diagram with its consistency band, for a notebook."""
    picture = reliability_svg(name, predictions, num_bins, band=True, themed=True)
    content = base64.b64encode(picture.encode()).decode()
    return f'<img style="width: 20em" alt="Reliability diagram" src="data:image/svg+xml;base64,{content}">'


def write_picture(picture: Figure, path: Path) -> Path:
    """Write a matplotlib figure to ``path``, with reproducible bytes.

    Raises:
        InputError: If the end of the name is no kind of picture, or the folder cannot be written to.
    """
    kinds = picture.canvas.get_supported_filetypes()
    kind = path.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise InputError(
            "the file name must end in an image format",
            path.name,
            f"Use one of {', '.join(sorted(kinds))}.",
        )
    return write_atomically(path, lambda file: _save_reproducibly(picture, file, kind, {}))


def _save_reproducibly(
    picture: Figure, file: IO[bytes], kind: str, settings: dict[str, Any]
) -> None:
    # The salt and the missing date make the same runs give the same bytes. Settings belong to the whole process.
    with (
        _SETTINGS_LOCK,
        require("matplotlib", extra="tables").rc_context({"svg.hashsalt": "fedlas", **settings}),
    ):
        about: dict[str, Any] = {
            "svg": {"Date": None, "Creator": _CREATOR},
            "svgz": {"Date": None},
            "pdf": {"CreationDate": None, "Creator": _CREATOR},
            "png": {"Software": _CREATOR},
        }
        picture.savefig(file, format=kind, metadata=about.get(kind), dpi=200)


_SETTINGS_LOCK = threading.Lock()


def _css_variables(theme: Theme) -> dict[str, str]:
    """Return the palette as CSS variables."""
    names = ("background", "ink", "muted", "grid", "bar", "over", "under")
    lines = {f"line-{number}": color for number, color in enumerate(theme.lines)}
    return {name: getattr(theme, name) for name in names} | lines


@functools.cache
def _variables_by_color() -> dict[str, str]:
    """Return the CSS variable of each color of the light palette."""
    from fedlas.plots import LIGHT

    return {color: f"var(--{name})" for name, color in _css_variables(LIGHT).items()}


_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_UNSEEN_PATTERN = re.compile(
    r"<metadata>.*?(?:</metadata>|\Z)|<!--.*?(?:-->|\Z)|<style.*?(?:</style>|\Z)", re.DOTALL
)
_LONG_NUMBER = re.compile(r"(?<!\d)\d+\.\d{3,}")


def _adapt_svg(svg: str, alt: str) -> str:
    """Return matplotlib's SVG without a prolog, with CSS variables for colors and ids unique to the figure."""
    svg = svg[svg.index("<svg") :]
    svg = _UNSEEN_PATTERN.sub("", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    about = f'role="img" aria-label="{escape(printable(alt))}" stroke-linejoin="round"'
    svg = re.sub(r"^<svg[^>]*>", lambda _: f"<svg {about} {view[0] if view else ''}>", svg)

    def restyle(match: re.Match[str]) -> str:
        style = re.sub(
            r"#[0-9a-f]{6}\b", lambda color: _variables_by_color().get(color[0], color[0]), match[0]
        )
        return re.sub(r"'DejaVu Sans'[^;\"]*", _FONT, style)

    svg = re.sub(r'\bstyle="[^"]*"', restyle, svg)
    # Only what something refers to keeps its name, behind a prefix of the figure's own.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    prefix = f"f{sha256((alt + svg).encode()).hexdigest()[:8]}-"
    svg = re.sub(
        r' id="([^"]*)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", svg
    )
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
    # A hundredth of a point is less than anyone sees.
    short = lambda match: _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", match[0])  # noqa: E731
    svg = re.sub(r'\b(?:d|x|y|width|height|transform)="[^"]*"', short, svg)
    return re.sub(r">\s+<", "><", svg).strip()
