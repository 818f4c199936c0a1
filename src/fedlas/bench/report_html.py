"""The report as one HTML file that needs nothing else: no script, no network, light and dark, screen and print."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.bench import evidence
from fedlas.bench.results import Run, Summary
from fedlas.bench.statement import findings, title, what_was_run
from fedlas.bench.tables import SYMBOLS, column, legend, missing_notes, plain_summary, spread_note, summary_table
from fedlas.losses import LOSSES
from fedlas.plots import DARK, LIGHT, new_axes, reliability_diagram, training_curves
from fedlas.predictions import Predictions

ThemeName = Literal["light", "dark"]


@dataclass(frozen=True)
class Picture:
    """A figure in both themes, as data URIs of SVG images, and its description for those who cannot see it."""

    light: str
    dark: str
    alt: str


def html_report(summary: Summary) -> str:
    """``report.html`` of ``summary``; whatever comes from the runs is escaped."""
    jinja = require("jinja2", extra="bench")
    environment = jinja.Environment(
        loader=jinja.PackageLoader("fedlas.bench", "templates"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    diagrams, diagram_notes, seed = _diagrams(summary)
    before, after = (summary_table(summary, stage) for stage in ("test", "test_scaled"))
    page: str = environment.get_template("report.html.j2").render(
        summary=summary,
        title=title(summary),
        statement=what_was_run(summary),
        commands=evidence.commands(summary),
        findings=findings(summary),
        tables=[("Before temperature scaling", "before", before), ("After temperature scaling", "after", after)],
        spread=spread_note(summary),
        legend=[(mark or "worse", SYMBOLS[mark], text) for mark, text in legend(summary).items()],
        missing=missing_notes(summary),
        methods=[LOSSES[name] for name in summary.methods if name in LOSSES],
        diagrams=diagrams,
        diagram_notes=diagram_notes,
        diagram_seed=seed,
        curves=_curves(summary),
        runs=[_row(run) for run in summary.runs],
        link=link,
        plain=plain_summary,
        configurations=evidence.configurations(summary),
        environment=evidence.environment(summary),
    )
    return page


def link(*parts: str) -> str:
    """A relative address below the report. It starts with ``./``, so no name can turn it into another scheme."""
    return "./" + quote("/".join(parts))


def _row(run: Run) -> dict[str, Any]:
    before, after = run.measured["test"], run.measured["test_scaled"]
    return {
        "run": run,
        "accuracy": column("accuracy").format(before.get("accuracy")),
        "nll": column("nll").format(before.get("nll")),
        "ece": column("ece").format(before.get("ece")),
        "ece_after": column("ece").format(after.get("ece")),
        "files": [(PurePosixPath(name).stem, link(run.name, name)) for name in evidence.files(run)],
    }


def _diagrams(summary: Summary) -> tuple[list[Picture], list[str], int | None]:
    """One reliability diagram per method, of the first seed all have; notes on those that cannot be drawn; the seed."""
    seed = summary.common_seeds[0] if summary.common_seeds else None
    pictures, notes = [], []
    for method in summary.methods:
        run = next(r for r in summary.runs if r.loss == method and seed in (None, r.seed))
        predictions = evidence.load_predictions(run)
        if isinstance(predictions, Predictions):
            pictures.append(_diagram(method if seed is not None else f"{method}, seed {run.seed}", predictions))
        else:
            notes.append(predictions)
    return pictures, notes, seed


def _diagram(name: str, predictions: Predictions) -> Picture:
    def draw(theme: ThemeName) -> Any:
        axes = new_axes(LIGHT if theme == "light" else DARK, size=(3.1, 4.0))
        return reliability_diagram(predictions, ax=axes, title=name, theme=theme, legend=False)

    return _picture(draw, f"Reliability diagram of {name}")


def _curves(summary: Summary) -> list[Picture]:
    history = evidence.history(summary)
    pictures = []
    for metric, what in (("val.ece", "ECE"), ("val.accuracy", "accuracy")):

        def draw(theme: ThemeName, metric: str = metric) -> Any:
            return training_curves(history, metric=metric, theme=theme)

        try:
            pictures.append(_picture(draw, f"Validation {what} by epoch, one line per method"))
        except InputError:
            continue  # no run logged it; the template says so when nothing at all can be drawn
    return pictures


def _picture(draw: Callable[[ThemeName], Any], alt: str) -> Picture:
    return Picture(_data_uri(draw("light")), _data_uri(draw("dark")), alt)


def _data_uri(axes: Any) -> str:
    buffer = io.BytesIO()
    # The salt and the missing date make the same runs give the same bytes.
    with require("matplotlib", extra="plots").rc_context({"svg.hashsalt": "fedlas"}):
        axes.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
