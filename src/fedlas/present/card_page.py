"""The page of a calibration card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedlas.predictions.predictions import AnyPredictions
from fedlas.present.noise_text import cell_of_metric, noise_legend, noise_of_entry
from fedlas.present.page import Answer, diagram, render
from fedlas.present.table import DASH, Cell, Column, Table, column, table_of

_GLANCE = ("accuracy", "nll", "ece")


def card_page(content: Mapping[str, Any], stages: Mapping[str, AnyPredictions], *, num_bins: int) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        content: The card, as in JSON.
        stages: Test predictions before and after calibration.
        num_bins: Bins of the diagrams.
    """
    model, data = content["model"], content["data"]
    known = [noise_of_entry(entry, str) for measured in content["metrics"].values() for entry in measured.values()]
    return render(
        "card.html.j2",
        name=model["run"],
        statement=_statement(content),
        answers=card_answers(content),
        whole=card_metrics(content),
        noise_notes=noise_legend(known, several=False),
        num_bins=num_bins,
        thresholds=thresholds_table(content),
        selective=content["selective"],
        level=f"{100 * content['selective']['level']:g}",
        diagrams=[diagram(stage, each, num_bins, band=True) for stage, each in stages.items()],
        limits=content["limits"],
        classes=model["classes"],
        exported=content.get("exported"),
        about=[(key, _text(value)) for key, value in _about(model, data) if value not in (None, {}, [])],
    )


def card_answers(content: Mapping[str, Any]) -> list[Answer]:
    """Return accuracy, NLL and ECE on test with their intervals, and the calibration."""
    answers = []
    for name in filter(content["metrics"]["calibrated"].__contains__, _GLANCE):
        about, entry = column(name), content["metrics"]["calibrated"][name]
        text = " ".join(filter(None, (about.format(entry["value"]), about.unit)))
        answers.append(Answer(about.title, f"{text}  {noise_of_entry(entry, about.format).text}".strip()))
    return [*answers, Answer(*_calibration(content["calibration"]))]


def card_metrics(content: Mapping[str, Any]) -> Table:
    """Return a row a metric, a column a stage."""
    stages = content["metrics"]
    rows = []
    for about in map(column, stages["calibrated"]):
        entries = [measured[about.metric] for measured in stages.values()]
        cells = [cell_of_metric(about, entry["value"], noise_of_entry(entry, about.format)) for entry in entries]
        rows.append((Cell(about.head, tip=about.about), *cells))
    return Table((Column("Metric", words=True), *map(Column, stages)), tuple(rows), "Metrics on the test part")


def thresholds_table(content: Mapping[str, Any]) -> Table:
    """Return the threshold for each risk, and its risk and coverage on test."""
    heads = ("Wanted risk %", "Threshold", "Accepted on validation %", "Wrong", "Accepted on test %", "Risk on test %",
             "At most %", "Note")  # fmt: skip
    rows = []
    for row in content["selective"]["thresholds"]:
        risk = f"{100 * row['risk']:g}"
        if row["threshold"] is None:
            rows.append([risk, "none", *[DASH] * 5, f"needs {row['needed']:,} accepted samples without a mistake"])
            continue
        val, test = row["val"], row["test"]
        share = DASH if test["risk"] is None else f"{100 * test['risk']:.2f}"
        on_val = [f"{100 * val['coverage']:.1f}", f"{val['wrong']} of {val['accepted']:,}"]
        on_test = [f"{100 * test['coverage']:.1f}", share, f"{100 * test['upper']:.2f}"]
        everything = val["coverage"] == 1 == test["coverage"]
        rows.append([risk, "accept all" if everything else f"{row['threshold']:.4f}", *on_val, *on_test, ""])
    return table_of(heads, rows, title="What may be accepted", text=(0, 7))


def _statement(content: Mapping[str, Any]) -> str:
    model, data = content["model"], content["data"]
    samples = data["samples"]
    parts = ", ".join(f"{samples[part]:,} {part}" for part in ("train", "val", "test") if part in samples)
    trained = f"{model['loss']}, seed {model['seed']}, on " if "seed" in model else ""
    classes = f"{model['num_classes']} classes" if model["num_classes"] else "confidences of the predicted class only"
    return f"{trained}{data['name']}: {classes}; {parts} samples."


def _calibration(calibration: Mapping[str, Any]) -> tuple[str, str]:
    """The calibration, as question and answer."""
    method, temperature = calibration["method"], calibration.get("temperature")
    if method == "none":
        return "Calibration", "none"
    what = method if temperature is None else f"{method} {temperature:.3f}"
    return "Calibration", f"{what}, fitted on {calibration['fitted on']}"


def _about(model: Mapping[str, Any], data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    fingerprint = data.get("fingerprint", {})
    return [
        ("recipe", model.get("recipe")),
        ("loss", model.get("loss")),
        ("seed", model.get("seed")),
        ("architecture", model.get("architecture")),
        ("parameters", model.get("parameters")),
        ("epoch", model.get("best_epoch")),
        ("chosen by", model.get("selected_by")),
        ("data", data.get("settings")),
        *((f"{part} part", fingerprint.get(part)) for part in ("train", "test")),
        ("split", fingerprint.get("split")),
        ("commit", model.get("commit")),
        ("uncommitted changes", model.get("dirty")),
        ("fedlas", model.get("fedlas")),
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items() if item not in (None, {}, []))
    return value if isinstance(value, str) else json.dumps(value)
