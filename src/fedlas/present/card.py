"""``fedlas.card``: builds the calibration card of a model, to print, show or save."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import Argument, InputError, describe
from fedlas._core.extras import require
from fedlas._core.files import write_text
from fedlas._core.kinds import check_argument_types
from fedlas._core.outputs import check_output_path
from fedlas.deploy.build_card import STAGES, make_card, predictions_by_stage
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.card import CARD, Card
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    PredictionTable,
    require_top_label,
    unwrap_table,
)
from fedlas.predictions.event import event_index, with_event
from fedlas.present.evaluation import Evaluation
from fedlas.present.groups import MAX_ROWS, acceptance_sentence, thresholds_table
from fedlas.present.labels import LabelEvaluation
from fedlas.present.metric_tables import count_classes, estimates_legend, metrics_to_dict
from fedlas.present.page import CARD_PAGE, render
from fedlas.present.positive_class import (
    decision_sentence,
    has_event,
    make_rules,
    measures_to_dict,
    rules_table,
)
from fedlas.present.report import measure_stages
from fedlas.present.stages import DEFAULT, check_options, have_equal_scores
from fedlas.present.table import Block, Note, Table, blocks_to_text, html_paragraphs, html_table
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES
from fedlas.stats.selective_risk import DEFAULT_RISKS

if TYPE_CHECKING:
    from fedlas.binary import Rule
    from fedlas.calibrated import CalibratedModel
    from fedlas.calibrators import Calibrator, MultiLabelCalibration

RECALLS = (0.5, 0.8, 0.9)
"""Of the default decision rules for two classes."""
_CALIBRATED = STAGES[1]


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationCard:
    """A calibration card with the evaluation of its test predictions; see :func:`fedlas.card`.

    Attributes:
        card: The card: what is saved, and what a :class:`~fedlas.deploy.Monitor` reads.
        evaluation: The test predictions, measured before and after calibration; for multi-label predictions
            a :class:`LabelEvaluation`.
    """

    card: Card
    evaluation: Evaluation | LabelEvaluation

    def __repr__(self) -> str:
        return self.text()

    @property
    def verdict(self) -> list[str]:
        """Sentences on calibration before and after the calibrator, and on the thresholds to act or accept from."""
        evaluation = self.evaluation
        if isinstance(evaluation, LabelEvaluation):
            return evaluation.verdict
        sentences = evaluation.before_after_sentences
        if evaluation.positive:
            chosen = evaluation.decisions[_CALIBRATED]
            # Several are told by the table.
            more = [
                decision_sentence(each, evaluation.event) for each in chosen if len(chosen) == 1
            ]
            return [*sentences, *more]
        return [*sentences, acceptance_sentence(self.card.selective)]

    @check_argument_types
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        if isinstance(self.evaluation, LabelEvaluation):
            blocks = [*self.evaluation.blocks(details=details)]
        else:
            thresholds = thresholds_table(self.card.selective)
            first = thresholds if details else thresholds.where((0, 1, 4, 5, 6))
            blocks = [*self.verdict, self._decision_table or first]
            if details:
                blocks += [*([thresholds] if self._decision_table else []), self._metrics_table]
        blocks += self.card.limits if details else []
        return [
            *blocks,
            Note(f"{self.card.name}: {_describe_model(self.card)} {_describe_origin(self.card)}"),
        ]

    @check_argument_types
    def text(self, *, details: bool = False) -> str:
        """Return sentences and thresholds as terminal text; ``details`` adds all metrics and the known limits."""
        return blocks_to_text(self.blocks(details=details), details=details)

    def html(self) -> str:
        """Return the card as a self-contained HTML page."""
        card, evaluation = self.card, self.evaluation
        is_multi_label = isinstance(evaluation, LabelEvaluation)
        return render(
            "card.html.j2",
            title=evaluation.heading or f"Calibration card: {card.name}",
            made=_describe_origin(card),
            statement=_describe_model(card),
            verdict=self.verdict,
            event=_event_name(evaluation),
            whole=self._metrics_table,
            noise_notes=() if is_multi_label else estimates_legend(evaluation.estimates),
            num_bins=evaluation.num_bins,
            most=MAX_ROWS,
            labels=evaluation.tables() if isinstance(evaluation, LabelEvaluation) else [],
            thresholds=thresholds_table(card.selective),
            decisions=self._decision_table,
            selective=card.selective,
            width=_format_interval_width(card.width) if card.width else "",
            level=f"{100 * card.selective['level']:g}",
            diagrams=evaluation.diagrams(),
            limits=card.limits,
            classes=() if is_multi_label else card.classes,
            exported=card.exported,
            about=[
                (key, _format_setting(value))
                for key, value in _provenance_rows(card)
                if _has_content(value)
            ],
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a row per rule or target risk; for several labels, a row per mean over labels.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        evaluation = self.evaluation
        if isinstance(evaluation, LabelEvaluation):
            return evaluation.to_frame()
        rows = [
            {"risk": row["risk"], "threshold": row["threshold"]}
            | {f"test {name}": value for name, value in row.get("test", {}).items()}
            for row in self.card.selective["thresholds"]
        ]
        if self.card.event and evaluation.positive:
            rows = self.card.event["decisions"]
            rows = [
                {
                    name: each["value"] if isinstance(each, dict) else each
                    for name, each in row.items()
                }
                for row in rows
            ]
        return require("pandas", extra="tables").DataFrame(rows)

    def _repr_html_(self) -> str:
        tables = [
            self._decision_table or thresholds_table(self.card.selective),
            self._metrics_table,
        ]
        if isinstance(self.evaluation, LabelEvaluation):
            tables = [self._metrics_table, *self.evaluation.tables(max_rows=MAX_ROWS)]
        return html_paragraphs(self.verdict) + "".join(map(html_table, tables))

    def save(self, path: str | Path) -> Path:
        """Write the card as JSON to ``path`` and as HTML next to ``path``; return the path of the page.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        page = Path(check_output_path("path", path, CARD)).with_suffix(".html")
        place = check_output_path("the page of the card", page, CARD_PAGE)
        text = self.html()
        self.card.save(path)
        return write_text(place, text)

    @property
    def _decision_table(self) -> Table | None:
        """Table of the thresholds on the event's probability; None if the card is about the predicted class."""
        evaluation = self.evaluation
        if isinstance(evaluation, LabelEvaluation) or not evaluation.positive:
            return None
        return rules_table(evaluation.decisions[_CALIBRATED])

    @property
    def _metrics_table(self) -> Table:
        title = "Numbers on the test part"
        evaluation = self.evaluation
        if isinstance(evaluation, LabelEvaluation):
            return evaluation.means(title)
        return evaluation.full_table(title)


@check_argument_types
def card(
    val: AnyPredictions | MultiLabel | PredictionTable,
    test: AnyPredictions | MultiLabel | PredictionTable,
    method: str | Calibrator | MultiLabelCalibration | Calibration | CalibratedModel = DEFAULT,
    *,
    name: str = "model",
    data: str = "test data",
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    num_bins: int = 15,
    title: str = "",
    period: str = "",
    event: str | int | None = None,
    top_label: bool = False,
    cost_ratio: float | None = None,
    budget: float | None = None,
    recall: float | None = None,
    precision: float | None = None,
) -> CalibrationCard:
    """Build the calibration card of a model from its predictions: thresholds, metrics and known limits.

    With two classes one is the event: the card says from which probability to act, and a monitor watches that
    probability. For more classes, and for confidences alone, it says which predictions may be accepted. For several
    labels per sample it has a row per label, and their means.

    Args:
        val: Held-out predictions, not calibrated, on which thresholds are chosen.
        test: Others, on which everything is measured. Both may be a :class:`~fedlas.TopLabel`, or both a
            :class:`~fedlas.MultiLabel`, for which there are no thresholds.
        method: Name of a calibrator to fit on ``val``, or ``"none"``; a fitted one, or a
            :class:`~fedlas.deploy.Calibration` of one, whose notes the card then has; or a calibrated model.
        name: Name of the model.
        data: Name of the test data.
        risks: Shares of wrong among accepted predictions, each in (0, 1).
        replicates: Number for intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        num_bins: Bins of the calibration errors.
        title: Title of the page; empty: of the name.
        period: When the test samples were collected, such as ``"October 2026"``.
        event: Positive class of two, by name or index; None: the event of the predictions, else the affirmative class
            ("yes", "1"), else the second.
        top_label: For two classes, whether the card is about the predicted class instead of the event.
        cost_ratio: For two classes, how many false alarms are as bad as a missed event: from which probability to act.
        budget: The same for a number of samples to act on, out of as many as ``test`` holds.
        recall: The same for a share of the events to find; 0.5, 0.8 and 0.9 where nothing is asked for.
        precision: The same for a share of events among the alarms.

    Returns:
        An object that prints, and gives ``text()``, ``html()`` and ``save(path)``, which ``fedlas monitor`` reads.

    Raises:
        InputError: If the two are the same or have different numbers of classes, the method cannot be used, or a
            number is out of range.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = 4 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial((logits / 2).softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> val, test = Predictions(logits[:500], target[:500]), Predictions(logits[500:], target[500:])
        >>> card(val, test, "temperature", replicates=0).verdict[1]
        'After temperature 2.04: it claims ...; NLL ...'
    """
    from fedlas.present.label_card import build_label_card, check_label_pair

    check_options(replicates=replicates, num_bins=num_bins, risks=risks, classes=classes, name=name)
    about = {"name": data, **({"period": period} if period else {})}
    is_multi_label = isinstance(unwrap_table(val), MultiLabel)
    if is_multi_label or isinstance(unwrap_table(test), MultiLabel):
        pair = check_label_pair(unwrap_table(val), unwrap_table(test), dict(locals()))
        options: dict[str, Any] = {"replicates": replicates, "num_bins": num_bins, "title": title}
        fitted = _to_calibration(method, pair[0], name)
        return CalibrationCard(
            *build_label_card(*pair, fitted, model={"run": name}, data=about, **options)
        )
    validation: AnyPredictions = with_event(require_top_label(val), event, classes or ())
    measured: AnyPredictions = with_event(require_top_label(test), event, classes or ())
    if have_equal_scores(validation, measured):
        fix = "Choose thresholds on held-out predictions: chosen on the test set, their results are too good."
        raise InputError("val and test must be different predictions", "the same", fix)
    if count_classes(validation) != count_classes(measured):
        got = f"{count_classes(validation)} and {count_classes(measured)}"
        raise InputError(
            "val and test must have the same number of classes",
            got,
            "Pass predictions of the same model.",
        )
    calibration = _to_calibration(method, validation, name)
    names = getattr(measured, "classes", None) if classes is None else classes
    return build_card(
        validation,
        measured,
        calibration,
        model={"run": name, "classes": list(names) if names else None},
        data=about,
        risks=risks,
        replicates=replicates,
        num_bins=num_bins,
        title=title,
        top_label=top_label,
        rules=make_rules(cost_ratio, budget, recall, precision),
        scores=test.scores if isinstance(test, PredictionTable) else (),
    )


def _to_calibration(method: object, val: AnyPredictions | MultiLabel, name: str) -> Calibration:
    """Return a calibration from a registry name (fitted to ``val``), a fitted one or a calibrated model."""
    from fedlas.calibrators import Calibrator, MultiLabelCalibration

    fitted: Any = method
    if not isinstance(method, str):
        from fedlas.calibrated import CalibratedModel

        fitted = method.fitted if isinstance(method, CalibratedModel) else method
    if isinstance(fitted, str):
        return fit_calibration(fitted, val)
    value, notes = (
        (fitted.calibrator, fitted.notes) if isinstance(fitted, Calibration) else (fitted, ())
    )
    kind = MultiLabelCalibration if isinstance(val, MultiLabel) else Calibrator
    if isinstance(value, kind):
        return Calibration(value, notes, f"other data, see {name}")
    fix = f"Pass a name such as 'temperature', a fitted {kind.__name__} or a CalibratedModel."
    raise InputError(
        "method must be a calibrator's name or a fitted calibrator", describe(value), fix
    )


def build_card(
    val: AnyPredictions,
    test: AnyPredictions,
    calibration: Calibration,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    risks: Sequence[float],
    replicates: int,
    num_bins: int,
    title: str = "",
    top_label: bool = False,
    rules: Sequence[Rule] = (),
    exported: Mapping[str, Any] | None = None,
    scores: tuple[str, ...] = (),
) -> CalibrationCard:
    """Measure test predictions before and after ``calibration``, and build the calibration card from the results."""
    stages = predictions_by_stage(test, calibration)
    is_binary = has_event(test) and not top_label
    if rules and not is_binary:
        fix = ("Omit it; ", Argument("risks"), " sets thresholds on the confidence.")
        raise InputError(
            "requires an event of two classes", "the predicted class", fix, argument=rules[0].name
        )
    level: dict[str, Any] = {"confidence_level": CONFIDENCE_LEVEL, "replicates": replicates}
    decisions = {}
    held_out = calibration.transform(val)
    after = stages[_CALIBRATED]
    if is_binary and isinstance(held_out, Predictions) and isinstance(after, Predictions):
        from fedlas.binary import Rule, decide

        chosen = rules or [Rule(recall=recall) for recall in RECALLS]
        decisions[_CALIBRATED] = [decide(held_out, after, rule) for rule in chosen]
    evaluation = Evaluation(
        str(model["run"]),
        stages,
        **measure_stages(stages, event=is_binary, num_bins=num_bins, **level),
        decisions=decisions,
        num_bins=num_bins,
        **level,
        classes=tuple(model.get("classes") or ()),
        heading=title,
        scores=scores,
    )
    if calibration.calibrator is not None:
        evaluation.outcome.fitted[calibration.method] = calibration
    event = None
    if is_binary:
        event = {
            "name": evaluation.event,
            "number": event_index(test),
            "measures": measures_to_dict(evaluation.positive),
            "joint_p": {stage: each.joint_p for stage, each in evaluation.positive.items()},
            "decisions": [each.to_dict() for each in decisions[_CALIBRATED]],
        }
    card = make_card(
        val,
        test,
        calibration,
        model=model,
        data=data,
        num_bins=num_bins,
        risks=risks,
        metrics=metrics_to_dict(evaluation.measured, evaluation.estimates),
        replicates=replicates,
        exported=exported,
        event=event,
    )
    return CalibrationCard(card, evaluation)


def _event_name(evaluation: Evaluation | LabelEvaluation) -> str:
    """Return the name of the event, ``"the label"`` for several labels, or an empty string for the predicted class."""
    if isinstance(evaluation, LabelEvaluation):
        return "the label"
    return evaluation.event if evaluation.positive else ""


def _describe_model(card: Card) -> str:
    """Return a sentence on the model, the sizes of its data and its calibration."""
    model = card.model
    sizes = card.data["samples"]
    parts = [f"{sizes[part]:,} {part}" for part in ("train", "val", "test") if part in sizes]
    trained = f"{model['loss']}, seed {model['seed']}, on " if "seed" in model else ""
    classes = (
        f"{card.num_classes:,} {'labels' if card.subject == 'labels' else 'classes'}"
        if card.num_classes
        else "confidences of the predicted class only"
    )
    calibration = _describe_calibration(card.calibration)
    return f"{trained}{card.data['name']}: {classes}; {', '.join(parts)} samples. {calibration}."


def _describe_origin(card: Card) -> str:
    """Return a sentence on the card's date, the fedlas version and the period of the test samples."""
    period = card.data.get("period")
    samples = f"; test samples of {period}" if period else ""
    return f"Made on {card.date} by fedlas {card.made['fedlas']}{samples}."


def _format_interval_width(width: Mapping[str, Any]) -> str:
    mean, most = (f"{100 * width[name]:.2f}" for name in ("mean", "quantile_95"))
    return f"{mean} points on average, at most {most} for 95 % of the samples (Venn-ABERS)"


def _describe_calibration(calibration: Calibration) -> str:
    where = "" if calibration.calibrator is None else f", fitted on {calibration.fitted_on}"
    return f"Calibration: {calibration}{where}"


def _provenance_rows(card: Card) -> list[tuple[str, Any]]:
    model = card.model
    data = card.data
    prints = data.get("fingerprint", {})
    names = {"best_epoch": "epoch", "selected_by": "chosen by"}
    first = ("recipe", "loss", "seed", "architecture", "parameters", "best_epoch", "selected_by")
    return [
        *((names.get(key, key), model.get(key)) for key in first),
        ("data", data.get("settings")),
        *((f"{part} part", prints.get(part)) for part in ("train", "test")),
        ("split", prints.get("split")),
        ("commit", model.get("commit")),
        ("uncommitted changes", model.get("dirty")),
        ("fedlas", model.get("fedlas")),
    ]


def _has_content(value: object) -> bool:
    return value not in (None, {}, [])


def _format_setting(value: object) -> str:
    if isinstance(value, dict):
        parts = [
            f"{key}: {_format_setting(item)}" for key, item in value.items() if _has_content(item)
        ]
        return ", ".join(parts)
    return value if isinstance(value, str) else json.dumps(value)
