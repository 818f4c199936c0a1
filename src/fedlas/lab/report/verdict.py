"""What was run and what came of it, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import fmean

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
"""The loss that costs nothing but a temperature."""


def title(summary: Summary) -> str:
    """Head of a report."""
    return f"Calibration benchmark: {summary.recipe}" if summary.recipe else "Calibration benchmark"


def what_was_run(summary: Summary) -> str:
    """One or two sentences that let a stranger read the tables."""
    methods, seeds = summary.methods, summary.seeds
    made = summary.derived
    trained = [method for method in methods if method not in made]
    losses = "1 loss" if len(trained) == 1 else f"{len(trained)} losses"
    parts = [f"{losses} ({', '.join(trained)})"] if trained else []
    if made:
        parts.append(f"{len(made)} method{'s' * (len(made) != 1)} on top of finished runs ({', '.join(made)})")
    word = "seed" if len(seeds) == 1 else "seeds"
    text = f"{' and '.join(parts)} with {word} {', '.join(map(str, seeds))}: "
    text += f"{len(summary.runs)} finished run{'s' * (len(summary.runs) != 1)}"
    # Runs that are missing from the means are counted, so that a gap is visible in the first sentence.
    others = {"failed": summary.failed, "unfinished": summary.unfinished, "unreadable": summary.unreadable}
    text += "".join(f", {len(runs)} {kind}" for kind, runs in others.items() if runs) + ". "
    chosen = sorted({run.selected_by for run in summary.runs if run.selected_by})
    epoch = f" at the epoch with the best validation {' or '.join(chosen)}" if chosen else ""
    return (
        f"{text}All numbers are measured on the test set{epoch}, before and after temperature scaling fitted on the "
        "validation set."
    )


def answers(model: ReportModel) -> list[Answer]:
    """Return at most five sentences: which loss is best, before and after a temperature, and whether it is calibrated.

    They are the texts of the table, so that sentence and table never round differently.
    """
    nll = column("nll", places=3)
    found = [
        ("Lowest NLL", _best(model, nll)),
        ("After temperature", _best(model, nll, "test_calibrated")),
        ("Calibration", _calibration(model)),
        ("Highest accuracy", _best(model, column("accuracy", places=3))),
        (f"Against {_BASELINE} + temperature", _against_baseline(model)),
    ]
    return [Answer(question, text) for question, text in found if text]


def _best(model: ReportModel, about: Column, stage: str = "test") -> str:
    """Return the method with the best mean, and whether that is more than chance over the seeds."""
    comparison = model.comparisons.get((about.metric, stage))
    if comparison is None or (not comparison.tests and comparison.best is None):
        return ""
    if comparison.best is None:
        return "not tested, since no seed is common to all methods."
    best = (
        f"{comparison.best} ({model.cell(comparison.best, about, stage).value}{f' {about.unit}' if about.unit else ''})"
    )
    if not comparison.tests:
        return f"{best}."
    if comparison.n < FEWEST_SEEDS:
        # What holds for all numbers is said once.
        seeds = "one seed" if comparison.n == 1 else f"{comparison.n} seeds"
        few = f" over {seeds}; only {FEWEST_SEEDS} or more can call one best" if about.metric == "nll" else ""
        return f"{best}{few if stage == 'test' else ''}."
    equal = [name for name in model.methods if name in comparison.tests and name not in comparison.distinguishable]
    if not equal:
        return f"{best}, beyond chance over {comparison.n} seeds."
    others = listed(equal, 3) if len(equal) < len(comparison.tests) else "any other" if len(equal) > 1 else equal[0]
    return f"{best}; not distinguishable from {others} over {comparison.n} seeds."


def _calibration(model: ReportModel) -> str:
    """Return whether the method with the lowest NLL is calibrated by every test, and in which direction it errs."""
    comparison = model.comparisons.get(("nll", "test"))
    name = comparison.best if comparison and comparison.best else model.methods[0]
    about = column("ece", places=3)
    if not model.values(name, "ece"):
        return ""
    noise, text = model.noise(name, about), f"{name} has an ECE of {model.cell(name, about).value} %"
    if values := model.values(name, "ece", "test_calibrated"):
        text += f", {about.format(fmean(values))} % after temperature"
    if not noise.floor:
        return f"{text}."
    tests = [column(metric) for metric in _ALL_TESTS if metric in model.summary.metrics]
    rejected = [t.title for t in tests if (n := model.noise(name, t)).floor and not n.calibrated]
    if not rejected:
        return f"{text}: within the noise of a calibrated model."
    signs = {o > u for o, u in zip(*(model.values(name, metric) for metric in ("o_ece", "u_ece")), strict=False)}
    direction = "" if len(signs) != 1 else ", over-confident" if True in signs else ", under-confident"
    # The table marks ECE's own test with ~, so the reader must learn which other test rejects calibration.
    by = "" if about.title in rejected else f" by {listed(rejected)}"
    return f"{text}: beyond the noise of a calibrated model{by}{direction}."


def _against_baseline(model: ReportModel) -> str:
    """Return which losses have a lower NLL before a temperature than cross-entropy after one, by paired tests."""
    seeds = model.summary.common_seeds
    if _BASELINE not in model.summary.tested or len(seeds) < FEWEST_SEEDS:
        return ""
    at = [model.summary.seeds.index(seed) for seed in seeds]

    def nll(name: str, stage: str) -> list[float]:
        values = model.summary.values(name, "nll", stage)
        return [values[index] for index in at]

    scaled = nll(_BASELINE, "test_calibrated")
    others = [name for name in model.summary.tested if name != _BASELINE and not any(map(isnan, nll(name, "test")))]
    if any(map(isnan, scaled)) or not others:
        return ""
    tests = {name: paired_t_test(nll(name, "test"), scaled) for name in others}
    p_values = holm([1.0 if test.p_value is None else test.p_value for test in tests.values()])
    limit = column("nll", places=3).format(fmean(scaled))
    lower = [name for name, p in zip(others, p_values, strict=True) if p < ALPHA and tests[name].mean_difference < 0]
    lower = [name for name in model.methods if name in lower]
    if not lower:
        return f"without one, no loss has an NLL below its {limit} beyond chance."
    return (
        f"without one, {listed(lower)} {'has' if len(lower) == 1 else 'have'} an NLL below its {limit} beyond chance."
    )


def listed(names: Sequence[str], most: int = 5) -> str:
    """``"a, b and c"``; of more than ``most`` names how many more there are."""
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
