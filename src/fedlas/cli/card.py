"""What ``fedlas card`` does once its arguments are parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import write_json, write_text
from fedlas._core.terminal import say
from fedlas.deploy.calibration import fit_calibration
from fedlas.deploy.card import check_card_place
from fedlas.lab.report.card_page import card_page
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import splits_at_hand
from fedlas.lab.studies.card import RunCard, run_card
from fedlas.stats.estimates import REPLICATES, check_replicates
from fedlas.stats.p_text import p_said
from fedlas.stats.selective_risk import DEFAULT_RISKS


def card(
    folder: Path,
    *,
    out: Path | None = None,
    calibrate: str = "temperature",
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    data: str | None = None,
) -> int:
    """Write the calibration card of a run and print what is on it.

    Args:
        folder: Folder of a finished run with validation and test predictions.
        out: The JSON file, ``.html`` beside it; None is ``card.json`` in the run's folder.
        calibrate: Calibrator, fitted on validation: temperature, vector or none.
        risks: Wanted risks, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        data: Where the run's data is, for the names of its classes; None searches the usual places.

    Returns:
        0.

    Raises:
        InputError: If the run or its predictions cannot be used, or a number is out of range.
    """
    check_replicates("fedlas card", replicates)
    require_page_packages()
    if out is not None and out.suffix.lower() != ".json":
        raise InputError("fedlas card", "--out must end in .json", out, "The page goes beside it, in .html.")
    run = RunFolder(folder)
    path = run.card_path if out is None else out
    check_card_place(path)
    calibration = fit_calibration(calibrate, run.predictions("val"))
    splits, _ = splits_at_hand(folder, data=data)
    classes = None if splits is None else splits.classes
    made = run_card(run, calibration, risks=risks, replicates=replicates, classes=classes)
    page, content = write_card(made, path), made.content
    parts = ", ".join(f"{size:,} {part}" for part, size in content["data"]["samples"].items())
    say(f"{content['model']['run']}: calibration {calibration.method}; {parts} samples; calibrated, on test:")
    for name in ("accuracy", "ece", "nll"):
        say(f"  {name:9}" + _said(content["metrics"]["calibrated"][name], percent=name != "nll"))
    for row in content["selective"]["thresholds"]:
        say(f"  {_row_text(row)}")
    say(f"card: {path}", f"      {page}")
    return 0


def write_card(card: RunCard, path: Path) -> Path:
    """Write a card as JSON to ``path``, which ends in ``.json``, and as a page beside it; returns the place of that."""
    page = card_page(card.content, card.stages, num_bins=card.num_bins)
    write_json(path, card.content)
    return write_text(path.with_suffix(".html"), page)


def _said(entry: Mapping[str, float], *, percent: bool) -> str:
    def form(value: float) -> str:
        return f"{100 * value:.2f} %" if percent else f"{value:.4f}"

    text = form(entry["value"])
    if "low" in entry:
        text += f"  [{form(entry['low'])}, {form(entry['high'])}]"
    if "floor" in entry:
        text += f"  floor {form(entry['floor'])}, {p_said(entry['p'], entry.get('least_p'))}"
    return text


def _row_text(row: Mapping[str, Any]) -> str:
    head = f"risk at most {100 * row['risk']:g} %: "
    if row["threshold"] is None:
        return f"{head}no threshold can be vouched for; at least {row['needed']} samples without a mistake are needed"
    test = row["test"]
    risk = "none accepted" if test["risk"] is None else f"{100 * test['risk']:.2f} % wrong"
    return (
        f"{head}accept from confidence {row['threshold']:.4f}; of the test part {100 * test['coverage']:.1f} %, {risk} "
        f"(at most {100 * test['upper']:.2f} %)"
    )
