"""``fedlas.card``: thresholds for a risk, metrics and limits of a model, as one object to print, show or save."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_kinds, describe
from fedlas._core.extras import require
from fedlas._core.files import checked_path, write_json, write_text
from fedlas._core.text import printable
from fedlas.calibrated import CalibratedModel
from fedlas.calibrators import Calibrator
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.card import check_card_place
from fedlas.deploy.make_card import make_card, stages_of
from fedlas.predictions.predictions import AnyPredictions, PredictionTable, check_measurable
from fedlas.present.decision import rules_of
from fedlas.present.metric_tables import (
    NoiseText,
    cell_of_metric,
    classes_of,
    noise_legend,
    noise_text,
)
from fedlas.present.page import Answer, diagram, render
from fedlas.present.positive_class import ROWS
from fedlas.present.stages import DEFAULT, check_options, estimates_by_stage, is_same
from fedlas.present.table import (
    DASH,
    Block,
    Cell,
    Column,
    Table,
    column,
    html_table,
    table_of,
    text_of,
)
from fedlas.stats.estimates import REPLICATES, Estimate
from fedlas.stats.noise_floor import p_text
from fedlas.stats.selective_risk import DEFAULT_RISKS

_GLANCE = ("accuracy", "nll", "ece")


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationCard:
    """Thresholds for a risk, metrics and known limits of a model; see :func:`fedlas.card`.

    Attributes:
        content: Everything as plain values for JSON.
        stages: Test predictions before and after calibration.
        num_bins: Bins of the calibration errors.
    """

    content: dict[str, Any]
    stages: Mapping[str, AnyPredictions]
    num_bins: int = 15

    def __repr__(self) -> str:
        return self.text()

    @check_kinds
    def blocks(self, *, details: bool = False) -> list[Block]:
        """Return the sentences and tables that :meth:`text` prints."""
        content = self.content
        thresholds = thresholds_table(content)
        shown = thresholds if details else thresholds.where((0, 1, 4, 5, 6))
        parts = ", ".join(f"{size:,} {part}" for part, size in content["data"]["samples"].items())
        method = content["calibration"]["method"]
        blocks: list[Block] = [
            f"{content['model']['run']}: calibration {method}; {parts} samples; calibrated, on test:",
            *(f"{answer.question}: {answer.text}" for answer in card_answers(content)),
            decisions_table(content) if "event" in content else shown,
            _origin(content),
        ]
        if not details:
            return blocks
        more = [thresholds] if "event" in content else []
        return [*blocks, *more, card_metrics(content), *content["limits"]]

    @check_kinds
    def text(self, *, details: bool = False) -> str:
        """Return thresholds and main metrics for a terminal; ``details`` adds all metrics and the known limits."""
        return text_of(self.blocks(details=details), details=details)

    def html(self) -> str:
        """Return a page that needs no other file."""
        content = self.content
        model = content["model"]
        data = content["data"]
        metrics = content["metrics"]
        noise = [
            _noise(each, column(name))
            for measured in metrics.values()
            for name, each in measured.items()
        ]
        return render(
            "card.html.j2",
            name=model["run"],
            statement=f"{_statement(content)} {_origin(content)}",
            answers=card_answers(content),
            whole=card_metrics(content),
            noise_notes=noise_legend(noise),
            num_bins=self.num_bins,
            thresholds=thresholds_table(content),
            decisions=decisions_table(content) if "event" in content else None,
            selective=content["selective"],
            level=f"{100 * content['selective']['level']:g}",
            diagrams=[
                diagram(stage, each, self.num_bins, band=True)
                for stage, each in self.stages.items()
            ],
            limits=content["limits"],
            classes=model["classes"],
            exported=content.get("exported"),
            about=[
                (key, _text(value))
                for key, value in _about(model, data)
                if value not in (None, {}, [])
            ],
        )

    def to_frame(self) -> Any:
        """Return the thresholds as a pandas DataFrame, a row for each risk.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        rows = [
            {
                "risk": row["risk"],
                "threshold": row["threshold"],
                **{f"test {k}": v for k, v in row.get("test", {}).items()},
            }
            for row in self.content["selective"]["thresholds"]
        ]
        return require("pandas", extra="tables").DataFrame(rows)

    def _repr_html_(self) -> str:
        sentences = "".join(
            f"<p>{escape(printable(f'{a.question}: {a.text}'))}</p>"
            for a in card_answers(self.content)
        )
        first = (
            decisions_table(self.content)
            if "event" in self.content
            else thresholds_table(self.content)
        )
        return sentences + html_table(first) + html_table(card_metrics(self.content))

    def save(self, path: str | Path) -> Path:
        """Write the card as JSON to ``path``, which ends in ``.json``, and as a page next to it; return its path.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        path = checked_path(path)
        check_card_place(path)
        page = self.html()
        write_json(path, self.content)
        return write_text(path.with_suffix(".html"), page)


@check_kinds
def card(
    val: AnyPredictions | PredictionTable,
    test: AnyPredictions | PredictionTable,
    calibrator: str | Calibrator | CalibratedModel = DEFAULT,
    *,
    name: str = "model",
    data: str = "test data",
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    num_bins: int = 15,
    period: str = "",
    cost_ratio: float | None = None,
    budget: float | None = None,
    recall: float | None = None,
    precision: float | None = None,
) -> CalibrationCard:
    """Make the calibration card of a model from its predictions: thresholds for a risk, metrics and known limits.

    Args:
        val: Held-out predictions, not calibrated, on which thresholds are chosen.
        test: Others, on which everything is measured. Both may be a :class:`~fedlas.TopLabel`.
        calibrator: Name of a calibrator to fit on ``val``, or ``"none"``; a fitted one; or a calibrated model.
        name: Name of the model.
        data: Name of the test data.
        risks: Shares of wrong among accepted predictions, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        num_bins: Bins of the calibration errors.
        period: When the test samples were collected, such as ``"October 2026"``.
        cost_ratio: Of two classes, how many false alarms are as bad as a missed event: from which probability to act.
        budget: The same for a number of samples to act on, out of as many as ``test`` holds.
        recall: The same for a share of the events to find; 0.5, 0.8 and 0.9 where nothing is asked for.
        precision: The same for a share of events among the alarms.

    Returns:
        An object that prints, and gives ``text()``, ``html()`` and ``save(path)``, which ``fedlas monitor`` reads.

    Raises:
        InputError: If the two are the same or have different numbers of classes, the calibrator cannot be used, or a
            number is out of range.
    """
    check_options(replicates=replicates, num_bins=num_bins, risks=risks, classes=classes, name=name)
    val = check_measurable(val)
    test = check_measurable(test)
    if is_same(val, test):
        fix = "Pass held-out predictions and others to test on; thresholds chosen on the test set would flatter it."
        raise InputError("validation and test must be different predictions", "the same", fix)
    if classes_of(val) != classes_of(test):
        got = f"{classes_of(val)} and {classes_of(test)}"
        raise InputError(
            "both files must have the same classes", got, "Pass predictions of one model."
        )
    value: object = calibrator.calibrator if isinstance(calibrator, CalibratedModel) else calibrator
    if isinstance(value, str):
        calibration = fit_calibration(value, val)
    elif isinstance(value, Calibrator):
        calibration = Calibration(value, fitted_on=f"other data, see {name}")
    else:
        fix = "Pass a name such as 'temperature', a fitted Calibrator or a CalibratedModel."
        raise InputError("calibrator must be a name or fitted", describe(value), fix)
    content = make_card(
        val,
        test,
        calibration,
        model={"run": name, "classes": list(classes) if classes is not None else None},
        data={"name": data, **({"period": period} if period else {})},
        num_bins=num_bins,
        risks=risks,
        intervals=partial(estimates_by_stage, num_bins=num_bins, replicates=replicates),
        replicates=replicates,
        rules=rules_of(cost_ratio, budget, recall, precision),
    )
    return CalibrationCard(content, stages_of(test, calibration), num_bins)


def card_answers(content: Mapping[str, Any]) -> list[Answer]:
    """Return accuracy, NLL and ECE on test with their intervals, the calibration, and how uncertain confidences are."""
    answers = event_answers(content["event"]) if "event" in content else []
    for name in () if answers else filter(content["metrics"]["calibrated"].__contains__, _GLANCE):
        about = column(name)
        entry = content["metrics"]["calibrated"][name]
        text = " ".join(filter(None, (about.format(entry["value"]), about.unit)))
        answers.append(Answer(about.title, f"{text}  {_noise(entry, about).text}".strip()))
    mean, most = (f"{100 * content['width'][name]:.2f}" for name in ("mean", "95 %"))
    width = f"{mean} points on average, at most {most} for 95 % of the samples (Venn-ABERS)"
    return [
        *answers,
        Answer(*_calibration(content["calibration"])),
        Answer("Width of a confidence", width),
    ]


def event_answers(event: Mapping[str, Any]) -> list[Answer]:
    """Return how often the event is expected and occurs, slope, ICI and AUROC of the calibrated probabilities."""
    measured = event["measures"]["calibrated"]
    percent = Column("", "%", places=4).format
    joint = event["joint_p"]["calibrated"]
    rates = " and ".join(percent(measured[name]["value"]) for name in ("expected", "observed"))
    tested = "" if joint is None else f"; joint p = {p_text(joint)} of calibration"
    answers = [Answer("Expected and observed", f"{rates} %{tested}")]
    for name in ("slope", "ici", "auroc"):
        if name in measured:
            about = ROWS[name].column
            unit = " %" if about.unit else ""
            ends = [
                about.format(measured[name][end])
                for end in ("low", "high")
                if end in measured[name]
            ]
            interval = f"  [{', '.join(ends)}]" if ends else ""
            answers.append(
                Answer(about.title, f"{about.format(measured[name]['value'])}{unit}{interval}")
            )
    return answers


def decisions_table(content: Mapping[str, Any]) -> Table:
    """Return from which probability of the event to act by each rule, and what that does on test."""
    percent = Column("", "%", places=3).format
    rows = []
    for row in content["event"]["decisions"]:
        words = f"{row['rule'].replace('_', ' ')} {row['value']:g}"
        if "threshold" not in row:
            rows.append([words, "none", *[DASH] * 4])
            continue
        counts = [
            f"{row['acted']:,}",
            f"{row['events_found']:,} of {row['events']:,}",
            f"{row['false_alarms']:,}",
        ]
        benefit = row["net_benefit"]
        ends = f"{1000 * benefit['value']:+.1f} [{1000 * benefit['low']:+.1f}, {1000 * benefit['high']:+.1f}]"
        rows.append([words, percent(row["threshold"]), *counts, ends])
    heads = ("rule", "act from %", "acts on", "events found", "alarms", "net benefit")
    notes = [
        "Chosen on validation, counted on test. Alarms: false ones. Net benefit: per 1,000, against none."
    ]
    return table_of(heads, rows, title="From which probability on to act", notes=notes)


def card_metrics(content: Mapping[str, Any]) -> Table:
    """Return one row for each metric, one column for each stage."""
    stages = content["metrics"]
    rows = []
    for about in map(column, stages["calibrated"]):
        entries = [measured[about.metric] for measured in stages.values()]
        cells = [cell_of_metric(about, entry["value"], _noise(entry, about)) for entry in entries]
        rows.append((Cell(about.head, tip=about.about), *cells))
    return Table(
        (Column("Metric", words=True), *map(Column, stages)),
        tuple(rows),
        "Metrics on the test part",
    )


def _noise(entry: Mapping[str, Any], about: Column) -> NoiseText:
    """Return the interval, floor and p-value of a card's entry."""
    return noise_text([Estimate.of(entry)] if "low" in entry else [], about.format)


def thresholds_table(content: Mapping[str, Any]) -> Table:
    """Return the threshold for each risk, and its risk and coverage on test."""
    heads = ("Target risk %", "Threshold", "Accepted on validation %", "Wrong", "Accepted on test %", "Risk on test %",
             "At most %")  # fmt: skip
    rows = []
    needed = []
    for row in content["selective"]["thresholds"]:
        risk = f"{100 * row['risk']:g}"
        if row["threshold"] is None:
            rows.append([risk, "none", *[DASH] * 5])
            needed.append(f"{risk} % needs {row['needed']:,}")
            continue
        val = row["val"]
        test = row["test"]
        share = DASH if test["risk"] is None else f"{100 * test['risk']:.2f}"
        on_val = [f"{100 * val['coverage']:.1f}", f"{val['wrong']} of {val['accepted']:,}"]
        on_test = [f"{100 * test['coverage']:.1f}", share, f"{100 * test['upper']:.2f}"]
        everything = val["coverage"] == 1 == test["coverage"]
        rows.append(
            [risk, "accept all" if everything else f"{row['threshold']:.4f}", *on_val, *on_test]
        )
    few = f"None: no confidence keeps the risk that low. Even without a mistake {', '.join(needed)} accepted samples."
    notes = [few] if needed else []
    return table_of(heads, rows, title="What may be accepted", notes=notes)


def _statement(content: Mapping[str, Any]) -> str:
    model = content["model"]
    data = content["data"]
    samples = data["samples"]
    parts = ", ".join(
        f"{samples[part]:,} {part}" for part in ("train", "val", "test") if part in samples
    )
    trained = f"{model['loss']}, seed {model['seed']}, on " if "seed" in model else ""
    classes = (
        f"{model['num_classes']} classes"
        if model["num_classes"]
        else "confidences of the predicted class only"
    )
    return f"{trained}{data['name']}: {classes}; {parts} samples."


def _origin(content: Mapping[str, Any]) -> str:
    """Return when the card was made and by which version, and the period of the test samples."""
    made = content.get("made", {})
    period = content["data"].get("period")
    text = f"Made on {made.get('on', 'an unknown day')} by fedlas {made.get('fedlas', 'of an unknown version')}"
    return f"{text}; test samples of {period}." if period else f"{text}."


def _calibration(calibration: Mapping[str, Any]) -> tuple[str, str]:
    """Return the calibration, as question and answer."""
    method = calibration["method"]
    temperature = calibration.get("temperature")
    if method == "none":
        return "Calibration", "none"
    what = method if temperature is None else f"{method} {temperature:.3f}"
    return "Calibration", f"{what}, fitted on {calibration['fitted on']}"


def _about(model: Mapping[str, Any], data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    prints = data.get("fingerprint", {})
    names = {"best_epoch": "epoch", "selected_by": "chosen by"}
    first = ("recipe", "loss", "seed", "architecture", "parameters", "best_epoch", "selected_by")
    return [
        *((names.get(key, key), model.get(key)) for key in first),
        ("data", data.get("settings")),
        *((f"{part} part", prints.get(part)) for part in ("train", "test")),
        ("split", prints.get("split")),
        *(
            (name, model.get(key))
            for name, key in (("commit", "commit"), ("uncommitted changes", "dirty"))
        ),
        ("fedlas", model.get("fedlas")),
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {_text(item)}" for key, item in value.items() if item not in (None, {}, [])
        )
    return value if isinstance(value, str) else json.dumps(value)
