"""What the marks and the numbers of a bench's tables mean, and what is missing, as sentences."""

from __future__ import annotations

from fedlas.lab.report.after_auto import AUTO
from fedlas.lab.report.model import FEWEST_SEEDS, ReportModel
from fedlas.lab.report.verdict import TEST
from fedlas.lab.runs.intervals import reasons
from fedlas.lab.runs.summary import is_ranked
from fedlas.present.metric_tables import noise_legend
from fedlas.present.table import SYMBOLS, Mark, column
from fedlas.stats import ALPHA


def spread_note(model: ReportModel) -> str:
    """One sentence on what ± is."""
    sizes = sorted({len(seeds) for seeds in model.seeds.values()})
    if sizes[-1] == 1:
        return "One seed each (n = 1), so no spread is known."
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"Mean ± sample standard deviation over seeds (n = {n})."


def short_legend(model: ReportModel) -> list[str]:
    """What the short table shows, in at most three lines."""
    n = len(model.summary.common_seeds)
    spread = f"Mean ± sd over {n} seeds" if n > 1 else "One seed" if n else "Mean over each method's own seeds"
    after = "Auto: calibrated" if model.after == AUTO else "After T: temperature scaling"
    lines = [f"{spread}, lowest NLL first. Raw: as trained. {after}."]
    if any(noise.floor for noise in model.all_noise):
        lines.append("(floor): ECE of a calibrated model by chance. ~ within noise of it: no evidence.")
    if len(model.summary.tested) > 1:
        few = f"Fewer than {FEWEST_SEEDS} seeds: none is marked as best."
        stars = f"★ best, ☆ best mean, ≈ not distinguishable from it ({TEST}, Holm)."
        lines.append(few if n < FEWEST_SEEDS else stars)
    return lines


def legend(model: ReportModel) -> dict[Mark, str]:
    """What each mark that occurs means, in the order to print them."""
    summary = model.summary
    n, others = len(summary.common_seeds), len(summary.tested) - 1
    if others == 0 or n == 0:
        return {}
    if n == 1:
        return {"": "One seed cannot show whether a difference is more than chance, so no method is marked as best"}
    comparisons = f"{others} comparison{'s' * (others != 1)}"
    texts: dict[Mark, str] = {
        "best": f"best: every other method tested is worse by a {TEST} over the {n} seeds, p ≤ {ALPHA:g} after Holm's "
        f"correction for {comparisons}",
        "leading": "best mean, but another method could be as good by that test, or was not tested",
        "same": f"not distinguishable from the best mean: two-sided {TEST} over the {n} seeds against ★ or ☆, "
        f"p > {ALPHA:g} after Holm's correction for {comparisons}. Few seeds find few differences, so this does not "
        "say that the two are equal",
        "worse": "no mark: worse than the best by that test",
    }
    # Only marks that the tables show are explained.
    texts = {mark: text for mark, text in texts.items() if mark in model.marks}
    # The empty mark stands for a cell without one, whose reason depends on the seeds and the metrics.
    if n < FEWEST_SEEDS:
        few = f"{n} seeds are fewer than {FEWEST_SEEDS}, so no method is marked as best. The p-values are of a {TEST}"
        texts[""] = f"{few} over the {n} seeds, with Holm's correction for {comparisons}"
    elif unranked := [column(metric).title for metric in summary.metrics if not is_ranked(metric)]:
        texts[""] = (
            f"no mark in {', '.join(unranked)}: nobody is best there, because it has no direction, or one part of an "
            "error falls when the other rises"
        )
    if "untested" in model.marks:
        apart = "has no run of its own at each seed, or " if others < len(summary.methods) - 1 else ""
        texts["untested"] = f"not tested: {apart}differs from the best by the same amount at every seed"
    return texts


def marks_notes(model: ReportModel) -> list[str]:
    """The legend as sentences that begin with the mark."""
    return [f"{SYMBOLS[mark]} {text}.".strip() for mark, text in legend(model).items()]


def noise_notes(model: ReportModel) -> list[str]:
    """What interval, floor and p-value are, and why they are missing where they are."""
    several = any(len(seeds) > 1 for seeds in model.seeds.values())
    return [*noise_legend(model.all_noise, several=several), *(f"{reason}." for reason in reasons(model.summary))]


def missing_notes(model: ReportModel) -> list[str]:
    """Sentences on seeds that some methods lack; empty when all have the same seeds."""
    notes: list[str] = []
    summary = model.summary
    trained = [run for run in summary.runs if not run.made_by]
    # Derived methods are not expected to have every seed, so only trained ones can lack one.
    for method in dict.fromkeys(run.loss for run in trained):
        seeds = sorted({run.seed for run in trained})
        missing = [str(seed) for seed in seeds if summary.run(method, seed) is None]
        if missing:
            notes.append(f"{method} has no finished run for seed{'s' * (len(missing) > 1)} {', '.join(missing)}.")
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
    apart = [method for method in summary.derived if trained and method not in summary.tested]
    return notes + [
        f"{method} has n = {len(model.seeds[method])}: what is made of runs of several seeds counts once, by the "
        "lowest. It is not tested; make it of other groups of runs, too, to see its spread."
        for method in apart
    ]
