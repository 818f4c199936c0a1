"""Methods of one or several benches side by side: tables, ranks over data sets, and figures, also for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fedlas._core.check import InputError, check_number
from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas._core.text import pluralize, printable
from fedlas.lab.report.bench_tables import short_bench_table, short_cell
from fedlas.lab.report.cells import values_by_seed
from fedlas.lab.report.verdict import (
    TEST_NAME,
    answers,
    join_words,
    missing_notes,
    short_legend,
    spread_note,
)
from fedlas.lab.results.differences import parse_pair, require_measured_metric
from fedlas.lab.results.result import FEWEST_SEEDS, Result
from fedlas.lab.results.stages import RAW
from fedlas.lab.runs.summary import is_ranked
from fedlas.metrics import METRICS
from fedlas.plots import critical_difference_diagram, seed_values
from fedlas.plots.theme import Axes, without_pyplot
from fedlas.present.differences import format_short_p, format_signed
from fedlas.present.page import creation_note, render, to_inline_svg, to_themed_svg, write_picture
from fedlas.present.stages import SEED
from fedlas.present.table import (
    Block,
    Cell,
    Column,
    Note,
    Table,
    blocks_to_text,
    html_table,
    latex_table,
    make_table,
    metric_column,
)
from fedlas.stats import ALPHA, RankComparison, compare_ranks, holm, wilcoxon_test

METRICS_SHOWN = ("nll", "ece")
_MIN_DATASETS = 3
"""Fewest data sets for tests of ranks."""
_MIN_DATASETS_WILCOXON = 6
"""Fewest data sets with which Wilcoxon's test can reach a p-value of 0.05."""


@dataclass(frozen=True, eq=False, repr=False)
class BenchResult:
    """Result of one or several benches, by data set or model, with the methods common to all.

    A notebook shows it as tables and a figure.

    Attributes:
        name: Name of the result.
        models: Result of each data set or model, by name. A method is a loss, or a loss and the calibrator after
            it, such as ``ce@temperature``.
        kind: Kind of ``models``: data sets, or models.

    Example:
        >>> from fedlas.lab import bench
        >>> result = bench(train, val, test, models={"mlp": model_fn}, losses=["ce", "ls"])  # doctest: +SKIP
        >>> print(result.to_latex())  # doctest: +SKIP
    """

    name: str
    models: Mapping[str, Result]
    kind: str = "data sets"

    @property
    def methods(self) -> list[str]:
        """Methods common to all data sets or models, in the order of the first."""
        first, *others = self.models.values()
        return [m for m in first.summary.methods if all(m in o.summary.methods for o in others)]

    def table(self, metric: str | None = None, *, spread: bool = True) -> Table:
        """Return one row per method.

        Args:
            metric: Columns are data sets or models, and the mean rank where the metric has a direction; None for a
                table of one of them, whose columns are metrics.
            spread: Show the standard deviation over seeds.
        """
        if metric is None:
            (model,) = self.models.values()
            table = short_bench_table(model, aurc=True)
            return replace(table, title=self.name)
        about = metric_column(self._check_metric(metric), places=3)
        ranked = len(self.models) > 1 and len(self.methods) > 1 and is_ranked(about.metric)
        ranks = self.ranks(about.metric).ranks if ranked else {}
        rows = []
        for method in ranks or self.methods:
            cells = [short_cell(model, method, about) for model in self.models.values()]
            cells = [cell if spread else replace(cell, spread="") for cell in cells]
            rank = [Cell(f"{ranks[method]:.2f}", number=ranks[method])] if ranks else []
            rows.append((Cell(method), *cells, *rank))
        heads = [replace(about, title=name, unit="", arrow="") for name in self.models]
        last = [Column("mean rank")] if ranks else []
        title = f"{about.head}, {self.name}"
        return Table((Column("method", words=True), *heads, *last), tuple(rows), title)

    def tables(self, metrics: Sequence[str] = METRICS_SHOWN) -> list[Table]:
        """Return the table of one data set or model, or one table per metric for several."""
        return [self.table()] if len(self.models) == 1 else [self.table(m) for m in metrics]

    def ranks(self, metric: str = "nll") -> RankComparison:
        """Return the mean ranks of the methods over data sets or models, with tests.

        Args:
            metric: A metric with a direction; each value that is ranked is a mean over seeds.

        Raises:
            InputError: If there are fewer than two data sets or two methods, or the metric has no direction.
        """
        higher = bool(METRICS[self._check_metric(metric)].higher_is_better)
        return compare_ranks(self._mean_by_method(metric), higher_is_better=higher)

    def _mean_by_method(self, metric: str) -> dict[str, list[float]]:
        """Return means over seeds by method, one per data set; raise InputError if the metric has no direction."""
        metric = self._check_metric(metric)
        if not is_ranked(metric):
            raise InputError(
                "the metric must be one where lower or higher is better",
                metric,
                "Choose e.g. nll or brier.",
            )
        return {m: [fmean(o.values(m, metric)) for o in self.models.values()] for m in self.methods}

    def verdict_sentences(self, metrics: Sequence[str] = METRICS_SHOWN) -> list[str]:
        """Return the verdict as sentences: tests over seeds for one data set, over data sets for several."""
        if len(self.models) == 1:
            (model,) = self.models.values()
            return [f"{answer.question}: {answer.text}" for answer in answers(model)]
        return [
            text
            for m in metrics
            if is_ranked(m) and len(self.methods) > 1
            for text in self._rank_sentences(m)
        ]

    def _rank_sentences(self, metric: str) -> list[str]:
        """Return sentences on mean ranks by a metric, with Friedman's, Nemenyi's and Wilcoxon's tests."""
        ranks = self.ranks(metric)
        n = ranks.n
        order = ", ".join(f"{method} {rank:.2f}" for method, rank in ranks.ranks.items())
        mean = f"Mean rank by {metric_column(metric).title} over {n} {self.kind}: {order}."
        if n < _MIN_DATASETS:
            return [f"{mean} Fewer than {_MIN_DATASETS} are not tested."]
        outcome = (
            "differ beyond chance" if ranks.friedman_p <= ALPHA else "do not differ beyond chance"
        )
        pairs = [sorted(pair, key=lambda method: ranks.ranks[method]) for pair in ranks.p_values]
        better = [
            f"{a} is better than {b} (p = {format_short_p(min(p, 1.0))})".replace("= <", "<")
            for (a, b), p in zip(pairs, ranks.p_values.values(), strict=True)
            if p <= ALPHA
        ]
        few = f" With fewer than {_MIN_DATASETS_WILCOXON} {self.kind} it cannot find any." * (
            n < _MIN_DATASETS_WILCOXON
        )
        return [
            f"{mean} They {outcome} (Friedman, p = {format_short_p(ranks.friedman_p)}); two differ by Nemenyi's "
            f"test from {ranks.critical_difference:.2f} on.".replace("= <", "<"),
            f"Wilcoxon, Holm over {len(pairs)} pairs: {join_words(better, 4) if better else 'no pair differs'}.{few}",
        ]

    def pairs_table(self, pairs: Sequence[str], metric: str) -> Table:
        """Return one row per pre-specified pair ``A:B``, with Wilcoxon's test over data sets and Holm's correction.

        Raises:
            InputError: If a pair is not ``A:B``, or a method is missing.
        """
        metric = self._check_metric(metric)
        about = metric_column(metric)
        rows = []
        tests = []
        for pair in map(self._parse_pair, pairs):
            a, b = ([fmean(o.values(m, metric)) for o in self.models.values()] for m in pair)
            gaps = [x - y for x, y in zip(a, b, strict=True)]
            tests.append(wilcoxon_test(a, b).p_value or 0.0)
            lower = sum(gap < 0 for gap in gaps)
            size = format_signed(about, fmean(gaps))
            rows.append(
                [" - ".join(pair), f"{lower} of {len(gaps)}", size, format_short_p(tests[-1])]
            )
        rows = [[*row, format_short_p(p)] for row, p in zip(rows, holm(tests), strict=True)]
        heads = ("A - B", "A lower in", "mean difference", "Wilcoxon", "Holm")
        title = f"{about.title} {about.unit}".strip() + f", {self.name}"
        few = ["With fewer than 6 data sets Wilcoxon's test cannot find any difference."]
        return make_table(
            heads, rows, title=title, notes=few * (len(self.models) < _MIN_DATASETS_WILCOXON)
        )

    def bayes_table(self, metric: str, rope: float = 0.0, pairs: Sequence[str] = ()) -> Table:
        """Return the probabilities that one method is better than another, by the Bayesian signed-rank test.

        Args:
            metric: A metric with a direction; what is compared is its mean over seeds on each data set.
            rope: Difference up to which two methods are equivalent, in units of the metric: 0.005 of an ECE or an
                accuracy is half a point. 0 calls nothing equivalent.
            pairs: ``A:B`` each; empty for all.

        Returns:
            A row for each pair, with the probabilities that A is better, that both are equivalent and that B is better.

        Raises:
            InputError: For fewer than three data sets, a metric without direction, a pair that is not ``A:B``, or a
                negative ``rope``.
            MissingExtraError: Without baycomp.

        Note:
            50,000 draws of one fixed seed, prior strength 0.5 on a difference of 0, as in the paper. Where two methods
            are equal, one of them gets more than 0.95 in 19 % of cases with 5 data sets, 12 % with 10 and 10 % with 50.

        Source:
            Benavoli, Corani, Demsar and Zaffalon, "Time for a Change: a Tutorial for Comparing Multiple Classifiers
            Through Bayesian Analysis", JMLR 18 (2017).
        """
        means = self._mean_by_method(metric)
        check_number("rope", rope, low=0)
        if len(self.models) < _MIN_DATASETS:
            raise InputError(
                f"the signed-rank test requires at least {_MIN_DATASETS} data sets",
                f"{len(self.models)} {self.kind}",
                "Name more benches.",
            )
        test = require("baycomp", extra="bayes").SignedRankTest
        named = [self._parse_pair(pair) for pair in pairs] or list(combinations(means, 2))
        sign = 1 if METRICS[self._check_metric(metric)].higher_is_better else -1
        rows = []
        for a, b in named:
            scores = (sign * np.array(means[method]) for method in (a, b))
            a_better, *equal, b_better = test.probs(*scores, rope, random_state=SEED)
            rows.append(
                [f"{a} : {b}", *(f"{p:.3f}" for p in (a_better, *(equal or [0.0]), b_better))]
            )
        title = f"{metric_column(metric).title}, {self.name}: probabilities"
        note = (
            f"Bayesian signed ranks (Benavoli et al. 2017) over {len(self.models)} {self.kind}; "
            f"differences up to {rope:g} are equivalent."
        )
        heads = ("A : B", "A better", "equivalent", "B better")
        return make_table(heads, rows, title=title, notes=[note])

    def blocks(
        self, metrics: Sequence[str] = METRICS_SHOWN, *, details: bool = False
    ) -> list[Block]:
        """Return the sentences, tables and notes to print in a terminal."""
        if len(self.models) == 1:
            (model,) = self.models.values()
            legend = short_legend(model)
            return [
                *self.verdict_sentences(),
                short_bench_table(model),
                Note(" ".join(legend)),
                *self.missing(),
            ]
        spread = details or len(self.models) < 4
        tables = [self.table(metric, spread=spread) for metric in metrics]
        return [
            *self.verdict_sentences(metrics),
            *tables,
            Note(self.caption(*tables)),
            *self.missing(),
        ]

    def missing(self) -> list[str]:
        """Return sentences on missing runs, with the reasons."""
        notes = {name: missing_notes(model) for name, model in self.models.items()}
        several = len(notes) > 1
        return [f"{name}: {each}" if several else each for name in notes for each in notes[name]]

    def caption(self, *tables: Table) -> str:
        """Return the caption of printed tables: test set, spread over seeds, and test."""
        models = list(self.models.values())
        sizes = sorted({m.samples for m in models if m.samples})
        count = (
            f" ({' to '.join(f'{size:,}' for size in sizes[:1] + sizes[1:][-1:])} samples)"
            * bool(sizes)
        )
        n = min(len(model.summary.common_seeds) for model in models)
        others = len(self.methods) - 1
        parts = [f"Test set{count}. {spread_note(models[0])}"]
        if n < FEWEST_SEEDS:
            parts.append(f"Fewer than {FEWEST_SEEDS} seeds: no method is marked as best.")
        elif others:
            parts.append(
                f"In each column the best mean is compared with the others by a two-sided {TEST_NAME} over {n} seeds, "
                f"p ≤ {ALPHA:g} after Holm's correction for {pluralize(others, 'comparison')}."
            )
        if any(cell.extra for table in tables for row in table.rows for cell in row):
            parts.append(
                "In brackets: the ECE that a calibrated model has by chance; ~: within noise of it."
            )
        return " ".join(parts)

    def to_latex(self, metrics: Sequence[str] = METRICS_SHOWN) -> str:
        """Return LaTeX tables for ``booktabs``: one for a single data set, else one per metric."""
        return "\n\n".join(
            latex_table(
                table,
                caption=f"{table.title}. {self.caption(table)}",
                label=f"{self.name}-{number}",
            )
            for number, table in enumerate(self.tables(metrics), start=1)
        )

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row per data set, method and seed; metrics are fractions."""
        rows = []
        for name, model in self.models.items():
            for run in model.summary.runs:
                loss, _, calibrator = run.loss.partition("@")
                about = {
                    "bench": name,
                    "loss": loss,
                    "calibrator": calibrator or RAW,
                    "seed": run.seed,
                }
                rows.append({**about, **run.measured["test"]})
        return require("pandas", extra="tables").DataFrame(rows)

    def figure(self, metric: str = "nll", *, ax: Axes | None = None) -> Any:
        """Draw one dot per seed; for several data sets, draw the critical-difference diagram.

        Args:
            metric: Registry name.
            ax: Axes of matplotlib to draw on; None: of a new figure.

        Returns:
            The Axes.
        """
        if len(self.models) > 1:
            return critical_difference_diagram(self.ranks(metric), ax=ax)
        (model,) = self.models.values()
        about = metric_column(self._check_metric(metric))
        values, floors = values_by_seed(model, about)
        return seed_values(values, floors=floors, label=about.head, ax=ax)

    @without_pyplot()
    def html(self, metrics: Sequence[str] = METRICS_SHOWN) -> str:
        """Return a self-contained page with sentences, tables and figures."""
        tables = self.tables(metrics)
        return render(
            "comparison.html.j2",
            package="fedlas.lab.report",
            title=f"Comparison of methods: {self.name}",
            made=creation_note(),
            sentences=self.verdict_sentences(metrics),
            missing=self.missing(),
            tables=tables,
            caption=self.caption(*tables),
            pictures=[
                (title, to_inline_svg(self.figure(m), title))
                for m in metrics
                for title in [
                    f"{'Mean ranks' if len(self.models) > 1 else 'Methods'} by {metric_column(m).title}"
                ]
            ],
        )

    @without_pyplot()
    def write(self, folder: Path, metrics: Sequence[str] = METRICS_SHOWN) -> list[Path]:
        """Write ``comparison.html`` and ``.tex``, and one figure per metric as PDF and SVG; return the paths.

        Raises:
            InputError: If the folder cannot be written to.
        """
        texts = {"html": self.html(metrics), "tex": self.to_latex(metrics) + "\n"}
        written = [write_text(folder / f"comparison.{kind}", text) for kind, text in texts.items()]
        for metric in metrics:
            picture = self.figure(metric).figure
            paths = (folder / f"comparison-{metric}.{kind}" for kind in ("pdf", "svg"))
            written += [write_picture(picture, path) for path in paths]
        return written

    def __repr__(self) -> str:
        return blocks_to_text(self.blocks())

    @without_pyplot()
    def _repr_html_(self) -> str:
        parts = [
            html_table(block)
            if isinstance(block, Table)
            else f"<p>{escape(printable(block if isinstance(block, str) else block.text))}</p>"
            for block in self.blocks()
        ]
        return "".join(parts) + to_themed_svg(self.figure(), f"{METRICS_SHOWN[0]} of the methods")

    def _parse_pair(self, pair: str) -> tuple[str, str]:
        """Return the two methods of a pair ``A:B``; raise InputError if a data set lacks one."""
        return [parse_pair(model.summary, pair) for model in self.models.values()][-1]

    def _check_metric(self, metric: str) -> str:
        """Return the name of a metric; raise InputError if a data set lacks it."""
        return [require_measured_metric(model.summary, metric) for model in self.models.values()][
            -1
        ]
