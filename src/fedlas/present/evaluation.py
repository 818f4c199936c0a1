"""``fedlas.report``: predictions measured, before and after calibrators, as one object to print, show or save."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any

from fedlas._core.check import InputError, check_kinds
from fedlas._core.extras import require
from fedlas._core.text import printable
from fedlas.metrics import evaluate
from fedlas.predictions import MultiLabel, Predictions, PredictionTable
from fedlas.predictions.predictions import AnyPredictions, check_measurable, check_predictions, plain_predictions
from fedlas.present.groups import MOST, groups_table, plain_groups, whole_of, worst_group
from fedlas.present.metric_tables import (
    COMPARED,
    Estimates,
    Measured,
    ZTests,
    classes_of,
    metrics_table,
    short_table,
    size_of,
    with_meaning,
)
from fedlas.present.page import diagram, render
from fedlas.present.positive_class import (
    measures_by_stage,
    measures_table,
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
from fedlas.stats.estimates import REPLICATES, Estimate

RAW = "as predicted"
"""The stage before any calibrator."""
_OWNER = "report"
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
        positive: Measures of the positive class by stage, of two classes.
        groups: Accuracy and ECE by stage, then by group, the worst group first.
        rejected: Confidence to accept predictions from, by stage.
        outcome: The calibrators, and why others did not run.
        num_bins: Bins of the calibration errors.
        replicates: Of intervals and tests.
        notes: Sentences on the predictions and the fits.
        classes: Names of the classes; empty if they have none.
        grouped_by: Name of the groups.
        repair: How to fit a calibrator, for a reader of the verdict.
    """

    name: str
    stages: Mapping[str, AnyPredictions]
    measured: Measured
    estimates: Estimates
    z: ZTests = field(default_factory=dict)
    positive: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[Any, GroupEstimate]] = field(default_factory=dict)
    rejected: Rejections = field(default_factory=dict)
    outcome: Calibrated = field(default_factory=Calibrated)
    num_bins: int = 15
    replicates: int = REPLICATES
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    grouped_by: str = "group"
    repair: str = "fedlas.report(predictions, on=held_out)"

    def __repr__(self) -> str:
        return self.text()

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Whether the predictions of each stage are calibrated, by every test of the tables."""
        name = f"class {self.classes[1]!r}" if len(self.classes) == 2 else "class 1"
        return {
            stage: verdict(
                self.measured[stage],
                self.estimates.get(stage, {}),
                self.positive.get(stage, {}),
                predictions,
                z=self.z.get(stage),
                positive=name,
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
        return [*sentences, *(worst_group(by_group) for by_group in self.groups.values())]

    @property
    def title(self) -> str:
        """Name, samples, classes and bins."""
        return f"{self.name}: {size_of(self.stages[RAW])}, {self.num_bins} bins"

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
        if self.groups:
            content["groups"] = {stage: plain_groups(by_group) for stage, by_group in self.groups.items()}
        if self.positive:
            content["positive class"] = plain_measures(self.positive)
        if self.rejected:
            content["reject"] = {stage: [each.plain() for each in row] for stage, row in self.rejected.items()}
        if self._compares:
            content["not run"] = {name: str(error) for name, error in self.outcome.errors.items()}
            content["ranking"] = [asdict(rank) for rank in rank_stages(self.measured, self._of_all_classes)]
        return json.dumps(content, indent=2)

    def html(self) -> str:
        """Return a page that needs no other file: verdict, reliability diagrams and tables."""
        names = list(self.measured[RAW])
        if self._compares:
            notes = tuple(filter(None, [self._signs]))
            short = replace(self._ranking("Main metrics"), notes=notes)
            whole = self._ranking("All metrics", metrics=names)
        else:
            short, whole = self._short("Main metrics"), self._whole("All metrics")
        # Beside the sentence stands its subject: the positive class of two, else the predicted class.
        diagrams = [diagram(stage, each, self.num_bins, band=True) for stage, each in self.stages.items()]
        beside = positive_diagrams(self.stages, self.positive) or ([] if self._compares else diagrams)
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
            columns=[(c.title, c.about) for c in map(column, names)],
            remarks=[*self.outcome.remarks(), *self.notes],
            beside=beside,
            diagrams=[] if beside is diagrams else diagrams,
            positive=measures_table(self.positive, details=True) if self.positive else None,
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row for each stage and metric: value, interval, noise floor and p-value.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        rows = []
        for stage, values in self.measured.items():
            for name, value in values.items():
                each = self.estimates.get(stage, {}).get(name)
                rows.append((stage, name, value, *((each.low, each.high, each.floor, each.p) if each else [None] * 4)))
            if stage in self.z:
                rows.append((stage, "spiegelhalter_z", self.z[stage].z, None, None, 0.0, self.z[stage].p_value))
        return require("pandas", extra="tables").DataFrame(
            rows, columns=["stage", "metric", "value", "low", "high", "floor", "p"]
        )

    def to_latex(self) -> str:
        """Return the table of main metrics in LaTeX; it needs the package ``booktabs``."""
        return latex(self._short(self.title))

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
        tables = [self._short(self.title), *(table for _, table in self._group_tables(most=MOST))]
        return "".join([sentences, images, *map(html_table, tables)])

    @check_kinds
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        blocks: list[Block] = [*self.verdict]
        if self._compares:
            table = self._ranking(self.title, **({"metrics": COMPARED} if details else {}))
            blocks += [table if details else replace(table, notes=()), *filter(None, [self._signs]), SELECTION]
        elif details:
            blocks.append(self._whole(self.title))
        elif not self.groups:  # a table of groups and one of metrics do not fit a terminal
            blocks += with_meaning(self._short(self.title))
        if self.positive and not self.groups:
            blocks.append(measures_table(self.positive, details=details))
        blocks += [table for _, table in self._group_tables(most=None if details else MOST)]
        return [*blocks, *self.outcome.remarks(short=self._compares), *rejection_blocks(self.rejected)]

    @property
    def _compares(self) -> bool:
        """Whether there are more stages than a table has columns for."""
        return len(self.stages) > _MOST_COLUMNS

    @property
    def _of_all_classes(self) -> dict[str, Predictions]:
        return {stage: check_predictions(_OWNER, each) for stage, each in self.stages.items()}

    def _stage(self, stage: str) -> Stage:
        ici = self.positive.get(stage, {}).get("ici")
        verdict = self.verdicts[stage]
        return Stage(self.stages[stage], verdict, self.measured[stage]["ece"], None if ici is None else ici.value)

    @property
    def _signs(self) -> str:
        return signs(self.measured, self._of_all_classes, self.estimates)

    def _ranking(self, title: str, **options: Any) -> Table:
        return ranking_table(self.measured, self._of_all_classes, title=title, estimates=self.estimates, **options)

    def _short(self, title: str) -> Table:
        classes = classes_of(self.stages[RAW])
        return short_table(self.measured, title=title, estimates=self.estimates, z=self.z, num_classes=classes)

    def _whole(self, title: str) -> Table:
        return metrics_table(self.measured, title=title, estimates=self.estimates, z=self.z)

    def _group_tables(self, *, most: int | None) -> list[tuple[str, Table]]:
        return [
            (
                worst_group(by_group),
                groups_table(
                    by_group,
                    title=f"Groups by {self.grouped_by}, {stage}",
                    whole=whole_of(
                        self.measured[stage],
                        self.estimates.get(stage, {}),
                        sum(each.num_samples for each in by_group.values()),
                    ),
                    most=most,
                ),
            )
            for stage, by_group in self.groups.items()
        ]


@check_kinds
def report(
    predictions: AnyPredictions | PredictionTable | MultiLabel,
    *,
    on: AnyPredictions | PredictionTable | MultiLabel | HeldOut | None = None,
    calibrate: str | None = None,
    reject: Sequence[float] = (),
    groups: Sequence[Any] | None = None,
    num_bins: int = 15,
    replicates: int = REPLICATES,
    name: str = "predictions",
    **about: Any,
) -> Evaluation:
    """Measure predictions, with intervals and calibration tests, and what a calibrator makes of them.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, a :class:`~fedlas.TopLabel`, or what
            :func:`~fedlas.read_predictions` returned, whose groups and class names are used. A
            :class:`~fedlas.MultiLabel` is measured with its labels pooled, and each label as a group.
        on: Held-out predictions of the same model, of the same kind, which a calibrator is fitted on.
        calibrate: Registry name of the calibrator, or ``"all"`` to compare all; None with ``on``: ``"auto"``.
        reject: Shares of wrong among accepted predictions, each in (0, 1): from which confidence to accept.
        groups: Group of each sample ``(N,)``: accuracy and ECE of each.
        num_bins: Number of bins of calibration errors, at least 1.
        replicates: Of intervals and tests, at least 39; 0 makes none.
        name: Name of the predictions, for titles.
        **about: Further fields of :class:`Evaluation`, such as ``classes``.

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
        'Over-confident: it claims 76.1 % on average and is right in 59.5 % (400 samples).'
    """
    options = {"num_bins": num_bins, "replicates": replicates}
    check_options(_OWNER, risk="reject", risks=reject, classes=about.get("classes"), name=name, **options)
    if isinstance(predictions, MultiLabel):
        about = {"classes": ("absent", "present"), **about}
        groups = predictions.names_of_rows() if groups is None else groups
        predictions = predictions.pooled()
    on = on.pooled() if isinstance(on, MultiLabel) else on
    if isinstance(predictions, PredictionTable):
        about = {"classes": predictions.classes, **about}
        groups = predictions.groups if groups is None else groups
        predictions = predictions.predictions
    predictions = check_measurable(_OWNER, predictions)
    val = plain_predictions(on)
    held_out: HeldOut | None = HeldOut(val) if isinstance(val, AnyPredictions) else val
    if held_out is not None and calibrate is None and not reject:
        calibrate = DEFAULT
    check_stages(predictions, held_out, calibrate, reject, groups)
    # The stages: as predicted, and after each calibrator.
    stages: dict[str, AnyPredictions] = {RAW: predictions}
    outcome, notes = Calibrated(), list(about.pop("notes", ()))
    if held_out is not None:
        notes += filter(None, [training_data(held_out.val, predictions) if held_out.val is not None else ""])
        if calibrate is not None:
            outcome = calibrated(calibrate, predictions, held_out)
            stages |= {f"after {each}": after for each, after in outcome.predictions.items()}
    if predictions.weights is not None and classes_of(predictions) == 2:
        notes.append("Measures of the positive class count every sample once, so with weights there are none.")
    # Their metrics, intervals and tests.
    measured = {stage: evaluate(each, num_bins=num_bins) for stage, each in stages.items()}
    names = COMPARED if calibrate == ALL else list(measured[RAW])
    estimates = estimates_by_stage(stages, names, values=measured, **options)
    z: dict[str, Any] = {}
    for stage, each in stages.items() if replicates else ():
        with suppress(InputError):  # confidences of 0, 1/2 and 1 alone
            z[stage] = spiegelhalter_test(each)
    by_group: dict[str, Any] = {}
    if groups is not None:
        by_group = {stage: group_estimates(each, groups, **options) for stage, each in stages.items()}
    positive = measures_by_stage(stages, replicates=replicates) if classes_of(predictions) == 2 else {}
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
        positive,
        by_group,
        rejected,
        outcome,
        num_bins,
        replicates,
        notes=(*notes, *outcome.notes),
        **about,
    )
