"""What was run and what came of it, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import fmean

from fedlas.lab.report.after_auto import AUTO
from fedlas.lab.report.model import FEWEST_SEEDS, ReportModel
from fedlas.lab.runs.summary import Summary
from fedlas.present.page import Answer
from fedlas.present.table import Column, column
from fedlas.stats import ALPHA, holm, paired_t_test

TEST = "paired t-test"
"""By which methods are compared, see :func:`fedlas.stats.compare_to_best`."""
_ALL_TESTS = ("ece", "o_ece", "u_ece", "smooth_ece")
"""Tests of calibration; those after ECE notice errors in one direction, or spread over the borders of bins."""
_BASELINE = "ce"
"""The loss that costs nothing but a calibrator."""


def title(summary: Summary) -> str:
    """Head of a report."""
    return f"Calibration benchmark: {summary.recipe}" if summary.recipe else "Calibration benchmark"


def what_was_run(summary: Summary) -> str:
    """One or two sentences that let a stranger read the tables."""
    methods, seeds = summary.methods, summary.seeds
    derived = summary.derived
    trained = [method for method in methods if method not in derived]
    losses = "1 loss" if len(trained) == 1 else f"{len(trained)} losses"
    parts = [f"{losses} ({', '.join(trained)})"] if trained else []
    if derived:
        parts.append(f"{len(derived)} method{'s' * (len(derived) != 1)} on top of finished runs ({', '.join(derived)})")
    word = "seed" if len(seeds) == 1 else "seeds"
    text = f"{' and '.join(parts)} with {word} {', '.join(map(str, seeds))}: "
    text += f"{len(summary.runs)} finished run{'s' * (len(summary.runs) != 1)}"
    # Runs that are missing from the means are counted, so that a gap is visible in the first sentence.
    others = {"failed": summary.failed, "unfinished": summary.unfinished, "unreadable": summary.unreadable}
    text += "".join(f", {len(runs)} {kind}" for kind, runs in others.items() if runs) + ". "
    chosen = sorted({run.selected_by for run in summary.runs if run.selected_by})
    epoch = f" at the epoch with the best validation {' or '.join(chosen)}" if chosen else ""
    return f"{text}All numbers are measured on the test set{epoch}, before and after calibration on the validation set."


def answers(model: ReportModel) -> list[Answer]:
    """Return at most five sentences: which loss is best, raw and after calibration, and how calibrated it is.

    They are the texts of the table, so that sentence and table never round differently.
    """
    nll, calibrator = column("nll", places=3), "auto" if model.after == AUTO else "temperature"
    sentences = [
        ("Lowest NLL", _best(model, nll)),
        (f"After {calibrator}", _best(model, nll, model.after)),
        ("Calibration", _calibration(model, calibrator)),
        ("Highest accuracy", _best(model, column("accuracy", places=3))),
        (f"Against {_BASELINE} + {calibrator}", _against_baseline(model, calibrator)),
    ]
    return [Answer(question, text) for question, text in sentences if text]


def _best(model: ReportModel, about: Column, stage: str = "test") -> str:
    """Return the method with the best mean, and whether that is more than chance over the seeds."""
    comparison = model.comparisons.get((about.metric, stage))
    if comparison is None or (not comparison.tests and comparison.best is None):
        return ""
    if comparison.best is None:
        return "not tested, since no seed is common to all methods."
    unit = f" {about.unit}" if about.unit else ""
    best = f"{comparison.best} ({model.cell(comparison.best, about, stage).value}{unit})"
    if not comparison.tests:
        return f"{best}."
    # The first sentence says over how many seeds, which holds for all.
    first = about.metric == "nll" and stage == "test"
    over = f" over {comparison.n} seed{'s' * (comparison.n != 1)}" if first else ""
    if comparison.n < FEWEST_SEEDS:
        return f"{best}{f'{over}; only {FEWEST_SEEDS} or more can call one best' * first}."
    equal = [name for name in model.methods if name in comparison.tests and name not in comparison.distinguishable]
    if not equal:
        return f"{best}, beyond chance{over}."
    others = listed(equal, 3) if len(equal) < len(comparison.tests) else "any other" if len(equal) > 1 else equal[0]
    return f"{best}; not distinguishable from {others}{over}."


def _calibration(model: ReportModel, calibrator: str) -> str:
    """Return whether the method with the lowest NLL is calibrated by every test, and in which direction it errs."""
    comparison = model.comparisons.get(("nll", "test"))
    name = comparison.best if comparison and comparison.best else model.methods[0]
    about = column("ece", places=3)
    if not model.values(name, "ece"):
        return ""
    text = f"{name} has an ECE of {model.cell(name, about).value} %"
    if model.noise(name, about).floor:
        text += f", {_noise(model, name)}"
    if values := model.values(name, "ece", model.after):
        text += f"; {about.format(fmean(values))} % after {calibrator}"
    return f"{text}."


def _noise(model: ReportModel, name: str) -> str:
    """Return whether a test rejects calibration as trained, and the direction if all seeds agree."""
    tests = [column(metric) for metric in _ALL_TESTS if metric in model.summary.metrics]
    rejected = [t.title for t in tests if (n := model.noise(name, t)).floor and not n.calibrated]
    if not rejected:
        return "within the noise of a calibrated model"
    signs = {o > u for o, u in zip(*(model.values(name, metric) for metric in ("o_ece", "u_ece")), strict=False)}
    direction = "" if len(signs) != 1 else "over-confident, " if True in signs else "under-confident, "
    # The table marks ECE's own test with ~, so the reader must learn which other test rejects calibration.
    by = "" if column("ece").title in rejected else f" by {listed(rejected)}"
    return f"{direction}beyond chance{by}"


def _against_baseline(model: ReportModel, calibrator: str) -> str:
    """Return which losses have a lower NLL than cross-entropy after calibration, by paired tests.

    After auto both sides are calibrated. Where only a temperature is known, the other losses are as trained.
    """
    seeds, ours = model.summary.common_seeds, model.after if model.after == AUTO else "test"
    if _BASELINE not in model.summary.tested or len(seeds) < FEWEST_SEEDS:
        return ""
    at = [model.summary.seeds.index(seed) for seed in seeds]

    def nll(name: str, stage: str) -> list[float]:
        values = model.summary.values(name, "nll", stage)
        return [values[index] for index in at]

    scaled = nll(_BASELINE, model.after)
    others = [name for name in model.summary.tested if name != _BASELINE and not any(map(isnan, nll(name, ours)))]
    if any(map(isnan, scaled)) or not others:
        return ""
    tests = {name: paired_t_test(nll(name, ours), scaled) for name in others}
    p_values = holm([1.0 if test.p_value is None else test.p_value for test in tests.values()])
    lower = {name for name, p in zip(others, p_values, strict=True) if p < ALPHA and tests[name].mean_difference < 0}
    names = [name for name in model.methods if name in lower]
    subject = (
        f"{listed(names)} {'has' if len(names) == 1 else 'have'} a lower NLL" if names else "no loss has a lower NLL"
    )
    when = f"after {calibrator}" if ours == AUTO else "as trained"
    limit = column("nll", places=3).format(fmean(scaled))
    return f"{subject} {when} than its {limit}, beyond chance."


def listed(names: Sequence[str], most: int = 5) -> str:
    """``"a, b and c"``; of more than ``most`` names how many more there are."""
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
