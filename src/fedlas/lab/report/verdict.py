"""What was run and what came of it, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import fmean, stdev

from fedlas._core.check import InputError
from fedlas.lab.report.model import FEWEST_SEEDS, ReportModel
from fedlas.lab.runs.summary import STAGES, Summary
from fedlas.present.page import Answer
from fedlas.present.table import Column, column
from fedlas.stats import LEVEL, Comparison, holm, paired_t_test, seeds_needed
from fedlas.stats.p_text import p_text

TEST = "paired t-test"
"""By which methods are compared, see :func:`fedlas.stats.compare_to_best`."""
_ALL_TESTS = ("ece", "o_ece", "u_ece", "smooth_ece")
"""ECE first; the others notice errors that it does not: all in one direction, or spread over the borders of bins."""
_MOST_SEEDS = 1000
_BASELINE = "ce"
"""What costs nothing but a temperature; a loss that is not better before any temperature gains nothing."""


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
    """Which method is best by accuracy and NLL, and whose calibration error is more than noise."""
    found = [(column(metric).title, _best(model, column(metric, places=3))) for metric in ("accuracy", "nll")]
    if noise := _within_noise(model, "test"):
        best = [f"{name} has the lowest ECE." for name in model.methods if model.mark(name, "ece") == "best"]
        found.append(("Calibration", " ".join(filter(None, [noise, _directions(model), *best]))))
    else:
        found.append(("Calibration", _best(model, column("ece", places=3))))
    found.append(("After temperature", _within_noise(model, "test_calibrated")))
    found.append((f"Against {_BASELINE} + temperature", _against_baseline(model)))
    return [Answer(question, text) for question, text in found if text]


def _best(model: ReportModel, about: Column) -> str:
    """Whether some method is distinguishable from the best, and how many seeds it would take where none is."""
    comparison = model.comparisons.get((about.metric, "test"))
    if comparison is None or (not comparison.tests and comparison.best is None):
        return ""
    # The texts of the table are used, so that sentence and table never round differently.
    means = {name: model.cell(name, about).value for name in model.methods if model.values(name, about.metric)}
    unit = f" {about.unit}" if about.unit else ""
    if comparison.best is None:
        return "No seed is common to all methods, so nothing is tested."
    best = f"{comparison.best} ({means[comparison.best]}{unit})"
    if not comparison.tests:
        return f"{comparison.best} has {means[comparison.best]}{unit}."
    if comparison.n == 1:
        return f"{best} is best with the only common seed. One seed cannot show whether that is more than chance."
    worse = [name for name in model.methods if name in comparison.distinguishable]
    equal = [name for name in model.methods if name in comparison.tests and name not in worse]
    shown = f"{comparison.n} seeds"
    if not worse:
        low, high = min(means.values(), key=float), max(means.values(), key=float)
        text = f"No difference shows over {shown} ({low} to {high}{unit})"
    elif not equal:
        text = f"{best} is distinguishable from all others over {shown}"
    else:
        text = f"{best} and {listed(equal)} are not distinguishable over {shown}; {listed(worse)} {_are(worse)} worse"
    if comparison.n >= FEWEST_SEEDS:
        return f"{text}."
    needed = _seeds_for_a_best(model, comparison, about)
    return f"{text}. It would take {needed} seeds to call one best."


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _seeds_for_a_best(model: ReportModel, comparison: Comparison, about: Column) -> str:
    """Seeds with which all others would be distinguishable from the best, if differences are what they seem."""
    most = FEWEST_SEEDS
    best = str(comparison.best)
    by_seed = {name: dict(zip(model.summary.seeds, model.summary.values(name, about.metric), strict=True))
               for name in (best, *comparison.tests)}  # fmt: skip
    for other, test in comparison.tests.items():
        gaps = [by_seed[best][seed] - by_seed[other][seed] for seed in model.summary.common_seeds]
        try:
            most = max(most, seeds_needed(test.mean_difference, stdev(gaps)))
        except InputError:  # no difference, no spread, or one that no affordable number of seeds finds
            most = max(most, FEWEST_SEEDS if test.mean_difference and stdev(gaps) == 0 else _MOST_SEEDS + 1)
    return f"about {most:,}" if most <= _MOST_SEEDS else f"more than {_MOST_SEEDS:,}"


def _within_noise(model: ReportModel, stage: str) -> str:
    """Methods whose calibration error could be chance, by every test, and those for which it could not."""
    about = column("ece", places=3)
    known = [name for name in model.methods if model.noise(name, about, stage).floor]
    if not known:
        return ""
    # A method counts as calibrated only if none of the tests speaks against it.
    tests = [column(name) for name in _ALL_TESTS if name in model.summary.metrics]
    rejected = {
        name: [t.title for t in tests if (n := model.noise(name, t, stage)).floor and not n.calibrated]
        for name in known
    }
    within = [f"{name} ({model.cell(name, about, stage).value} %)" for name in known if not rejected[name]]
    hidden = [f"{name} (by {listed(found)})" for name, found in rejected.items() if found and about.title not in found]
    # Those that the table marks with ~ come first: a long list is cut at its end.
    beyond = [*hidden, *(name for name, found in rejected.items() if about.title in found)]
    noise = "within noise of a calibrated model"
    noise += f" on {model.samples:,} test images" if model.samples and stage == "test" else ""
    if not beyond and len(known) > 2:
        return f"All {len(known)} methods are {noise}."
    if not within:
        if len(known) < 3:
            return f"The ECE of {listed(beyond)} is not {noise}."
        # The table marks ECE's own test with ~, so the reader must learn that another test speaks against it.
        apart = f"; ECE itself does not show it for {listed(hidden)}" if hidden else ""
        return f"No method is {noise}{apart}."
    text = f"The ECE of {listed(within)} is {noise}"
    return f"{text}; that of {listed(beyond)} is not." if beyond else f"{text}."


def _directions(model: ReportModel) -> str:
    """Which methods with an error beyond noise are over-confident at every seed, and which are under-confident."""
    found: dict[str, list[str]] = {"over-confident": [], "under-confident": []}
    for name in model.methods:
        noise = model.noise(name, column("ece"))
        over, under = (model.values(name, metric) for metric in ("o_ece", "u_ece"))
        signs = {o > u for o, u in zip(over, under, strict=False)} if noise.floor and not noise.calibrated else set()
        if len(signs) == 1:
            found["over-confident" if True in signs else "under-confident"].append(name)
    # The smaller group is named; the larger one may be "all others".
    groups = sorted((len(names), word, listed(names), _are(names)) for word, names in found.items() if names)
    if len(groups) == 2 and sum(group[0] for group in groups) == len(model.methods) > 3:
        groups[1] = (*groups[1][:2], "all others", "are")
    return f"{', '.join(f'{names} {are} {word}' for _, word, names, are in groups)}." if groups else ""


def _against_baseline(model: ReportModel) -> str:
    """Which losses have a lower NLL as they are than cross-entropy after a temperature, by a paired test over seeds."""
    seeds = model.summary.common_seeds
    if _BASELINE not in model.summary.tested or len(seeds) < FEWEST_SEEDS:
        return ""
    at = [model.summary.seeds.index(seed) for seed in seeds]

    def nll(name: str, stage: str) -> list[float]:
        values = model.summary.values(name, "nll", stage)
        return [values[place] for place in at]

    scaled = nll(_BASELINE, "test_calibrated")
    others = [name for name in model.summary.tested if name != _BASELINE and not any(map(isnan, nll(name, "test")))]
    if any(map(isnan, scaled)) or not others:
        return ""
    tests = [paired_t_test(nll(name, "test"), scaled) for name in others]
    p_values = holm([1.0 if test.p_value is None else test.p_value for test in tests])
    equal = [name for name, p_value in zip(others, p_values, strict=True) if p_value >= LEVEL]
    better = [name for name, test in zip(others, tests, strict=True) if name not in equal and test.mean_difference < 0]
    better, equal = ([name for name in model.methods if name in names] for names in (better, equal))
    limit = column("nll", places=3).format(fmean(scaled))
    if not better:  # one line, or six methods would not fit a terminal
        return f"No loss has a lower NLL than its {limit} without one."
    have = "has" if len(better) == 1 else "have"
    text = f"{listed(better)} {have} a lower NLL before any temperature than {_BASELINE} after one ({limit})"
    if equal:
        text += f"; {listed(equal)} {_are(equal)} not distinguishable"
    return f"{text}." if len(better) + len(equal) == len(others) else f"{text}; all others have a higher one."


def verdict(model: ReportModel, metric: str, stage: str = "test") -> str | None:
    """Whether the best mean is distinguishable from the next, by which test and with what p-value.

    Returns:
        E.g. ``"best mean, not distinguishable from ls (p = 0.31, paired t-test over 5 seeds, Holm over 7)"``; None
        where there is no best, or nothing to compare it with.
    """
    comparison = model.comparisons.get((metric, stage))
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
        more = f", nor from {listed(rest)}" if rest else ""
        return f"best mean, not distinguishable from {said}{more}"
    doubtful = [other for other in ranked[1:] if other not in comparison.distinguishable]
    more = f", but not from {listed(doubtful)}" if doubtful else ""
    return f"{'best mean' if doubtful else 'best'}, distinguishable from the next, {said}{more}"


def verdicts(model: ReportModel) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each stage its heading, and of each metric its title, and its best method with :func:`verdict`."""
    found = []
    for stage, when in STAGES.items():
        lines = []
        for metric in model.summary.metrics:
            said, comparison = verdict(model, metric, stage), model.comparisons[metric, stage]
            if said and comparison and comparison.best:
                lines.append((column(metric).title, f"{comparison.best}, {said}"))
        if lines:
            found.append((f"{when.capitalize()} temperature scaling", lines))
    return found


def listed(names: Sequence[str], most: int = 5) -> str:
    """``"a, b and c"``; of more than ``most`` names how many more there are."""
    shown = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
