"""``Evaluation``, which ``fedlas.report`` returns: metrics, tests and verdict of predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any

from fedlas._core.kinds import check_argument_types
from fedlas.metrics.metric import event_measures
from fedlas.predictions.any_predictions import AnyPredictions, require_predictions
from fedlas.predictions.event import event_index, quoted_event
from fedlas.present.groups import (
    MAX_ROWS,
    MAX_ROWS_ON_PAGE,
    all_samples_estimate,
    event_groups_table,
    groups_table,
    groups_to_dict,
    pooled_table,
    worst_event_group_sentence,
    worst_group_sentence,
)
from fedlas.present.metric_tables import (
    CALIBRATOR_METRICS,
    Measured,
    ZTests,
    add_mark_note,
    describe_size,
    metrics_frame,
    metrics_table,
    short_table,
    top_label_ece,
)
from fedlas.present.positive_class import (
    Decisions,
    decision_sentence,
    decision_tables,
    decisions_to_dict,
    draw_event_plots,
    draw_event_reliability,
    event_table,
    has_event,
    measures_to_dict,
)
from fedlas.present.ranking import (
    SELECTION_NOTE,
    lowest_nll_sentence,
    rank_stages,
    ranking_table,
    sign_legend,
)
from fedlas.present.stages import RAW, CalibratedStages, Rejections, rejection_blocks
from fedlas.present.table import (
    Block,
    Note,
    Table,
    blocks_to_text,
    html_paragraphs,
    html_table,
    latex_table,
    metric_column,
)
from fedlas.present.verdict import StageSummary, Verdict, effect_sentence, make_verdict
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, EstimateTable

if TYPE_CHECKING:
    from fedlas.binary import GroupMeasures, Heterogeneity
    from fedlas.predictions import Predictions
    from fedlas.present.gate import GateResult
    from fedlas.stats import GroupEstimate

CALIBRATE_HINT = "fedlas.report(predictions, on=held_out)"
"""How to fit a calibrator in Python."""
_MAX_STAGE_COLUMNS = 3  # of more stages each gets a row instead of a column


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Metrics of predictions with intervals and tests, before and after calibration; see :func:`fedlas.report`.

    Attributes:
        name: Name of the predictions.
        stages: Predictions by stage: ``"as predicted"``, and ``"after NAME"`` for each calibrator.
        measured: Metrics by stage, then by registry name, as fractions.
        estimates: Their intervals, noise floors and calibration tests, where there are any.
        z: Spiegelhalter's test by stage, where tests were asked for and confidences differ.
        positive: Measures of the event by stage; empty if the predicted class is the subject.
        groups: Measures of each group by stage, the worst group first: of events, or accuracy and ECE.
        heterogeneity: Measures of each cluster and their random-effects means by stage; empty if not asked for.
        rejected: Confidence to accept predictions from, by stage.
        decisions: From which probability of the event to act, by stage.
        outcome: The calibrators, and why others did not run.
        num_bins: Bins of the calibration errors.
        replicates: Number for intervals and tests.
        confidence_level: Level of the intervals.
        notes: Sentences on the predictions and the fits.
        classes: Names of the classes; empty if they have none.
        grouped_by: Name of the groups.
        repair: How to fit a calibrator, for a reader of the verdict; empty where the command line says it.
        heading: Title of the page; empty is ``name``.
        period: When the samples were collected.
        dropped: Rows that lacked a value and were left out.
        scores: Columns of the scores, where the predictions come from a table.
    """

    name: str
    stages: Mapping[str, AnyPredictions]
    measured: Measured
    estimates: Mapping[str, Mapping[str, Estimate]]
    z: ZTests = field(default_factory=dict)
    positive: Mapping[str, EstimateTable] = field(default_factory=dict)
    groups: Mapping[str, Mapping[Any, GroupEstimate | GroupMeasures]] = field(default_factory=dict)
    heterogeneity: Mapping[str, Heterogeneity] = field(default_factory=dict)
    rejected: Rejections = field(default_factory=dict)
    decisions: Decisions = field(default_factory=dict)
    outcome: CalibratedStages = field(default_factory=CalibratedStages)
    num_bins: int = 15
    replicates: int = REPLICATES
    confidence_level: float = CONFIDENCE_LEVEL
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    grouped_by: str = "group"
    repair: str = CALIBRATE_HINT
    heading: str = ""
    period: str = ""
    dropped: int = 0
    scores: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.text()

    @property
    def event(self) -> str:
        """Name of the event, the positive of two classes."""
        first = self.stages[RAW]
        return quoted_event(first) if has_event(first) else "class 1"

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdict on the calibration of each stage, by the joint test."""
        return {
            stage: make_verdict(
                self.measured[stage],
                {} if stage in self.positive else self.estimates.get(stage, {}),
                self.positive.get(stage),
                predictions,
                z=self.z.get(stage),
                event=self.event,
                scores=self.scores,
            )
            for stage, predictions in self.stages.items()
        }

    @cached_property
    def verdict(self) -> list[str]:
        """Sentences on calibration, the effect of the calibrator, decisions, clusters and the worst group."""
        sentences = self.before_after_sentences
        if self.needs_calibration and self.repair:
            sentences.append(f"Next, repair it on held-out predictions: {self.repair}")
        last = list(self.decisions.values())[-1] if self.decisions else ()
        sentences += [decision_sentence(each, self.event) for each in last]
        for stage, clusters in self.heterogeneity.items():
            from fedlas.present.heterogeneity import clusters_sentence

            before = "" if len(self.heterogeneity) == 1 else f"{stage[:1].upper()}{stage[1:]}, "
            sentences.append(f"{before}{clusters_sentence(clusters)}")
        return [*sentences, *(self._worst_group_sentence(stage) for stage in self.groups)]

    @property
    def before_after_sentences(self) -> list[str]:
        """Sentences on the raw predictions, and on the effect of the calibrator or the best of several."""
        sentences = [self.verdicts[RAW].text]
        after = [stage for stage in self.stages if stage != RAW]
        if len(after) > 1:
            return [*sentences, lowest_nll_sentence(self.measured, self.estimates)]
        for name, each in self.outcome.fitted.items():
            stages = map(self.stage, self.stages)
            sentences.append(effect_sentence(name, each, *stages, replicates=self.replicates))
        return sentences

    @property
    def title(self) -> str:
        """Title: the name, the number of samples, and the number of events or of classes and bins."""
        if not self.positive:
            return f"{self.name}: {describe_size(self.stages[RAW])}, {self.num_bins} bins"
        test = require_predictions(self.stages[RAW])
        events = int((test.tensors().target == event_index(test)).sum())
        return f"{self.name}: {test.num_samples:,} samples, {events:,} events of {self.event}"

    @check_argument_types
    def text(self, *, details: bool = False) -> str:
        """Return the verdict and tables as terminal text.

        Args:
            details: Every metric with interval, noise floor and p-value instead of the main ones.
        """
        return blocks_to_text(self.blocks(details=details), details=details)

    @check_argument_types
    def require(self, *rules: str, strict: bool = False) -> GateResult:
        """Check rules on the last stage: the calibrated predictions if there is a calibrator, else the raw ones.

        Args:
            *rules: Bounds such as ``"ece<=0.03"``, ``"accuracy>=90%"``, of an event ``"observed_to_expected<=1.2"``; or
                ``"calibrated"``: all tests of calibration together do not reject it. The interval decides.
            strict: Whether a rule that the interval does not decide fails.

        Returns:
            A gate that is true if it passes, with ``status`` for a pipeline, and prints its sentences.

        Raises:
            InputError: For an evaluation without intervals, an unknown metric, or a bound that decides nothing.

        Example:
            >>> import fedlas, torch
            >>> logits = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
            >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
            >>> evaluation = fedlas.report(fedlas.Predictions(3 * logits, target), replicates=99)
            >>> evaluation.require("ece<=0.1", "calibrated").status
            3
        """
        from fedlas.present.gate import run_gate

        stage = list(self.stages)[-1]
        estimates = {**self.estimates.get(stage, {}), **self.positive.get(stage, {})}
        return run_gate(
            rules,
            estimates,
            self.verdicts[stage],
            replicates=self.replicates,
            samples=self.stages[stage].num_samples,
            dropped=self.dropped,
            strict=strict,
            event=self.event if self.positive else "",
        )

    def tripod(self) -> str:
        """Return a paragraph for a paper as TRIPOD+AI asks: samples, events, calibration and C statistic.

        Raises:
            InputError: If the event of two classes is not the subject.
        """
        from fedlas.present.tripod import tripod_paragraphs

        return tripod_paragraphs(
            {s: (self.stages[s], m) for s, m in self.positive.items()}, self.event
        )

    def json(self) -> str:
        """Return metrics (as fractions, in full precision), intervals, tests and verdict as JSON."""
        content: dict[str, Any] = {**self.measured, "verdict": self.verdict}
        if self.estimates:
            content["intervals"] = measures_to_dict(self.estimates)
        if self.z:
            content["spiegelhalter"] = {stage: test._asdict() for stage, test in self.z.items()}
        joint = {
            stage: each.joint_p for stage, each in self.verdicts.items() if each.joint_p is not None
        }
        if joint:
            content["joint_p"] = joint
        if self.groups:
            content["groups"] = {
                stage: groups_to_dict(by_group) for stage, by_group in self.groups.items()
            }
        if self.heterogeneity:
            from fedlas.present.heterogeneity import clusters_to_dict

            content["heterogeneity"] = clusters_to_dict(self.heterogeneity)
        if self.positive:
            content["positive class"] = measures_to_dict(self._event_estimates)
        if self.decisions:
            content["decisions"] = decisions_to_dict(self.decisions)
        if self.rejected:
            content["reject"] = {
                stage: [each.to_dict() for each in row] for stage, row in self.rejected.items()
            }
        if self._compares_many:
            content["not run"] = {name: str(error) for name, error in self.outcome.errors.items()}
            content["ranking"] = [
                asdict(rank) for rank in rank_stages(self.measured, self._class_predictions)
            ]
        return json.dumps(content, indent=2)

    def html(self) -> str:
        """Return a self-contained HTML page with the verdict, reliability diagrams and tables."""
        from fedlas.present.heterogeneity import draw_forest_plots
        from fedlas.present.page import creation_note, render

        names = list(self.measured[RAW])
        described = event_measures() if self.positive else names
        if self._compares_many:
            notes = tuple(
                filter(None, [sign_legend(self.measured, self._class_predictions, self.estimates)])
            )
            short = replace(self._ranking_table("Main metrics"), notes=notes)
            whole = self._ranking_table("All metrics", metrics=names)
        else:
            short = add_mark_note(self._main_table("Main numbers"))
            whole = self.full_table("All numbers")
        diagrams = self.diagrams()
        beside = [] if self._compares_many and not self.positive else diagrams
        if self.positive and not self._compares_many:
            beside += draw_event_plots(self._class_predictions, self.decisions, self.event)
            beside += draw_forest_plots(self.heterogeneity)
        return render(
            "evaluation.html.j2",
            heading=self.heading or f"Calibration of {self.name}",
            made=creation_note(self.period),
            size=describe_size(self.stages[RAW]),
            title=self.title.removeprefix(f"{self.name}: "),
            num_bins=self.num_bins,
            verdict=self.verdict,
            short=short,
            whole=whole,
            groups=self._group_tables(max_rows=MAX_ROWS_ON_PAGE)
            + self._cluster_tables(max_rows=MAX_ROWS_ON_PAGE),
            selection=SELECTION_NOTE if self._compares_many else "",
            columns=[
                (c.title, c.about)
                for c in (metric_column(name, event=bool(self.positive)) for name in described)
            ],
            remarks=[*self.outcome.remarks(), *self.notes],
            beside=beside,
            diagrams=[] if beside else diagrams,
            diagrams_title="Reliability of the predicted class",
            event=self.event if self.positive else "",
            decisions=decision_tables(self.decisions) if self.decisions else [],
        )

    def diagrams(self) -> list[Any]:
        """Draw a reliability diagram per stage for a page, of the event or of the predicted class."""
        from fedlas.present.page import reliability_svg

        if self.positive:
            return draw_event_reliability(self.stages, self.positive, event=self.event)
        return [
            reliability_svg(stage, each, self.num_bins, band=True)
            for stage, each in self.stages.items()
        ]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per stage and metric: value, interval, noise floor and p-value.

        Rows of the event come first, if there is one.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        z = {} if self.positive else self.z
        return metrics_frame(self.measured, self.estimates, self._event_estimates, z)

    def to_latex(self) -> str:
        """Return the table of the main metrics as LaTeX for the package ``booktabs``, with a caption and a label."""
        return latex_table(self._main_table(self.title), caption=f"{self.title}.", label=self.name)

    def _repr_html_(self) -> str:
        from fedlas.present.page import reliability_image

        pictures = dict(list(self.stages.items())[:_MAX_STAGE_COLUMNS])
        images = "".join(reliability_image(*each, self.num_bins) for each in pictures.items())
        tables = [self._main_table(self.title), *self._group_tables(max_rows=MAX_ROWS)]
        tables += self._cluster_tables(max_rows=None)
        return "".join([html_paragraphs(self.verdict), images, *map(html_table, tables)])

    @check_argument_types
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        blocks: list[Block] = [*self.verdict]
        if self._compares_many:
            table = self._ranking_table(
                self.title, **({"metrics": CALIBRATOR_METRICS} if details else {})
            )
            blocks += [
                table if details else replace(table, notes=()),
                *filter(
                    None, [sign_legend(self.measured, self._class_predictions, self.estimates)]
                ),
                SELECTION_NOTE,
            ]
        elif details:
            blocks.append(self.full_table(self.title))
        elif not self.groups:  # a table of groups and one of metrics do not fit a terminal
            blocks.append(add_mark_note(self._main_table(self.title)))
        blocks += reversed(self._group_tables(max_rows=MAX_ROWS_ON_PAGE if details else MAX_ROWS))
        blocks += self._cluster_tables(max_rows=MAX_ROWS_ON_PAGE if details else None)
        blocks += decision_tables(self.decisions) if self.decisions else []
        if details and (tests := self.verdicts[RAW].joint_tests):
            blocks.append(Note(f"joint p: p-value of {tests} calibration tests together."))
        if details and self.positive:
            from fedlas.present.tripod import with_tripod_title

            blocks += with_tripod_title(self.tripod())
        return [
            *blocks,
            *self.outcome.remarks(short=self._compares_many),
            *rejection_blocks(self.rejected),
        ]

    def _cluster_tables(self, *, max_rows: int | None) -> list[Table]:
        """Return the tables of the measures by cluster, if there are some."""
        if not self.heterogeneity:
            return []
        from fedlas.present.heterogeneity import cluster_tables

        return cluster_tables(self.heterogeneity, max_rows=max_rows)

    @property
    def _compares_many(self) -> bool:
        """Whether there are too many stages for a column each, so that each stage gets a row."""
        return len(self.stages) > _MAX_STAGE_COLUMNS

    @property
    def _class_predictions(self) -> dict[str, Predictions]:
        return {stage: require_predictions(each) for stage, each in self.stages.items()}

    @cached_property
    def _event_estimates(self) -> dict[str, dict[str, Estimate]]:
        """Estimates of the event's measures by stage, including Spiegelhalter's z."""
        events = {}
        for stage, values in self.positive.items():
            events[stage] = dict(values)
            if stage in self.z:
                z, p = self.z[stage]
                events[stage]["spiegelhalter_z"] = Estimate(z, nan, nan, p=p, test="Spiegelhalter")
        return events

    def _main_table(self, title: str) -> Table:
        """Return the table of the main metrics, of the event or of the predicted class."""
        if self.positive:
            return event_table(self._event_estimates, title=title, details=False)
        return short_table(self.measured, title=title, estimates=self.estimates)

    def _worst_group_sentence(self, stage: str) -> str:
        by_group: Any = self.groups[stage]
        sentence = (
            worst_event_group_sentence(by_group, self.event)
            if self.positive
            else worst_group_sentence(by_group)
        )
        if len(self.groups) == 1:
            return sentence
        return sentence.replace("Groups:", f"Groups {'before' if stage == RAW else stage}:", 1)

    @property
    def needs_calibration(self) -> bool:
        """Whether the predictions are miscalibrated and no calibrator has been fitted."""
        raw = self.verdicts[RAW]
        return len(self.stages) == 1 and raw.rejects_calibration and not raw.is_reversed

    def stage(self, stage: str) -> StageSummary:
        """Return the predictions, verdict, NLL, and ECE or ICI of a stage, to describe the effect of a calibrator."""
        ici = self.positive[stage].get("ici") if stage in self.positive else None
        values = self.measured[stage]
        name = top_label_ece(values)
        measure = metric_column(name).title if ici is None else "ICI"
        error = values[name] if ici is None else ici.value
        return StageSummary(
            self.stages[stage], self.verdicts[stage], measure, error, values.get("nll")
        )

    def _ranking_table(self, title: str, **options: Any) -> Table:
        return ranking_table(
            self.measured, self._class_predictions, title=title, estimates=self.estimates, **options
        )

    def full_table(self, title: str) -> Table:
        """Return the table of all metrics, of the event or of the predicted class."""
        if self.positive:
            return add_mark_note(event_table(self._event_estimates, title=title, details=True))
        return metrics_table(self.measured, title=title, estimates=self.estimates, z=self.z)

    def _group_tables(self, *, max_rows: int) -> list[Table]:
        """Return the tables of groups, the last stage first; a page also gets the slopes of the groups of an event."""
        tables = []
        for stage, by_group in reversed(list(self.groups.items())):
            stage_name = stage if len(self.groups) == 1 else "before" if stage == RAW else stage
            by = "" if self.grouped_by == "group" else f" by {self.grouped_by}"
            title = f"Groups{by}, {stage_name}"
            parts: Any = by_group
            if self.positive:
                tables.append(event_groups_table(parts, title=title, max_rows=max_rows))
                slopes = f"Slopes of groups{by}, {stage_name}"
                if max_rows > MAX_ROWS:
                    tables.append(pooled_table(parts, title=slopes, max_rows=max_rows))
                continue
            samples = sum(each.num_samples for each in by_group.values())
            whole = all_samples_estimate(
                self.measured[stage], self.estimates.get(stage, {}), samples
            )
            tables.append(groups_table(parts, title=title, all_samples=whole, max_rows=max_rows))
        return tables
