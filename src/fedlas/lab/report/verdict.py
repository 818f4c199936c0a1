"""What was run and what came of it, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedlas.lab.report.tables import TEST, Cell, column, summary_table
from fedlas.lab.runs.summary import STAGES, Summary
from fedlas.stats.p_text import p_text

_ALL_TESTS = ("ece", "o_ece", "u_ece", "smooth_ece")
"""ECE first; the others notice errors that it does not: all in one direction, or spread over the borders of bins."""


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
    others = {"failed": summary.failed, "unfinished": summary.unfinished, "unreadable": summary.unreadable}
    text += "".join(f", {len(runs)} {kind}" for kind, runs in others.items() if runs) + ". "
    chosen = sorted({run.selected_by for run in summary.runs if run.selected_by})
    epoch = f" at the epoch with the best validation {' or '.join(chosen)}" if chosen else ""
    return (
        f"{text}All numbers are measured on the test set{epoch}, before and after temperature scaling fitted on the "
        "validation set."
    )


@dataclass(frozen=True)
class Finding:
    """The best method by one metric, and how sure that is.

    Attributes:
        question: E.g. ``"Lowest ECE, after temperature"``.
        method: Its name.
        cell: Its mean and spread.
        unit: ``"%"`` or nothing.
        others: Methods not distinguishable from it.
        verdict: Whether it is best or only has the best mean, by which test and with what p-value.
    """

    question: str
    method: str
    cell: Cell
    unit: str
    others: tuple[str, ...]
    verdict: str


def findings(summary: Summary) -> list[Finding]:
    """The best by accuracy, NLL, and ECE before and after temperature; nothing where no best is marked."""
    found = []
    for metric, stage in (("accuracy", "test"), ("nll", "test"), ("ece", "test"), ("ece", "test_scaled")):
        head = column(metric)
        rows = [(row.method, row.cells[0]) for row in summary_table(summary, stage, [metric]).rows]
        best = [(method, cell) for method, cell in rows if cell.mark in ("best", "leading")]
        if best:
            (method, cell), others = best[0], tuple(m for m, c in rows if c.mark == "same")
            name = head.title if head.title.isupper() else head.title.lower()
            question = f"{'Highest' if head.arrow == '↑' else 'Lowest'} {name}"
            question += ", after temperature" if stage == "test_scaled" else ""
            found.append(Finding(question, method, cell, head.unit, others, verdict(summary, metric, stage) or ""))
    return found


def verdict(summary: Summary, metric: str, stage: str = "test") -> str | None:
    """Whether the best mean is distinguishable from the next, by which test and with what p-value.

    Returns:
        E.g. ``"best mean, not distinguishable from ls (p = 0.31, paired t-test over 5 seeds, Holm over 7)"``; None
        where there is no best, or nothing to compare it with.
    """
    comparison = summary.compare(metric, stage)
    if comparison is None or comparison.best is None or not comparison.tests:
        return None
    if comparison.n == 1:
        return "best value of one seed, not tested"
    # The differences are best minus other: the smallest is that of the next.
    ranked = sorted(comparison.tests, key=lambda other: abs(comparison.tests[other].mean_difference))
    p_values = comparison.p_values
    test = f"{TEST} over {comparison.n} seeds"
    test += f", Holm over {len(p_values)}" if len(p_values) > 1 else ""
    following = ranked[0]
    if following not in p_values:
        return f"best mean; {following}, the next, differs by the same amount at every seed, which no test can judge"
    said = f"{following} (p = {p_text(p_values[following])}, {test})".replace("p = <", "p < ")
    if following in comparison.not_distinguishable:
        rest = [other for other in ranked[1:] if other in comparison.not_distinguishable]
        more = f", nor from {_listed(rest)}" if rest else ""
        return f"best mean, not distinguishable from {said}{more}"
    doubtful = [other for other in ranked[1:] if other not in comparison.distinguishable]
    more = f", but not from {_listed(doubtful)}" if doubtful else ""
    return f"{'best mean' if doubtful else 'best'}, distinguishable from the next, {said}{more}"


def verdicts(summary: Summary) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """For each stage its heading, and title of the metric, best method and :func:`verdict` of each metric that has."""
    found = []
    for stage, when in STAGES.items():
        lines = []
        for metric in summary.metrics:
            said, comparison = verdict(summary, metric, stage), summary.compare(metric, stage)
            if said and comparison and comparison.best:
                lines.append((column(metric).title, comparison.best, said))
        if lines:
            found.append((f"{when.capitalize()} temperature scaling", lines))
    return found


def calibrated_note(summary: Summary) -> str | None:
    """Which methods no test of :data:`_ALL_TESTS` tells from calibrated models; None where all are, or none is known.

    A method that ECE does not tell from one, but another of these metrics does, is named as such.
    """
    parts, found_out = [], []
    for stage, when in STAGES.items():
        table = summary_table(summary, stage, [name for name in _ALL_TESTS if name in summary.metrics])
        heads = [c.title for c in table.columns]
        among = []
        for row in table.rows:
            noises = [cell.noise for cell in row.cells]
            if not heads or table.columns[0].metric != "ece" or not noises[0].calibrated:
                continue
            others = [head for head, noise in zip(heads, noises, strict=True) if noise.floor and not noise.calibrated]
            if others:
                found_out.append(f"{row.method} {when} temperature scaling ({_listed(others)})")
            else:
                among.append(row.method)
        if among:
            which = "every method" if len(among) == len(table.rows) > 1 else _listed(among)
            parts.append(f"{when} temperature scaling {which}")
    sentences = []
    if parts:
        sentences.append(
            "With this number of test samples, ECE and its noise floor do not tell these from a perfectly calibrated "
            f"model: {'; '.join(parts)}. That is absence of evidence, not evidence of calibration: a smaller error "
            "would go unnoticed. Which of two such numbers is smaller says little; noise floor and test say more than "
            "the value."
        )
    if found_out:
        sentences.append(f"ECE does not tell from a calibrated model, but another test does: {'; '.join(found_out)}.")
    return " ".join(sentences) or None


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
