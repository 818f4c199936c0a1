"""The page of one run: reliability, confidence, selective risk, classes, and the images it got most wrong."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_inside, write_text
from fedlas._core.terminal import track
from fedlas.lab.report.bench_tables import PAGE
from fedlas.lab.report.examples import Cases, cases_of
from fedlas.lab.runs.collect import read_run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.intervals import scaled, with_estimates
from fedlas.lab.runs.summary import STAGES, FinishedRun, Summary
from fedlas.metrics import calibration_by_class
from fedlas.plots import class_gap_plot, class_gaps, confidence_histogram, reliability_diagram, risk_coverage_curve
from fedlas.predictions import Predictions
from fedlas.present.metric_tables import metrics_table, short_table
from fedlas.present.noise_text import NoiseText, noise_text
from fedlas.present.page import MOST_WIDTH, axes, figure, render, template_texts
from fedlas.present.table import DASH, Table, table_of
from fedlas.stats.estimates import REPLICATES

_STAGES = {"test": "Before temperature scaling", "test_calibrated": "After temperature scaling"}
_CLASS_ROWS = 40
_TEMPLATES = ("run.html.j2", "base.html.j2", "macros.html.j2", "page.css")


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
    templates = template_texts(*_TEMPLATES, room="fedlas.lab.report")
    key = sha256(repr((run, cases, back, run.folder.files, run.folder.fingerprint, templates)).encode())
    mark = f"<!-- made of {key.hexdigest()} -->"
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace").rstrip().endswith(mark):
        return path
    path_inside(path.parent.parent if back else path.parent, path)
    return write_text(path, f"{run_page(run, predictions, cases, back=back)}\n{mark}\n")


def run_page(run: FinishedRun, predictions: Predictions, cases: Cases, *, back: bool = False) -> str:
    """The page as HTML, without anything outside it.

    Args:
        run: The run, with its noise.
        predictions: Its predictions on the test set.
        cases: Single samples to show.
        back: Whether the folder above holds the report of a bench to link to.
    """
    after = scaled(run, predictions) if run.measured["test_calibrated"] else None
    stages = [(_STAGES["test"], predictions), *([(_STAGES["test_calibrated"], after)] if after is not None else [])]
    # The page takes metrics from the run's files, so that it agrees with every other report.
    measured = {_STAGES[stage]: run.measured[stage] for stage in STAGES if run.measured[stage]}
    noise = {_STAGES[stage]: found for stage, found in run.estimates.stages.items()} if run.estimates else {}
    by_class = run.estimates.classes if run.estimates else {}
    return render(
        "run.html.j2",
        room="fedlas.lab.report",
        run=run,
        num_samples=predictions.num_samples,
        num_classes=predictions.num_classes,
        num_bins=run.folder.num_bins,
        short=short_table(measured, title="Main metrics", noise=noise, num_classes=predictions.num_classes),
        whole=metrics_table(measured, title="All metrics", noise=noise),
        noise_reasons=run.estimates.reasons if run.estimates else (),
        reliability=[_reliability(name, each, run.folder.num_bins) for name, each in stages],
        confidence=figure(confidence_histogram(predictions, ax=axes(height=2.8)), "Confidence histogram"),
        risk=figure(risk_coverage_curve(predictions, ax=axes(height=2.8)), "Risk-coverage curve"),
        class_gaps=_class_gaps(predictions, cases),
        classes=_class_table(predictions, cases, run.folder.num_bins, noise=by_class),
        class_replicates=max((each.replicates for each in by_class.values()), default=0),
        class_limit=_CLASS_ROWS if predictions.num_classes > _CLASS_ROWS else None,
        cases=cases,
        back=back,
        files=run.folder.files,
    )


def _reliability(name: str, predictions: Predictions, num_bins: int) -> Any:
    drawn = reliability_diagram(
        predictions, num_bins=num_bins, ax=axes(height=4.3), title=name, legend=False, band=True
    )
    return figure(drawn, f"Reliability diagram, {name.lower()}")


def _class_gaps(predictions: Predictions, cases: Cases) -> Any:
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in cases.classes]
    drawn = class_gap_plot(predictions, classes=names, most=_CLASS_ROWS)
    drawn.figure.set_size_inches(MOST_WIDTH, drawn.figure.get_figheight())  # type: ignore[union-attr]  # of its own
    return figure(drawn, "Signed calibration gap of each class")


def _class_table(predictions: Predictions, cases: Cases, num_bins: int, *, noise: Mapping[int, Any]) -> Table:
    """A row for each class, the most over-confident first."""
    gaps = {gap.label: gap for gap in class_gaps(predictions)}
    whole = calibration_by_class(predictions, num_bins=num_bins)
    rows = []
    for label in [*gaps, *(label for label in whole if label not in gaps)]:
        gap, own = gaps.get(label), whole[label]
        numbers = ["0", *[DASH] * 4]
        if gap is not None:
            numbers = [
                f"{gap.num_samples:,}", *(f"{100 * value:.1f}" for value in (gap.confidence, gap.accuracy)),
                f"{100 * gap.gap:+.1f}", f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]",
            ]  # fmt: skip
        chance = noise_text([noise[label]], lambda value: f"{100 * value:.2f}") if label in noise else NoiseText()
        texts = [chance.interval or DASH, f"{chance.sign} {chance.floor}".strip() or DASH]
        rows.append([cases.classes[label], f"{own.num_labels:,}", *numbers, f"{100 * own.ece:.2f}", *texts])
    heads = ("Class", "Samples", "Predicted", "Confidence %", "Accuracy %", "Gap, points", "95 % interval",
             "ECE of its probability %", "95 % interval", "Floor")  # fmt: skip
    return table_of(heads, rows, title="Every class in numbers")
