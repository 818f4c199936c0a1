"""The page of a calibration card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedlas.lab.report.noise_text import noise_legend, noise_text
from fedlas.lab.report.page import diagram, render
from fedlas.lab.report.tables import Cell, Column, column
from fedlas.predictions import Predictions
from fedlas.stats.estimates import Estimate

_GLANCE = ("accuracy", "ece", "nll")


def card_page(content: Mapping[str, Any], stages: Mapping[str, Predictions], *, num_bins: int) -> str:
    """The page as HTML, with nothing outside it.

    Args:
        content: The card as it is in JSON.
        stages: Test predictions before and after calibration.
        num_bins: Bins of the diagrams.
    """
    measured = content["metrics"]
    metrics = list(measured["calibrated"])
    rows = [(column(name), [_cell(column(name), measured[stage][name]) for stage in stages]) for name in metrics]
    known = [cell.noise for _, cells in rows for cell in cells]
    model, data, calibration = content["model"], content["data"], content["calibration"]
    return render(
        "card.html.j2",
        name=model["run"],
        statement=_statement(content),
        glance=[(about, cells[1]) for about, cells in rows if about.metric in _GLANCE],
        calibration=_calibration(calibration),
        stages=list(stages),
        rows=rows,
        noise_notes=noise_legend(known, several=False),
        num_bins=num_bins,
        selective=content["selective"],
        level=f"{100 * content['selective']['level']:g}",
        diagrams=[diagram(stage, each, num_bins, band=True) for stage, each in stages.items()],
        limits=content["limits"],
        classes=model["classes"],
        exported=content.get("exported"),
        about=[(key, _text(value)) for key, value in _about(model, data) if value not in (None, {}, [])],
    )


def _cell(about: Column, entry: Mapping[str, Any]) -> Cell:
    found = Estimate.of(entry) if "low" in entry else None
    return Cell(about.format(entry["value"]), "", "", noise=noise_text([found] if found else [], about.format))


def _statement(content: Mapping[str, Any]) -> str:
    model, data = content["model"], content["data"]
    samples = data["samples"]
    parts = ", ".join(f"{samples[part]:,} {part}" for part in ("train", "val", "test") if part in samples)
    return f"{model['loss']}, seed {model['seed']}, on {data['name']}: {model['num_classes']} classes; {parts} samples."


def _calibration(calibration: Mapping[str, Any]) -> tuple[str, str]:
    """What was done, and its number."""
    if calibration["method"] == "temperature":
        return "Temperature", f"{calibration['temperature']:.3f}"
    return "Calibration", "vector scaling" if calibration["method"] == "vector" else "none"


def _about(model: Mapping[str, Any], data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    fingerprint = data["fingerprint"]
    return [
        ("recipe", model["recipe"]),
        ("loss", model["loss"]),
        ("seed", model["seed"]),
        ("architecture", model["architecture"]),
        ("parameters", model["parameters"]),
        ("epoch", model["best_epoch"]),
        ("chosen by", model["selected_by"]),
        ("data", data["settings"]),
        *((f"{part} part", fingerprint.get(part)) for part in ("train", "test")),
        ("split", fingerprint.get("split")),
        ("commit", model["commit"]),
        ("uncommitted changes", model["dirty"]),
        ("fedlas", model["fedlas"]),
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items() if item not in (None, {}, []))
    return value if isinstance(value, str) else json.dumps(value)
