"""The page of one run: reliability, confidence, selective risk, classes, and the images it got most wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_text
from fedlas._core.terminal import track
from fedlas.lab.report.examples import Cases, cases_of
from fedlas.lab.report.noise_text import NOTHING, noise_legend, noise_text
from fedlas.lab.report.page import MOST_WIDTH, Picture, ThemeName, picture, render, template_texts
from fedlas.lab.report.tables import column, run_cell
from fedlas.lab.runs.collect import read_run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import scaled, with_estimates
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary
from fedlas.metrics import METRICS, calibration_by_class
from fedlas.plots import (
    DARK,
    LIGHT,
    class_gap_plot,
    class_gaps,
    confidence_histogram,
    new_axes,
    reliability_diagram,
    risk_coverage_curve,
)
from fedlas.predictions import Predictions
from fedlas.stats.estimates import REPLICATES, Estimate

PAGE = "report.html"
"""Name of the page in the run's folder."""
_STAGES = {"test": "Before temperature scaling", "test_scaled": "After temperature scaling"}
_CLASS_ROWS = 40
_WIDE = (MOST_WIDTH, 2.8)
_TEMPLATES = ("run.html.j2", "reliability_note.html.j2", "band_note.html.j2", "report.css")


def write_run_pages(summary: Summary, *, data: str | None = None, console: Any = None) -> list[str]:
    """Write the page of every run that has predictions.

    Args:
        summary: Runs of a bench, with their noise.
        data: Where their data is; None searches the usual places.
        console: A ``rich.console.Console`` for the progress bar; None makes one on standard error.

    Returns:
        Why some have none, as sentences: there are no predictions, or the folder cannot be written to.
    """
    notes = []
    for run in track(summary.runs, "pages of runs", on=console):
        try:
            if _write(run, data=data, back=True) is None:
                notes.append(f"{run.name}: no page, as there are no predictions that can be read")
        except InputError as error:
            notes.append(f"{run.name}: no page. {error}")
    return notes


def write_run_report(
    folder: Path, *, replicates: int = REPLICATES, data: str | None = None, console: Any = None
) -> tuple[Path, FinishedRun]:
    """Write the page of a single run into its folder.

    Args:
        folder: Folder of a finished run.
        replicates: As for :func:`fedlas.lab.report.report.write_report`.
        data: As there.
        console: As there.

    Returns:
        Where it is, and the run with its noise.

    Raises:
        InputError: If ``metrics.json`` or the predictions cannot be read, or the folder cannot be written to.
    """
    try:
        found = read_run(RunFolder(folder))
    except ValueError as error:
        fix = "Start its fedlas command again, or pass the folder of a bench."
        raise InputError(
            "fedlas report", "it must be the folder of a finished run", f"{folder}: {error}", fix
        ) from error
    (run,) = with_estimates(Summary(folder, (found,)), replicates=replicates, console=console).runs
    page = _write(run, data=data, back=False)
    if page is None:
        why = run.folder.test_predictions()
        fix = "Pass the folder of the bench: its tables need no predictions."
        raise InputError("fedlas report", "the run must have its test predictions", why, fix)
    return page, run


def _write(run: FinishedRun, *, data: str | None, back: bool) -> Path | None:
    """The page, drawn only if what it shows has changed; None if the predictions cannot be read."""
    predictions, path = run.folder.test_predictions(), run.path / PAGE
    if not isinstance(predictions, Predictions):
        return None
    cases = cases_of(run, predictions, data=data)
    key = sha256(
        repr((run, cases, back, run.folder.files, run.folder.fingerprint, template_texts(*_TEMPLATES))).encode()
    )
    mark = f"<!-- made of {key.hexdigest()} -->"
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").rstrip().endswith(mark):
        return path
    return write_text(path, f"{run_page(run, predictions, cases, back=back)}\n{mark}\n")


def run_page(run: FinishedRun, predictions: Predictions, cases: Cases, *, back: bool = False) -> str:
    """The page as HTML, without anything outside it.

    Args:
        run: The run, with its noise.
        predictions: Its predictions on the test set.
        cases: Single samples to show.
        back: Whether the folder above holds the report of a bench to link to.
    """
    after = scaled(run, predictions) if run.measured["test_scaled"] else None
    stages = [(_STAGES["test"], predictions), *([(_STAGES["test_scaled"], after)] if after is not None else [])]
    cells = [(column(m), [run_cell(run, m, stage) for stage in _shown(run)]) for m in _metrics(run)]
    known = [cell.noise for _, row in cells for cell in row]
    by_class = run.estimates.classes if run.estimates else {}
    return render(
        "run.html.j2",
        run=run,
        num_samples=predictions.num_samples,
        num_classes=predictions.num_classes,
        num_bins=run.folder.num_bins,
        stages=[_STAGES[stage] for stage in _shown(run)],
        rows=cells,
        noise_notes=noise_legend(known, several=False),
        noise_reasons=run.estimates.reasons if run.estimates else (),
        reliability=[_reliability(name, each, run.folder.num_bins) for name, each in stages],
        confidence=_figure(
            lambda ax, theme: confidence_histogram(predictions, ax=ax, theme=theme), _WIDE, "Confidence histogram"
        ),
        risk=_figure(
            lambda ax, theme: risk_coverage_curve(predictions, ax=ax, theme=theme), _WIDE, "Risk-coverage curve"
        ),
        classes=_classes(predictions, cases),
        class_rows=_class_rows(predictions, cases, run.folder.num_bins, noise=by_class),
        class_replicates=max((each.replicates for each in by_class.values()), default=0),
        class_limit=_CLASS_ROWS if predictions.num_classes > _CLASS_ROWS else None,
        cases=cases,
        back=back,
        files=run.folder.files,
    )


def _shown(run: FinishedRun) -> list[str]:
    return [stage for stage in STAGES if run.measured[stage]]


def _metrics(run: FinishedRun) -> list[str]:
    found = dict.fromkeys(name for stage in STAGES for name in run.measured[stage])
    return [name for name in METRICS if name in found] + [name for name in found if name not in METRICS]


def _figure(draw: Callable[[Any, ThemeName], Any], size: tuple[float, float], alt: str) -> Picture:
    def themed(theme: ThemeName) -> Any:
        return draw(new_axes(LIGHT if theme == "light" else DARK, size=size), theme)

    return picture(themed, alt)


def _reliability(name: str, predictions: Predictions, num_bins: int) -> Picture:
    def draw(ax: Any, theme: ThemeName) -> Any:
        return reliability_diagram(
            predictions, num_bins=num_bins, ax=ax, title=name, theme=theme, legend=False, band=True
        )

    return _figure(draw, (MOST_WIDTH, 4.6), f"Reliability diagram, {name.lower()}")


def _classes(predictions: Predictions, cases: Cases) -> Picture:
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in cases.classes]

    def draw(theme: ThemeName) -> Any:
        axes: Any = class_gap_plot(predictions, classes=names, most=_CLASS_ROWS, theme=theme)
        axes.figure.set_figwidth(MOST_WIDTH)
        return axes

    return picture(draw, "Signed calibration gap of each class")


def _class_rows(
    predictions: Predictions, cases: Cases, num_bins: int, *, noise: Mapping[int, Estimate]
) -> list[list[str]]:
    """A row of text for each class, as the page's heads say."""
    gaps = {gap.label: gap for gap in class_gaps(predictions)}
    whole = calibration_by_class(predictions, num_bins=num_bins)
    rows = []
    for label in [*gaps, *(label for label in whole if label not in gaps)]:
        gap, own = gaps.get(label), whole[label]
        numbers = ["0", "—", "—", "—", "—"]
        if gap is not None:
            numbers = [
                f"{gap.num_samples:,}", *(f"{100 * value:.1f}" for value in (gap.confidence, gap.accuracy)),
                f"{100 * gap.gap:+.1f}", f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]",
            ]  # fmt: skip
        chance = noise_text([noise[label]], lambda value: f"{100 * value:.2f}") if label in noise else NOTHING
        texts = [chance.interval or "—", chance.marked_floor.replace("floor ", "") or "—"]
        rows.append([cases.classes[label], f"{own.num_labels:,}", *numbers, f"{100 * own.ece:.2f}", *texts])
    return rows
