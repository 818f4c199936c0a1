"""What the pages and pictures of the bench share: template environment, figures in both themes as data URIs, files."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Literal

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import write_atomically
from fedlas._core.terminal import printable
from fedlas.plots import DARK, LIGHT, new_axes, reliability_diagram
from fedlas.predictions import Predictions

ThemeName = Literal["light", "dark"]
MOST_WIDTH = 3.7
"""Inches of a figure: on the 340 pixels of a phone, labels of 8 points are 10 pixels; in a wider one, unreadable."""


@dataclass(frozen=True)
class Picture:
    """A figure in both themes, as data URIs of SVG images, and its description for those who cannot see it."""

    light: str
    dark: str
    alt: str


def require_page_packages() -> None:
    """Import what pages are made with, before work that would be lost without it.

    Raises:
        MissingExtraError: If a package is not installed.
    """
    require("jinja2", extra="bench")
    require("matplotlib.figure", extra="plots")


def render(template: str, **context: Any) -> str:
    """The named template of this package with ``context``; every value is escaped, a missing one is an error.

    Control and format characters other than line breaks are written out.
    """
    jinja = require("jinja2", extra="bench")
    environment = jinja.Environment(
        loader=jinja.PackageLoader("fedlas.lab.report", "templates"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(**context)
    return page


def _printable(value: Any) -> Any:
    """Text as a page may show it; what is not of type ``str`` itself, such as the output of a macro, as it is."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def template_texts(*names: str) -> list[str]:
    """Sources of templates of this package: what a page depends on beside its context."""
    folder = files("fedlas.lab.report") / "templates"
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def picture(draw: Callable[[ThemeName], Any], alt: str) -> Picture:
    """The figure that ``draw(theme)`` returns the axes of, in both themes."""
    return Picture(_data_uri(draw("light")), _data_uri(draw("dark")), alt)


def diagram(name: str, predictions: Predictions, num_bins: int, *, band: bool = False) -> Picture:
    """A small reliability diagram titled ``name``, with the consistency band if asked for."""

    def draw(theme: ThemeName) -> Any:
        axes = new_axes(LIGHT if theme == "light" else DARK, size=(3.1, 4.0))
        return reliability_diagram(
            predictions, num_bins=num_bins, ax=axes, title=name, theme=theme, legend=False, band=band
        )

    return picture(draw, f"Reliability diagram of {name}")


def write_picture(figure: Any, path: Path) -> Path:
    """Write ``figure`` to ``path``; the same figure gives the same bytes.

    Raises:
        InputError: If the end of the name is no kind of picture, or the folder cannot be written to.
    """
    kinds = figure.canvas.get_supported_filetypes()
    kind = path.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise InputError(
            "picture", "the name must end in a kind of picture", path.name, f"Take one of {', '.join(sorted(kinds))}."
        )
    return write_atomically(path, lambda file: _save(figure, file, kind))


def _data_uri(axes: Any) -> str:
    buffer = io.BytesIO()
    _save(axes.figure, buffer, "svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _save(figure: Any, file: IO[bytes], kind: str) -> None:
    # The salt and the missing date make the same runs give the same bytes.
    with require("matplotlib", extra="plots").rc_context({"svg.hashsalt": "fedlas"}):
        dated = {"svg": {"Date": None}, "svgz": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(file, format=kind, metadata=dated.get(kind), dpi=200)
