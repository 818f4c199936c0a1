"""Sentences of a report: its runs, its results, and the legends of marks and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import fmean

from fedlas._core.text import pluralize
from fedlas.lab.report.cells import all_noise_texts, method_cell, method_noise, shown_marks
from fedlas.lab.results.result import FEWEST_SEEDS, Result
from fedlas.lab.results.stages import AUTO
from fedlas.lab.runs.intervals import missing_interval_reasons
from fedlas.lab.runs.summary import Summary, is_ranked
from fedlas.present.metric_tables import noise_legend
from fedlas.present.page import QuestionAnswer
from fedlas.present.table import SYMBOLS, Column, Mark, metric_column
from fedlas.stats import ALPHA, holm, paired_t_test

TEST_NAME = "paired t-test"
"""Test of differences between methods, see :func:`fedlas.stats.compare_to_best`."""
_CALIBRATION_TEST_METRICS = ("ece", "o_ece", "u_ece", "smooth_ece")
"""Metrics with a test of calibration; all but ECE detect errors in one direction, or across the borders of bins."""
_MAX_NAMES = 12
"""Most losses that the first sentence names."""
_BASELINE = "ce"
"""Loss that the others are compared with: calibrated cross-entropy."""


def report_title(summary: Summary) -> str:
    """Return the title of a report."""
    return f"Calibration benchmark: {summary.recipe}" if summary.recipe else "Calibration benchmark"


def describe_runs(summary: Summary) -> str:
    """Return a summary of the runs: losses, seeds, finished and missing runs, and epoch selection."""
    methods = summary.methods
    seeds = summary.seeds
    derived = summary.derived
    trained = [method for method in methods if method not in derived]
    shown = (
        trained
        if len(trained) <= _MAX_NAMES
        else [*trained[:_MAX_NAMES], f"{len(trained) - _MAX_NAMES} more"]
    )
    losses = "1 loss" if len(trained) == 1 else f"{len(trained)} losses"
    parts = [f"{losses} ({', '.join(shown)})"] if trained else []
    if derived:
        parts.append(
            f"{pluralize(len(derived), 'method')} on top of finished runs ({', '.join(derived)})"
        )
    word = "seed" if len(seeds) == 1 else "seeds"
    text = f"{' and '.join(parts)} with {word} {', '.join(map(str, seeds))}: "
    text += pluralize(len(summary.runs), "finished run")
    # Runs that are missing from the means are counted, so that a gap is visible in the first sentence.
    others = {
        "failed": summary.failed,
        "unfinished": summary.unfinished,
        "unreadable": summary.unreadable,
    }
    text += "".join(f", {len(runs)} {kind}" for kind, runs in others.items() if runs) + ". "
    chosen = sorted({run.selected_by for run in summary.runs if run.selected_by})
    epoch = f" at the epoch with the best validation {' or '.join(chosen)}" if chosen else ""
    return f"{text}All numbers are measured on the test set{epoch}, before and after calibration on the validation set."


def answers(result: Result) -> list[QuestionAnswer]:
    """Return up to five headline results: lowest NLL before and after calibration, calibration, accuracy, baseline.

    Numbers are texts of the table, so that sentence and table never round differently.
    """
    nll = metric_column("nll", places=3)
    calibrator = "auto" if result.after == AUTO else "temperature"
    sentences = [
        ("Lowest NLL", _best_method_text(result, nll)),
        (f"After {calibrator}", _best_method_text(result, nll, result.after)),
        ("Calibration", _calibration_text(result, calibrator)),
        ("Highest accuracy", _best_method_text(result, metric_column("accuracy", places=3))),
        (f"Against {_BASELINE} + {calibrator}", _baseline_comparison_text(result, calibrator)),
    ]
    return [QuestionAnswer(question, text) for question, text in sentences if text]


def verdict_sentence(result: Result) -> str:
    """Return the methods with the lowest NLL, as trained and after calibration, as one sentence; empty without runs."""
    texts = {answer.question: answer.text for answer in answers(result)}
    parts = [
        f"{question[0].lower()}{question[1:]} {text.rstrip('.')}"
        for question, text in texts.items()
        if question == "Lowest NLL" or question.startswith("After")
    ]
    return f"Verdict: {'; '.join(parts)}." if parts else ""


def _best_method_text(result: Result, metric_column: Column, stage: str = "test") -> str:
    """Return the method with the best mean, and whether its lead is beyond chance over the seeds."""
    comparison = result.comparisons.get((metric_column.metric, stage))
    if comparison is None or (not comparison.tests and comparison.best is None):
        return ""
    if comparison.best is None:
        return "not tested, since no seed is common to all methods."
    unit = f" {metric_column.unit}" if metric_column.unit else ""
    best = f"{comparison.best} ({method_cell(result, comparison.best, metric_column, stage).value}{unit})"
    if not comparison.tests:
        return f"{best}."
    # Only the first sentence states the number of seeds, which is the same for all.
    first = metric_column.metric == "nll" and stage == "test"
    over = f" over {pluralize(comparison.n, 'seed')}" if first else ""
    if comparison.n < FEWEST_SEEDS:
        return f"{best}{f'{over}; only {FEWEST_SEEDS} or more can call one best' * first}."
    equal = [name for name in result.methods if name in comparison.not_distinguishable]
    if not equal and comparison.untested:
        return f"{best}; not tested against {join_words(sorted(comparison.untested), 3)}."
    if not equal:
        return f"{best}, beyond chance{over}."
    others = (
        join_words(equal, 3)
        if len(equal) < len(comparison.tests)
        else "any other"
        if len(equal) > 1
        else equal[0]
    )
    return f"{best}; not distinguishable from {others}{over}."


def _calibration_text(result: Result, calibrator: str) -> str:
    """Return the ECE of the method with the lowest NLL, and whether a test rejects its calibration."""
    comparison = result.comparisons.get(("nll", "test"))
    name = comparison.best if comparison and comparison.best else result.methods[0]
    about = metric_column("ece", places=3)
    if not result.values(name, "ece"):
        return ""
    text = f"{name} has an ECE of {method_cell(result, name, about).value} %"
    if method_noise(result, name, about).floor:
        text += f", {_calibration_test_text(result, name)}"
    if values := result.values(name, "ece", result.after):
        text += f"; {about.format(fmean(values))} % after {calibrator}"
    return f"{text}."


def _calibration_test_text(result: Result, name: str) -> str:
    """Return whether a test rejects calibration as trained, and the direction if all seeds agree."""
    tests = [
        metric_column(metric)
        for metric in _CALIBRATION_TEST_METRICS
        if metric in result.summary.metrics
    ]
    rejected = [
        t.title for t in tests if (n := method_noise(result, name, t)).floor and not n.calibrated
    ]
    if not rejected:
        return "within the noise of a calibrated model"
    signs = {
        o > u
        for o, u in zip(
            *(result.values(name, metric) for metric in ("o_ece", "u_ece")), strict=False
        )
    }
    direction = (
        "" if len(signs) != 1 else "over-confident, " if True in signs else "under-confident, "
    )
    # The table marks ECE's own test with ~, so the reader must learn which other test rejects calibration.
    by = "" if metric_column("ece").title in rejected else f" by {join_words(rejected)}"
    return f"{direction}beyond chance{by}"


def _baseline_comparison_text(result: Result, calibrator: str) -> str:
    """Return the losses with a lower NLL than calibrated cross-entropy, by paired tests over seeds."""
    seeds = result.summary.common_seeds
    other_stage = result.after if result.after == AUTO else "test"
    if _BASELINE not in result.summary.tested_methods or len(seeds) < FEWEST_SEEDS:
        return ""
    seed_indices = [result.summary.seeds.index(seed) for seed in seeds]

    def nll_values(name: str, stage: str) -> list[float]:
        """Return the NLL of a method at the common seeds."""
        values = result.summary.values(name, "nll", stage)
        return [values[index] for index in seed_indices]

    baseline_nll = nll_values(_BASELINE, result.after)
    others = [
        name
        for name in result.summary.tested_methods
        if name != _BASELINE and not any(map(isnan, nll_values(name, other_stage)))
    ]
    if any(map(isnan, baseline_nll)) or not others:
        return ""
    tests = {name: paired_t_test(nll_values(name, other_stage), baseline_nll) for name in others}
    p_values = holm([1.0 if test.p_value is None else test.p_value for test in tests.values()])
    lower = {
        name
        for name, p in zip(others, p_values, strict=True)
        if p < ALPHA and tests[name].difference < 0
    }
    names = [name for name in result.methods if name in lower]
    subject = (
        f"{join_words(names)} {'has' if len(names) == 1 else 'have'} a lower NLL"
        if names
        else "no loss has a lower NLL"
    )
    when = f"after {calibrator}" if other_stage == AUTO else "as trained"
    limit = metric_column("nll", places=3).format(fmean(baseline_nll))
    pairs = pluralize(len(others), "comparison")
    return f"{subject} {when} than its {limit}, beyond chance (Holm over {pairs} with {_BASELINE})."


def join_words(names: Sequence[str], max_words: int = 5) -> str:
    """Return ``"a, b and c"``; names after the first ``max_words`` are counted as "n more"."""
    shown = (
        [*names[:max_words], f"{len(names) - max_words} more"]
        if len(names) > max_words
        else list(names)
    )
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def spread_note(result: Result) -> str:
    """Return a sentence that explains the ± in tables."""
    sizes = sorted({len(seeds) for seeds in result.seeds.values()})
    if sizes[-1] == 1:
        return "One seed each (n = 1), so no spread is known."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"Mean ± sample standard deviation over seeds (n = {n})."


def short_legend(result: Result) -> list[str]:
    """Return at most three lines that explain the short table."""
    n = len(result.summary.common_seeds)
    spread = (
        f"Mean ± sd over {n} seeds"
        if n > 1
        else "One seed"
        if n
        else "Mean over each method's own seeds"
    )
    after = "Auto: calibrated" if result.after == AUTO else "After T: temperature scaling"
    has_after = any(run.measured.get(result.after) for run in result.summary.runs)
    lines = [f"{spread}, lowest NLL first.{f' Raw: as trained. {after}.' * has_after}"]
    if any(noise.floor for noise in all_noise_texts(result)):
        lines.append(
            "(floor): ECE of a calibrated model by chance. ~ within noise of it: no evidence."
        )
    if len(result.summary.tested_methods) > 1:
        few = f"Fewer than {FEWEST_SEEDS} seeds: none is marked as best."
        others = pluralize(len(result.summary.tested_methods) - 1, "comparison")
        test = f"{TEST_NAME}, Holm over {others} with the best"
        stars = f"★ best, ☆ best mean, ≈ not distinguishable from it ({test})."
        lines.append(few if n < FEWEST_SEEDS else stars)
    return lines


def mark_legend(result: Result) -> dict[Mark, str]:
    """Return the explanation of each mark that occurs, in the order to print them."""
    summary = result.summary
    n = len(summary.common_seeds)
    others = len(summary.tested_methods) - 1
    if others == 0 or n == 0:
        return {}
    if n == 1:
        return {
            "": "One seed cannot show whether a difference is more than chance, so no method is marked as best"
        }
    comparisons = pluralize(others, "comparison")
    texts: dict[Mark, str] = {
        "best": f"best: every other method tested is worse by a {TEST_NAME} over the {n} seeds, "
        f"p ≤ {ALPHA:g} after Holm's correction for {comparisons}",
        "leading": "best mean, but another method could be as good by that test, or was not tested",
        "same": f"not distinguishable from the best mean: two-sided {TEST_NAME} over the {n} seeds against ★ or ☆, "
        f"p > {ALPHA:g} after Holm's correction for {comparisons}. Few seeds find few differences, so this does not "
        "say that the two are equal",
        "worse": "no mark: worse than the best by that test",
    }
    # Only marks that the tables show are explained.
    texts = {mark: text for mark, text in texts.items() if mark in shown_marks(result)}
    # The empty mark explains cells without a mark; the reason depends on the seeds and the metrics.
    if n < FEWEST_SEEDS:
        few = f"{n} seeds are fewer than {FEWEST_SEEDS}, so no method is marked as best. "
        few += f"The p-values are of a {TEST_NAME}"
        texts[""] = f"{few} over the {n} seeds, with Holm's correction for {comparisons}"
    elif unranked := [
        metric_column(metric).title for metric in summary.metrics if not is_ranked(metric)
    ]:
        texts[""] = (
            f"no mark in {', '.join(unranked)}: no method is best there, because it has no direction, or one part of "
            "an error falls when the other rises"
        )
    if "untested" in shown_marks(result):
        apart = (
            "has no run of its own at each seed, or " if others < len(summary.methods) - 1 else ""
        )
        texts["untested"] = (
            f"not tested: {apart}differs from the best by the same amount at every seed"
        )
    return texts


def mark_notes(result: Result) -> list[str]:
    """Return one sentence per mark, beginning with the mark."""
    return [f"{SYMBOLS[mark]} {text}.".strip() for mark, text in mark_legend(result).items()]


def noise_notes(result: Result) -> list[str]:
    """Return sentences that explain interval, noise floor and p-value, and why some are missing."""
    several = any(len(seeds) > 1 for seeds in result.seeds.values())
    return [
        *noise_legend(all_noise_texts(result), over_seeds=several),
        *(f"{reason}." for reason in missing_interval_reasons(result.summary)),
    ]


def table_notes(result: Result) -> list[str]:
    """Return all sentences below the tables of a report."""
    return [spread_note(result), *mark_notes(result), *noise_notes(result), *missing_notes(result)]


def missing_notes(result: Result) -> list[str]:
    """Return sentences on missing seeds and failed or unfinished runs; empty if nothing is missing."""
    notes: list[str] = []
    summary = result.summary
    trained = [run for run in summary.runs if not run.made_by]
    # Only trained methods are expected to have every seed.
    for method in dict.fromkeys(run.loss for run in trained):
        seeds = sorted({run.seed for run in trained})
        missing = [str(seed) for seed in seeds if summary.run(method, seed) is None]
        if missing:
            notes.append(
                f"{method} has no finished run for seed{'s' * (len(missing) > 1)} {', '.join(missing)}."
            )
    if notes and summary.common_seeds:
        common = ", ".join(map(str, summary.common_seeds))
        notes.append(
            f"Tables and tests use only what every method has, seed{'s' * (len(summary.common_seeds) > 1)} {common}; "
            "the other runs are among the single runs and in results.csv. Rerun the same command to fill the gaps, "
            "or move a method's runs away to see the others over all their seeds."
        )
    elif notes:
        notes.append(
            "No seed is common to all methods, so means are over each method's own seeds, and nothing is tested."
        )
    problems = [f"{each.name} failed: {each.reason}" for each in summary.failed]
    problems += [f"{each.name} cannot be read: {each.reason}" for each in summary.unreadable]
    problems += [f"{name} was stopped, or is still running" for name in summary.unfinished]
    notes += [f"{each.removesuffix('.')}." for each in problems[:_MAX_NAMES]]
    if len(problems) > _MAX_NAMES:
        notes.append(f"{len(problems) - _MAX_NAMES} more runs are without numbers.")
    apart = [
        method for method in summary.derived if trained and method not in summary.tested_methods
    ]
    return notes + [
        f"{method} has n = {len(result.seeds[method])}: it combines runs of several seeds and counts as one run, of "
        "the lowest seed. It is not tested; combine other groups of runs as well to see its spread."
        for method in apart
    ]
