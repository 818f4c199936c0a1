"""``LabelEvaluation``, which ``fedlas.report`` returns for multi-label predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fedlas._core.kinds import check_argument_types
from fedlas.present.gate import GateResult, run_gate
from fedlas.present.groups import MAX_ROWS, MAX_ROWS_ON_PAGE
from fedlas.present.label_tables import (
    format_metric,
    label_groups_table,
    label_measures_to_dict,
    label_verdict,
    labels_table,
    worst_label_group_sentence,
)
from fedlas.present.metric_tables import metrics_frame, short_table
from fedlas.present.page import creation_note, new_page_axes, render, to_inline_svg, to_themed_svg
from fedlas.present.positive_class import measures_to_dict
from fedlas.present.stages import RAW
from fedlas.present.table import (
    Block,
    Table,
    blocks_to_text,
    html_paragraphs,
    html_table,
    latex_table,
    metric_column,
)
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate

if TYPE_CHECKING:
    from fedlas.binary import LabelGroupMeasures, LabelTable
    from fedlas.calibrated.calibration import Calibration
    from fedlas.predictions import MultiLabel
    from fedlas.present.verdict import Verdict

_MEANS_LEGEND = (
    "macro: mean over labels. micro: over all labels and samples pooled, so that frequent labels dominate. "
    "Intervals are over samples{clusters}, each with all of its labels."
)


@dataclass(frozen=True, eq=False, repr=False)
class LabelEvaluation:
    """Metrics of multi-label predictions, before and after calibration; see :func:`fedlas.report`.

    Attributes:
        name: Name of the predictions.
        stages: Predictions by stage: ``"as predicted"``, and ``"after NAME"`` for a calibrator.
        labels: Measures of each label by stage, and their means as ``overall``.
        fitted: The calibration, by the name of the calibrator of each label; empty if there is none.
        groups: Measures of each group by stage, the strongest evidence first; empty without groups.
        grouped_by: Name of the groups.
        num_bins: Bins of the calibration errors.
        replicates: Number for intervals of the ECE.
        confidence_level: Level of the intervals.
        notes: Sentences on the predictions and the fit.
        repair: How to fit a calibrator, for a reader of the verdict; empty where the command line says it.
        heading: Title of the page; empty is ``name``.
        period: When the samples were collected.
        dropped: Rows that lacked a value and were left out.

    Example:
        >>> import fedlas, torch
        >>> logits = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> evaluation = fedlas.report(fedlas.MultiLabel(3 * logits, target), replicates=99)
        >>> evaluation.require("macro_ece<=0.03", "worst_label_ece<=0.05").status
        3
    """

    name: str
    stages: Mapping[str, MultiLabel]
    labels: Mapping[str, LabelTable]
    fitted: Mapping[str, Calibration] = field(default_factory=dict)
    groups: Mapping[str, Mapping[Any, LabelGroupMeasures]] = field(default_factory=dict)
    grouped_by: str = "group"
    num_bins: int = 15
    replicates: int = REPLICATES
    confidence_level: float = CONFIDENCE_LEVEL
    notes: tuple[str, ...] = ()
    repair: str = ""
    heading: str = ""
    period: str = ""
    dropped: int = 0

    def __repr__(self) -> str:
        return self.text()

    @property
    def estimates(self) -> dict[str, Mapping[str, Estimate]]:
        """Estimates of the means over labels, by stage and metric."""
        return {stage: table.overall for stage, table in self.labels.items()}

    @property
    def measured(self) -> dict[str, dict[str, float]]:
        """Means over labels without intervals, by stage and metric."""
        return {
            stage: {name: each.value for name, each in values.items()}
            for stage, values in self.estimates.items()
        }

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdict on the calibration of each stage, by the tests of all labels together."""
        return {stage: label_verdict(table) for stage, table in self.labels.items()}

    @property
    def verdict(self) -> list[str]:
        """Sentences on how many labels are calibrated, on the worst label, on the calibrator and on groups."""
        sentences = [self.verdicts[RAW].text]
        if len(self.stages) > 1:
            sentences.append(self._effect_sentence())
        elif self.needs_calibration and self.repair:
            sentences.append(f"Next, repair it on held-out predictions: {self.repair}")
        return [
            *sentences,
            *(worst_label_group_sentence(each, stage) for stage, each in self.groups.items()),
        ]

    @property
    def needs_calibration(self) -> bool:
        """Whether labels are miscalibrated and no calibrator has been fitted."""
        return len(self.stages) == 1 and self.verdicts[RAW].rejects_calibration

    def _effect_sentence(self) -> str:
        """Return a sentence on the effect of the calibrator."""
        from fedlas.binary.label_differences import macro_nll_change

        (_, before), (stage, after) = self.labels.items()
        first, last = self.stages.values()
        nll, low, high = macro_nll_change(first, last, self.confidence_level)
        way = (
            "within noise" if not (low > 0 or high < 0) else "beyond noise" if nll < 0 else "WORSE"
        )
        values = [
            f"{metric_column(name).title} {format_metric(name, before.overall[name].value)} -> "
            f"{format_metric(name, after.overall[name].value, unit=True)}"
            for name in ("macro_ece", "worst_label_ece", "macro_nll")
        ]
        done = f"After {next(iter(self.fitted))}" if self.fitted else stage.capitalize()
        return f"{done}: {', '.join(values)} ({way}). {self.verdicts[stage].text}"

    @property
    def title(self) -> str:
        """Title: the name and the numbers of samples, labels and bins."""
        first = self.stages[RAW]
        return (
            f"{self.name}: {first.num_samples:,} samples, {first.num_labels:,} labels, "
            f"{self.num_bins} bins"
        )

    @check_argument_types
    def text(self, *, details: bool = False) -> str:
        """Return the verdict and tables as terminal text.

        Args:
            details: All labels of every stage, with the intervals of ECE, AUROC and share.
        """
        return blocks_to_text(self.blocks(details=details), details=details)

    @check_argument_types
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        most = MAX_ROWS_ON_PAGE if details else MAX_ROWS
        stages = list(self.labels)[:: 1 if details else -1]
        tables = [
            self._labels_table(stage, max_rows=most)
            for stage in (stages if details else stages[:1])
        ]
        return [*self.verdict, self.means(self.title), *tables, *self._group_tables(most)]

    def _group_tables(self, max_rows: int) -> list[Table]:
        """Return a table of groups per stage, the last stage first."""
        by = "" if self.grouped_by == "group" else f" by {self.grouped_by}"
        return [
            label_groups_table(each, title=f"Groups{by}, {stage}", max_rows=max_rows)
            for stage, each in reversed(list(self.groups.items()))
        ]

    def tables(self, *, max_rows: int = MAX_ROWS_ON_PAGE) -> list[Table]:
        """Return a table of labels per stage, the last stage first."""
        return [self._labels_table(stage, max_rows=max_rows) for stage in list(self.labels)[::-1]]

    def means(self, title: str) -> Table:
        """Return the table of means over labels."""
        clusters = "" if self.stages[RAW].clusters is None else ", whole clusters"
        table = short_table(self.measured, title=title, estimates=self.estimates)
        notes = [_MEANS_LEGEND.format(clusters=clusters)]
        first = self.labels[RAW].overall
        floors = [first[name].floor for name in ("macro_ece", "worst_label_ece")]
        if None not in floors:
            mean, worst = (metric_column("ece").format(floor) for floor in floors)
            notes.append(
                "By chance, calibrated labels with these probabilities have a macro ECE of "
                f"{mean} % and a worst ECE of {worst} %."
            )
        # The means have no test of their own, whose column would be empty.
        keep = [n for n, each in enumerate(table.columns) if each.title not in ("floor", "p")]
        table = table.where(keep)
        rows = tuple(tuple(replace(cell, details=()) for cell in row) for row in table.rows)
        return replace(table, rows=rows, notes=tuple(notes), narrow=True)

    def _labels_table(self, stage: str, *, max_rows: int) -> Table:
        title = "Labels" if len(self.labels) == 1 else f"Labels, {stage}"
        return labels_table(
            self.labels[stage], self.confidence_level, title=title, max_rows=max_rows
        )

    @check_argument_types
    def require(self, *rules: str, strict: bool = False) -> GateResult:
        """Check rules on the last stage: the calibrated predictions if there is a calibrator, else the raw ones.

        Args:
            *rules: Bounds such as ``"macro_ece<=0.03"``, ``"worst_label_ece<=5%"``, ``"macro_auroc>=0.8"``; or
                ``"calibrated"``: the tests of no label reject it. The interval decides.
            strict: Whether a rule that the interval does not decide fails.

        Returns:
            A gate that is true if it passes, with ``status`` for a pipeline, and prints its sentences.

        Raises:
            InputError: For an evaluation without intervals, an unknown metric, or a bound that decides nothing.
        """
        stage = list(self.stages)[-1]
        return run_gate(
            rules,
            self.labels[stage].overall,
            self.verdicts[stage],
            replicates=self.replicates,
            samples=self.stages[stage].num_samples,
            dropped=self.dropped,
            strict=strict,
            example="macro_ece<=0.03",
        )

    def json(self) -> str:
        """Return means by stage and measures of every label (as fractions), and the verdict, as JSON."""
        content: dict[str, Any] = {**self.measured, "verdict": self.verdict}
        content["intervals"] = measures_to_dict(self.estimates)
        for key, tables in {"labels": self.labels, "groups": self.groups}.items():
            if tables:
                content[key] = {
                    stage: {str(name): label_measures_to_dict(each) for name, each in table.items()}
                    for stage, table in tables.items()
                }
        content["joint_p"] = {
            stage: each.joint_p for stage, each in self.verdicts.items() if each.joint_p is not None
        }
        return json.dumps(content, indent=2)

    def html(self) -> str:
        """Return a self-contained HTML page with the verdict, the curves of the worst labels and tables."""
        first = self.stages[RAW]
        names = list(self.measured[RAW])
        return render(
            "evaluation.html.j2",
            heading=self.heading or f"Calibration of {self.name}",
            made=creation_note(self.period),
            size=f"{first.num_samples:,} samples, {first.num_labels:,} labels",
            title=self.title.removeprefix(f"{self.name}: "),
            num_bins=self.num_bins,
            verdict=self.verdict,
            short=self.means("Means over labels"),
            whole=self._labels_table(RAW, max_rows=MAX_ROWS_ON_PAGE),
            groups=[*self.tables(), *self._group_tables(MAX_ROWS_ON_PAGE)],
            selection="",
            columns=[(metric_column(name).title, metric_column(name).about) for name in names],
            remarks=list(self.notes),
            beside=[],
            diagrams=self.diagrams(),
            event="the label",
            decisions=[],
            diagrams_title=self._diagrams_title(),
        )

    def _diagrams_title(self) -> str:
        return f"Reliability of the worst labels {RAW}" + (
            f", and {list(self.stages)[-1]}" if len(self.stages) > 1 else ""
        )

    def diagrams(self) -> list[Any]:
        """Draw reliability diagrams of the worst labels per stage for a page."""
        return [to_inline_svg(ax, alt) for ax, alt in self._draw_worst_labels()]

    def _draw_worst_labels(self) -> list[tuple[Any, str]]:
        from fedlas.plots import label_reliability_diagrams
        from fedlas.plots.labels import worst_labels

        worst = worst_labels(self.labels[RAW])
        pictures: dict[str, list[Any]] = {}
        for stage, each in self.stages.items() if worst else ():
            pictures[stage] = label_reliability_diagrams(
                each,
                worst,
                axes=[new_page_axes(3.1, 3.9) for _ in worst],
                title=stage if len(self.stages) > 1 else "",
                replicates=0,
                axes_for=list(self.stages.values()),
            )
        return [
            (pictures[stage][place], f"Reliability diagram of {name}, {stage}")
            for place, name in enumerate(worst)
            for stage in self.stages
        ]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per stage and mean over labels: value, low, high, floor and p.

        ``evaluation.labels[stage].to_frame()`` has a row for each label.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        return metrics_frame(self.measured, self.estimates, {}, {})

    def to_latex(self) -> str:
        """Return the table of labels of the last stage as LaTeX for the package ``booktabs``."""
        return latex_table(self._labels_table(list(self.labels)[-1], max_rows=MAX_ROWS_ON_PAGE))

    def _repr_html_(self) -> str:
        pictures = "".join(
            f"<div style='display: inline-block; width: 15em'>{to_themed_svg(ax, alt)}</div>"
            for ax, alt in self._draw_worst_labels()
        )
        tables = [
            self.means(self.title),
            self._labels_table(list(self.labels)[-1], max_rows=MAX_ROWS),
        ]
        return "".join([html_paragraphs(self.verdict), pictures, *map(html_table, tables)])
