"""``Evaluation``, which ``fedlas.report`` returns: metrics, tests and verdict of predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.kinds import check_kinds
from fedlas.binary import GroupMeasures, Heterogeneity
from fedlas.metrics.metric import event_measures
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions, check_predictions
from fedlas.predictions.event import event_name, event_number
from fedlas.present.gate import GateResult, check_rows, checks_of
from fedlas.present.groups import (
    MOST,
    MOST_ON_PAGE,
    event_groups_table,
    groups_table,
    plain_groups,
    pooled_table,
    whole_of,
    worst_event_group,
    worst_group,
)
from fedlas.present.heterogeneity import cluster_tables, forest_pictures, plain_clusters
from fedlas.present.metric_tables import (
    COMPARED,
    Measured,
    ZTests,
    metrics_frame,
    metrics_table,
    short_table,
    size_of,
    top_label_ece,
    with_meaning,
)
from fedlas.present.page import diagram, image_of, made_by, render
from fedlas.present.positive_class import (
    Decisions,
    decision_tables,
    decision_words,
    event_pictures,
    event_table,
    is_event,
    plain_decisions,
    plain_measures,
    positive_diagrams,
)
from fedlas.present.ranking import SELECTION, lead, rank_stages, ranking_table, signs
from fedlas.present.stages import RAW, Calibrated, Rejections, rejection_blocks
from fedlas.present.table import (
    Block,
    Note,
    Table,
    column,
    html_paragraphs,
    html_table,
    latex,
    text_of,
)
from fedlas.present.tripod import paragraphs, to_paste
from fedlas.present.verdict import Stage, Verdict, effect, verdict
from fedlas.stats import GroupEstimate
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, EstimateTable

REPAIR = "fedlas.report(predictions, on=held_out)"
"""How to fit a calibrator in Python."""
_MOST_COLUMNS = 3  # of more stages each gets a row instead of a column


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
    outcome: Calibrated = field(default_factory=Calibrated)
    num_bins: int = 15
    replicates: int = REPLICATES
    confidence_level: float = CONFIDENCE_LEVEL
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    grouped_by: str = "group"
    repair: str = REPAIR
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
        return event_name(first) if is_event(first) else "class 1"

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdict on the calibration of each stage, by the joint test."""
        return {
            stage: verdict(
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
        """Sentences on calibration, on the effect of the calibrator, on decisions and on the worst group."""
        sentences = self.before_after_sentences
        if self.asks_for_repair and self.repair:
            sentences.append(f"Next, repair it on held-out predictions: {self.repair}")
        last = list(self.decisions.values())[-1] if self.decisions else ()
        sentences += [decision_words(each, self.event) for each in last]
        return [*sentences, *(self._worst(stage) for stage in self.groups)]

    @property
    def before_after_sentences(self) -> list[str]:
        """Sentences on the raw predictions, and on the effect of the calibrator or the best of several."""
        sentences = [self.verdicts[RAW].text]
        after = [stage for stage in self.stages if stage != RAW]
        if len(after) > 1:
            return [*sentences, lead(self.measured, self.estimates)]
        for name in self.outcome.predictions or self.outcome.fitted:
            before, calibrated = map(self.stage, self.stages)
            calibrator = self.outcome.fitted.get(name)
            replicates = self.replicates
            sentences.append(effect(name, calibrator, before, calibrated, replicates=replicates))
        return sentences

    @property
    def title(self) -> str:
        """Title: the name, the number of samples, and the number of events or of classes and bins."""
        if not self.positive:
            return f"{self.name}: {size_of(self.stages[RAW])}, {self.num_bins} bins"
        test = check_predictions(self.stages[RAW])
        events = int((test.target == event_number(test)).sum())
        return f"{self.name}: {test.num_samples:,} samples, {events:,} events of {self.event}"

    @check_kinds
    def text(self, *, details: bool = False) -> str:
        """Return the verdict and tables as terminal text.

        Args:
            details: Every metric with interval, noise floor and p-value instead of the main ones.
        """
        return text_of(self.blocks(details=details), details=details)

    @check_kinds
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
        stage = list(self.stages)[-1]
        estimates = {**self.estimates.get(stage, {}), **self.positive.get(stage, {})}
        if not rules or not estimates or not self.replicates:
            raise InputError(
                "a gate requires at least one rule, and a report with intervals",
                f"{len(rules)} rules, {self.replicates} replicates",
                "Pass rules such as 'ece<=0.03', and call fedlas.report without replicates=0.",
            )
        event = self.event if self.positive else ""
        checks = checks_of(rules, estimates, self.verdicts[stage], event=event)
        samples = self.stages[stage].num_samples
        return GateResult(tuple(check_rows(checks, samples=samples, dropped=self.dropped)), strict)

    def tripod(self) -> str:
        """Return a paragraph for a paper as TRIPOD+AI asks: samples, events, calibration and C statistic.

        Raises:
            InputError: If the event of two classes is not the subject.
        """
        return paragraphs({s: (self.stages[s], m) for s, m in self.positive.items()}, self.event)

    def json(self) -> str:
        """Return metrics (as fractions, in full precision), intervals, tests and verdict as JSON."""
        content: dict[str, Any] = {**self.measured, "verdict": self.verdict}
        if self.estimates:
            content["intervals"] = plain_measures(self.estimates)
        if self.z:
            content["spiegelhalter"] = {stage: test._asdict() for stage, test in self.z.items()}
        joint = {
            stage: each.joint_p for stage, each in self.verdicts.items() if each.joint_p is not None
        }
        if joint:
            content["joint_p"] = joint
        if self.groups:
            content["groups"] = {
                stage: plain_groups(by_group) for stage, by_group in self.groups.items()
            }
        if self.heterogeneity:
            content["heterogeneity"] = plain_clusters(self.heterogeneity)
        if self.positive:
            content["positive class"] = plain_measures(self._events)
        if self.decisions:
            content["decisions"] = plain_decisions(self.decisions)
        if self.rejected:
            content["reject"] = {
                stage: [each.plain() for each in row] for stage, row in self.rejected.items()
            }
        if self._compares:
            content["not run"] = {name: str(error) for name, error in self.outcome.errors.items()}
            content["ranking"] = [
                asdict(rank) for rank in rank_stages(self.measured, self._of_all_classes)
            ]
        return json.dumps(content, indent=2)

    def html(self) -> str:
        """Return a self-contained HTML page with the verdict, reliability diagrams and tables."""
        names = list(self.measured[RAW])
        described = event_measures() if self.positive else names
        if self._compares:
            notes = tuple(
                filter(None, [signs(self.measured, self._of_all_classes, self.estimates)])
            )
            short = replace(self._ranking("Main metrics"), notes=notes)
            whole = self._ranking("All metrics", metrics=names)
        else:
            short = with_meaning(self._main("Main numbers"))
            whole = self.whole("All numbers")
        diagrams = self.diagrams()
        beside = [] if self._compares and not self.positive else diagrams
        if self.positive and not self._compares:
            beside += event_pictures(self._of_all_classes, self.decisions, self.event)
            beside += forest_pictures(self.heterogeneity)
        return render(
            "evaluation.html.j2",
            heading=self.heading or f"Calibration of {self.name}",
            made=made_by(self.period),
            size=size_of(self.stages[RAW]),
            title=self.title.removeprefix(f"{self.name}: "),
            num_bins=self.num_bins,
            verdict=self.verdict,
            short=short,
            whole=whole,
            groups=self._group_tables(most=MOST_ON_PAGE)
            + cluster_tables(self.heterogeneity, most=MOST_ON_PAGE),
            selection=SELECTION if self._compares else "",
            columns=[
                (c.title, c.about)
                for c in (column(name, event=bool(self.positive)) for name in described)
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
        if self.positive:
            return positive_diagrams(self.stages, self.positive, event=self.event)
        return [
            diagram(stage, each, self.num_bins, band=True) for stage, each in self.stages.items()
        ]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row per stage and metric: value, interval, noise floor and p-value.

        Rows of the event come first, if there is one.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        z = {} if self.positive else self.z
        return metrics_frame(self.measured, self.estimates, self._events, z)

    def to_latex(self) -> str:
        """Return the table of the main metrics as LaTeX for the package ``booktabs``."""
        return latex(self._main(self.title))

    def _repr_html_(self) -> str:
        pictures = dict(list(self.stages.items())[:_MOST_COLUMNS])
        images = "".join(image_of(*each, self.num_bins) for each in pictures.items())
        tables = [self._main(self.title), *self._group_tables(most=MOST)]
        tables += cluster_tables(self.heterogeneity, most=None)
        return "".join([html_paragraphs(self.verdict), images, *map(html_table, tables)])

    @check_kinds
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        blocks: list[Block] = [*self.verdict]
        if self._compares:
            table = self._ranking(self.title, **({"metrics": COMPARED} if details else {}))
            blocks += [
                table if details else replace(table, notes=()),
                *filter(None, [signs(self.measured, self._of_all_classes, self.estimates)]),
                SELECTION,
            ]
        elif details:
            blocks.append(self.whole(self.title))
        elif not self.groups:  # a table of groups and one of metrics do not fit a terminal
            blocks.append(with_meaning(self._main(self.title)))
        blocks += reversed(self._group_tables(most=MOST_ON_PAGE if details else MOST))
        blocks += cluster_tables(self.heterogeneity, most=MOST_ON_PAGE if details else None)
        blocks += decision_tables(self.decisions) if self.decisions else []
        if details and (tests := self.verdicts[RAW].joint_tests):
            blocks.append(Note(f"joint p: p-value of {tests} calibration tests together."))
        blocks += to_paste(self.tripod()) if details and self.positive else []
        return [
            *blocks,
            *self.outcome.remarks(short=self._compares),
            *rejection_blocks(self.rejected),
        ]

    @property
    def _compares(self) -> bool:
        """Whether there are too many stages for a column each, so that each stage gets a row."""
        return len(self.stages) > _MOST_COLUMNS

    @property
    def _of_all_classes(self) -> dict[str, Predictions]:
        return {stage: check_predictions(each) for stage, each in self.stages.items()}

    @cached_property
    def _events(self) -> dict[str, dict[str, Estimate]]:
        """Estimates of the event's measures by stage, including Spiegelhalter's z."""
        events = {}
        for stage, values in self.positive.items():
            events[stage] = dict(values)
            if stage in self.z:
                z, p = self.z[stage]
                events[stage]["spiegelhalter_z"] = Estimate(z, nan, nan, p=p, test="Spiegelhalter")
        return events

    def _main(self, title: str) -> Table:
        """Return the table of the main metrics, of the event or of the predicted class."""
        if self.positive:
            return event_table(self._events, title=title, details=False)
        return short_table(self.measured, title=title, estimates=self.estimates)

    def _worst(self, stage: str) -> str:
        by_group: Any = self.groups[stage]
        sentence = (
            worst_event_group(by_group, self.event) if self.positive else worst_group(by_group)
        )
        if len(self.groups) == 1:
            return sentence
        return sentence.replace("Groups:", f"Groups {'before' if stage == RAW else stage}:", 1)

    @property
    def asks_for_repair(self) -> bool:
        """Whether the predictions are miscalibrated and no calibrator has been fitted."""
        raw = self.verdicts[RAW]
        return len(self.stages) == 1 and raw.is_clear and not raw.is_reversed

    def stage(self, stage: str) -> Stage:
        """Return the predictions, verdict, NLL, and ECE or ICI of a stage, to describe the effect of a calibrator."""
        ici = self.positive[stage].get("ici") if stage in self.positive else None
        values = self.measured[stage]
        name = top_label_ece(values)
        measure = column(name).title if ici is None else "ICI"
        error = values[name] if ici is None else ici.value
        return Stage(self.stages[stage], self.verdicts[stage], measure, error, values.get("nll"))

    def _ranking(self, title: str, **options: Any) -> Table:
        return ranking_table(
            self.measured, self._of_all_classes, title=title, estimates=self.estimates, **options
        )

    def whole(self, title: str) -> Table:
        """Return the table of all metrics, of the event or of the predicted class."""
        if self.positive:
            return with_meaning(event_table(self._events, title=title, details=True))
        return metrics_table(self.measured, title=title, estimates=self.estimates, z=self.z)

    def _group_tables(self, *, most: int) -> list[Table]:
        """Return the tables of groups, the last stage first; a page also gets the slopes of the groups of an event."""
        tables = []
        for stage, by_group in reversed(list(self.groups.items())):
            when = stage if len(self.groups) == 1 else "before" if stage == RAW else stage
            by = "" if self.grouped_by == "group" else f" by {self.grouped_by}"
            title = f"Groups{by}, {when}"
            parts: Any = by_group
            if self.positive:
                tables.append(event_groups_table(parts, title=title, most=most))
                slopes = f"Slopes of groups{by}, {when}"
                if most > MOST:
                    tables.append(pooled_table(parts, title=slopes, most=most))
                continue
            samples = sum(each.num_samples for each in by_group.values())
            whole = whole_of(self.measured[stage], self.estimates.get(stage, {}), samples)
            tables.append(groups_table(parts, title=title, whole=whole, most=most))
        return tables
