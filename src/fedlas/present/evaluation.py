"""``fedlas.report``: predictions measured, before and after calibrators, as one object to print, show or save."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html import escape
from math import nan
from typing import Any

from fedlas._core.check import InputError, check_kinds
from fedlas._core.extras import require
from fedlas._core.text import printable
from fedlas.binary import GroupMeasures, group_measures
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions, PredictionTable
from fedlas.predictions.predictions import (
    AnyPredictions,
    check_measurable,
    check_predictions,
    plain_predictions,
)
from fedlas.present.groups import (
    MOST,
    event_groups_table,
    groups_table,
    plain_event_groups,
    plain_groups,
    pooled_table,
    whole_of,
    worst_event_group,
    worst_group,
)
from fedlas.present.metric_tables import (
    COMPARED,
    Measured,
    ZTests,
    metrics_table,
    short_table,
    size_of,
    with_meaning,
)
from fedlas.present.page import diagram, render
from fedlas.present.positive_class import (
    ROWS,
    event_frame,
    event_table,
    is_event,
    measures_by_stage,
    plain_measures,
    positive_diagrams,
)
from fedlas.present.ranking import SELECTION, lead, rank_stages, ranking_table, signs
from fedlas.present.stages import (
    ALL,
    DEFAULT,
    Calibrated,
    HeldOut,
    Rejections,
    calibrated,
    check_options,
    check_stages,
    estimates_by_stage,
    rejection_blocks,
    rejections,
)
from fedlas.present.table import Block, Table, column, html_table, latex, text_of
from fedlas.present.verdict import Stage, Verdict, effect, training_data, verdict
from fedlas.stats import GroupEstimate, group_estimates, spiegelhalter_test
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES, Estimate, EstimateTable

RAW = "as predicted"
"""The stage before any calibrator."""
REPAIR = "fedlas.report(predictions, on=held_out)"
"""How to fit a calibrator in Python."""
_MOST_COLUMNS = 3  # of more stages each gets a row instead of a column


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Metrics of predictions with intervals and tests, before and after calibrators; see :func:`fedlas.report`.

    Attributes:
        name: Name of the predictions.
        stages: Predictions by stage: ``"as predicted"``, and ``"after NAME"`` for each calibrator.
        measured: Metrics by stage, then by registry name, as fractions.
        estimates: Their intervals, noise floors and calibration tests, where there are any.
        z: Spiegelhalter's test by stage, where tests were asked for and confidences differ.
        positive: Measures of the event by stage; empty if the predicted class is the subject.
        groups: Measures of each group by stage, the worst group first: of events, or accuracy and ECE.
        rejected: Confidence to accept predictions from, by stage.
        outcome: The calibrators, and why others did not run.
        num_bins: Bins of the calibration errors.
        replicates: Of intervals and tests.
        confidence_level: Level of the intervals.
        notes: Sentences on the predictions and the fits.
        classes: Names of the classes; empty if they have none.
        grouped_by: Name of the groups.
        repair: How to fit a calibrator, for a reader of the verdict.
    """

    name: str
    stages: Mapping[str, AnyPredictions]
    measured: Measured
    estimates: Mapping[str, Mapping[str, Estimate]]
    z: ZTests = field(default_factory=dict)
    positive: Mapping[str, EstimateTable] = field(default_factory=dict)
    groups: Mapping[str, Mapping[Any, GroupEstimate | GroupMeasures]] = field(default_factory=dict)
    rejected: Rejections = field(default_factory=dict)
    outcome: Calibrated = field(default_factory=Calibrated)
    num_bins: int = 15
    replicates: int = REPLICATES
    confidence_level: float = CONFIDENCE_LEVEL
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    grouped_by: str = "group"
    repair: str = REPAIR

    def __repr__(self) -> str:
        return self.text()

    @property
    def event(self) -> str:
        """Name of the event, the second of two classes."""
        return repr(self.classes[1]) if len(self.classes) == 2 else "class 1"

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Whether the predictions of each stage are calibrated, by all tests of its table together."""
        return {
            stage: verdict(
                self.measured[stage],
                self.estimates.get(stage, {}),
                self.positive.get(stage),
                predictions,
                z=self.z.get(stage),
                event=self.event,
            )
            for stage, predictions in self.stages.items()
        }

    @cached_property
    def verdict(self) -> list[str]:
        """Sentences: how calibrated the predictions are, what a calibrator does to them, and the worst group."""
        first = self.verdicts[RAW]
        sentences = [first.text]
        after = [stage for stage in self.stages if stage != RAW]
        if len(after) > 1:
            sentences.append(lead(self.measured, self.estimates))
        elif after:
            (name,) = self.outcome.predictions
            calibrator = self.outcome.fitted.get(name)
            stages = self._stage(RAW), self._stage(after[0])
            sentences.append(effect(name, calibrator, *stages, replicates=self.replicates))
        elif first.is_clear:
            sentences.append(f"Next, repair it on held-out predictions: {self.repair}")
        return [*sentences, *(self._worst(stage) for stage in self.groups)]

    @property
    def title(self) -> str:
        """Name and samples, with events, or classes and bins."""
        if not self.positive:
            return f"{self.name}: {size_of(self.stages[RAW])}, {self.num_bins} bins"
        test = check_predictions(self.stages[RAW])
        events = int((test.target == 1).sum())
        return f"{self.name}: {test.num_samples:,} samples, {events:,} events of {self.event}"

    @check_kinds
    def text(self, *, details: bool = False) -> str:
        """Return the verdict and tables for a terminal.

        Args:
            details: Every metric with interval, noise floor and p-value instead of the main ones.
        """
        return text_of(self.blocks(details=details), details=details)

    def json(self) -> str:
        """Return everything as JSON: metrics by stage as fractions in full precision, intervals, tests, verdict."""
        content: dict[str, Any] = {**self.measured, "verdict": self.verdict}
        if self.estimates:
            content["intervals"] = {
                stage: {name: each.plain() for name, each in by_name.items()}
                for stage, by_name in self.estimates.items()
            }
        if self.z:
            content["spiegelhalter"] = {stage: test._asdict() for stage, test in self.z.items()}
        joint = {
            stage: each.joint_p for stage, each in self.verdicts.items() if each.joint_p is not None
        }
        if joint:
            content["joint_p"] = joint
        if self.groups:
            plain: Any = plain_event_groups if self.positive else plain_groups
            content["groups"] = {stage: plain(by_group) for stage, by_group in self.groups.items()}
        if self.positive:
            content["positive class"] = plain_measures(self._events)
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
        """Return a page that needs no other file: verdict, reliability diagrams and tables."""
        names = list(self.measured[RAW])
        glossary = [(row.title, row.about) for row in ROWS.values()] if self.positive else []
        if self._compares:
            notes = tuple(filter(None, [self._signs]))
            short = replace(self._ranking("Main metrics"), notes=notes)
            whole = self._ranking("All metrics", metrics=names)
        elif self.positive:
            short = self._event_table("Main measures", details=False)
            whole = self._event_table("All measures", details=True)
        else:
            short = self._short("Main metrics")
            whole = self._whole("All metrics")
        # Beside the sentence stands its subject: the positive class of two, else the predicted class.
        diagrams = [
            diagram(stage, each, self.num_bins, band=True) for stage, each in self.stages.items()
        ]
        beside = positive_diagrams(self.stages, self.positive, event=self.event) or (
            [] if self._compares else diagrams
        )
        return render(
            "evaluation.html.j2",
            name=self.name,
            size=size_of(self.stages[RAW]),
            num_bins=self.num_bins,
            verdict=self.verdict,
            short=short,
            whole=whole,
            groups=self._group_tables(most=None),
            selection=SELECTION if self._compares else "",
            columns=glossary or [(c.title, c.about) for c in map(column, names)],
            remarks=[*self.outcome.remarks(), *self.notes],
            beside=beside,
            diagrams=[] if beside is diagrams or self.positive else diagrams,
            event=self.event if self.positive else "",
            level=f"{100 * self.confidence_level:g}",
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row for each stage and metric: value, interval, noise floor and p-value.

        Rows of the event come first, if there is one.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        rows = event_frame(self._events)
        for stage, values in self.measured.items():
            for name, value in values.items():
                if name in self._events.get(stage, {}):
                    continue
                each = self.estimates.get(stage, {}).get(name)
                rows.append(
                    (
                        stage,
                        name,
                        value,
                        *((each.low, each.high, each.floor, each.p) if each else [None] * 4),
                    )
                )
            if stage in self.z and not self.positive:
                rows.append(
                    (
                        stage,
                        "spiegelhalter_z",
                        self.z[stage].z,
                        None,
                        None,
                        0.0,
                        self.z[stage].p_value,
                    )
                )
        return require("pandas", extra="tables").DataFrame(
            rows, columns=["stage", "metric", "value", "low", "high", "floor", "p"]
        )

    def to_latex(self) -> str:
        """Return the table of main metrics in LaTeX; it needs the package ``booktabs``."""
        return latex(self._main(self.title))

    def _repr_html_(self) -> str:
        pictures = [
            diagram(stage, predictions, self.num_bins, band=True, themed=True)
            for stage, predictions in list(self.stages.items())[:_MOST_COLUMNS]
        ]
        images = "".join(
            f'<img style="width: 20em" alt="Reliability diagram" src="data:image/svg+xml;base64,'
            f'{base64.b64encode(svg.encode()).decode()}">'
            for svg in pictures
        )
        sentences = "".join(f"<p>{escape(printable(sentence))}</p>" for sentence in self.verdict)
        tables = [self._main(self.title), *(table for _, table in self._group_tables(most=MOST))]
        return "".join([sentences, images, *map(html_table, tables)])

    @check_kinds
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        blocks: list[Block] = [*self.verdict]
        if self._compares:
            table = self._ranking(self.title, **({"metrics": COMPARED} if details else {}))
            blocks += [
                table if details else replace(table, notes=()),
                *filter(None, [self._signs]),
                SELECTION,
            ]
        elif self.positive:
            if details or not self.groups:
                blocks += with_meaning(self._event_table(self.title, details=details))
        elif details:
            blocks.append(self._whole(self.title))
        elif not self.groups:  # a table of groups and one of metrics do not fit a terminal
            blocks += with_meaning(self._short(self.title))
        blocks += [table for _, table in self._group_tables(most=None if details else MOST)]
        return [
            *blocks,
            *self.outcome.remarks(short=self._compares),
            *rejection_blocks(self.rejected),
        ]

    @property
    def _compares(self) -> bool:
        """Whether there are more stages than a table has columns for."""
        return len(self.stages) > _MOST_COLUMNS

    @property
    def _of_all_classes(self) -> dict[str, Predictions]:
        return {stage: check_predictions(each) for stage, each in self.stages.items()}

    @cached_property
    def _events(self) -> dict[str, dict[str, Estimate]]:
        """Measures of the event by stage, the NLL among them."""
        events = {}
        for stage, values in self.positive.items():
            nll = self.estimates.get(stage, {}).get("nll") or Estimate(
                self.measured[stage]["nll"], nan, nan
            )
            events[stage] = {**values, "nll": nll}
            if stage in self.z:
                z, p = self.z[stage]
                events[stage]["spiegelhalter_z"] = Estimate(z, nan, nan, p=p, test="Spiegelhalter")
        return events

    def _event_table(self, title: str, *, details: bool) -> Table:
        return event_table(self._events, title=title, details=details)

    def _main(self, title: str) -> Table:
        """Return the table of the main numbers: of the event, or of the predicted class."""
        return self._event_table(title, details=False) if self.positive else self._short(title)

    def _worst(self, stage: str) -> str:
        by_group: Any = self.groups[stage]
        return worst_event_group(by_group, self.event) if self.positive else worst_group(by_group)

    def _stage(self, stage: str) -> Stage:
        ici = self.positive.get(stage, {}).get("ici")
        values = self.measured[stage]
        measure = "ECE" if ici is None else "ICI"
        error = values["ece"] if ici is None else ici.value
        return Stage(self.stages[stage], self.verdicts[stage], measure, error, values.get("nll"))

    @property
    def _signs(self) -> str:
        return signs(self.measured, self._of_all_classes, self.estimates)

    def _ranking(self, title: str, **options: Any) -> Table:
        return ranking_table(
            self.measured, self._of_all_classes, title=title, estimates=self.estimates, **options
        )

    def _short(self, title: str) -> Table:
        test = self.stages[RAW]
        classes = test.num_classes if isinstance(test, Predictions) else 0
        return short_table(
            self.measured, title=title, estimates=self.estimates, z=self.z, num_classes=classes
        )

    def _whole(self, title: str) -> Table:
        return metrics_table(self.measured, title=title, estimates=self.estimates, z=self.z)

    def _group_tables(self, *, most: int | None) -> list[tuple[str, Table]]:
        tables = []
        for stage, by_group in self.groups.items():
            when = stage if len(self.groups) == 1 else "before" if stage == RAW else stage
            title = f"Groups by {self.grouped_by}, {when}"
            parts: Any = by_group
            if self.positive:
                tables.append(
                    (self._worst(stage), event_groups_table(parts, title=title, most=most))
                )
                if most is None:
                    tables.append(
                        ("", pooled_table(parts, title=f"Slopes by {self.grouped_by}, {when}"))
                    )
                continue
            samples = sum(each.num_samples for each in by_group.values())
            whole = whole_of(self.measured[stage], self.estimates.get(stage, {}), samples)
            tables.append(
                (self._worst(stage), groups_table(parts, title=title, whole=whole, most=most))
            )
        return tables


@check_kinds
def report(
    predictions: AnyPredictions | PredictionTable,
    *,
    on: AnyPredictions | PredictionTable | HeldOut | None = None,
    calibrate: str | None = None,
    reject: Sequence[float] = (),
    groups: Sequence[Any] | None = None,
    top_label: bool = False,
    num_bins: int = 15,
    confidence_level: float = CONFIDENCE_LEVEL,
    replicates: int = REPLICATES,
    name: str = "predictions",
    classes: Sequence[str] = (),
    grouped_by: str = "group",
    notes: Sequence[str] = (),
    repair: str = REPAIR,
) -> Evaluation:
    """Measure predictions, with intervals and calibration tests, and what a calibrator makes of them.

    Of two classes the second is an event, and its probability is the subject; of more classes, and of confidences
    alone, the predicted class is.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, a :class:`~fedlas.TopLabel`, or what
            :func:`~fedlas.read_predictions` returned, whose groups and class names are used.
        on: Held-out predictions of the same model, of the same kind, which a calibrator is fitted on.
        calibrate: Registry name of the calibrator, or ``"all"`` to compare all; None with ``on``: ``"auto"``.
        reject: Shares of wrong among accepted predictions, each in (0, 1): from which confidence to accept.
        groups: Group of each sample ``(N,)``: events expected and observed in each, or accuracy and ECE.
        top_label: Whether the predicted class is the subject of two classes, too.
        num_bins: Number of bins of calibration errors, at least 1.
        confidence_level: Level of the intervals, in ``(0, 1)``.
        replicates: Of intervals and tests, at least 39 for level 0.95; 0 makes none.
        name: Name of the predictions, for titles.
        classes: Names of the classes.
        grouped_by: Name of the groups, for titles.
        notes: Sentences to pass on.
        repair: How to fit a calibrator, for a reader of the verdict.

    Returns:
        An object that prints, shows itself in a notebook, and gives ``text()``, ``json()``, ``html()``, ``to_frame()``
        and ``to_latex()``.

    Raises:
        InputError: For predictions without labels, an unknown calibrator or one that cannot run, ``calibrate`` or
            ``reject`` without ``on``, ``on`` that is ``predictions``, or a number out of range.

    Example:
        >>> import torch
        >>> logits = 3 * torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial((logits / 2).softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> report(Predictions(logits, target), replicates=99).verdict[0]
        'Over-confident: it claims 76.1 % on average and is right in 59.5 % (400 samples; joint p ≤ 0.01 of 10 tests).'
    """
    level = {"confidence_level": confidence_level, "replicates": replicates}
    check_options(
        risk="reject", risks=reject, classes=list(classes), name=name, num_bins=num_bins, **level
    )
    if isinstance(predictions, PredictionTable):
        classes = classes or predictions.classes or ()
        groups = predictions.groups if groups is None else groups
        predictions = predictions.predictions
    predictions = check_measurable(predictions)
    val = plain_predictions(on)
    held_out: HeldOut | None = HeldOut(val) if isinstance(val, AnyPredictions) else val
    if held_out is not None and calibrate is None and not reject:
        calibrate = DEFAULT
    check_stages(predictions, held_out, calibrate, reject, groups)
    # The stages: as predicted, and after each calibrator.
    stages: dict[str, AnyPredictions] = {RAW: predictions}
    outcome = Calibrated()
    remarks = list(notes)
    if held_out is not None:
        remarks += filter(
            None, [training_data(held_out.val, predictions) if held_out.val is not None else ""]
        )
        if calibrate is not None:
            outcome = calibrated(calibrate, predictions, held_out)
            stages |= {f"after {each}": after for each, after in outcome.predictions.items()}
    # Their metrics, intervals and tests.
    measured = {stage: evaluate(each, num_bins=num_bins) for stage, each in stages.items()}
    names = COMPARED if calibrate == ALL else list(measured[RAW])
    estimates = estimates_by_stage(stages, names, values=measured, num_bins=num_bins, **level)
    z: dict[str, Any] = {}
    for stage, each in stages.items() if replicates else ():
        with suppress(InputError):  # confidences of 0, 1/2 and 1 alone
            z[stage] = spiegelhalter_test(each)
    event = is_event(predictions) and not top_label
    by_group: dict[str, Any] = {}
    if groups is not None and event:
        for stage, each in stages.items():
            parts = check_predictions(each)
            by_group[stage] = group_measures(parts, groups, confidence_level=confidence_level)
    elif groups is not None:
        for stage, each in stages.items():
            by_group[stage] = group_estimates(each, groups, num_bins=num_bins, **level)
    rejected: Rejections = {}
    if reject and held_out is not None:
        fitted = {f"after {each}": calibrator for each, calibrator in outcome.fitted.items()}
        rejected = rejections(stages, reject, held_out.validation(), fitted)
    return Evaluation(
        name,
        stages,
        measured,
        estimates,
        z,
        measures_by_stage(stages, **level) if event else {},
        by_group,
        rejected,
        outcome,
        num_bins,
        replicates,
        confidence_level,
        (*remarks, *outcome.notes),
        tuple(classes),
        grouped_by,
        repair,
    )
