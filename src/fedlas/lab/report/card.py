"""The calibration card of a run: what a model may be trusted with, in numbers that a machine and a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.files import write_json, write_text
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.card import FORMAT
from fedlas.lab.report.card_page import card_page
from fedlas.lab.report.known_limits import known_limits
from fedlas.lab.runs import saved
from fedlas.lab.runs.collect import read_run
from fedlas.lab.runs.environment import read_starts
from fedlas.lab.runs.folder import read_config, read_data
from fedlas.lab.runs.intervals import noise_by_stage
from fedlas.lab.runs.load import splits_at_hand
from fedlas.lab.runs.summary import FinishedRun
from fedlas.metrics import evaluate, reliability_bins
from fedlas.predictions import Predictions
from fedlas.stats.drift import Floats, GapSums
from fedlas.stats.noise import REPLICATES, Noise
from fedlas.stats.selective_risk import DEFAULT_RISKS, clopper_pearson, risk_threshold

LEVEL = 0.95
CELLS, BINS = 5, 100
"""Cells of confidence in which the gap is followed, and bins of its distribution, for ``fedlas monitor``."""
STAGES = ("as predicted", "calibrated")
METHOD = (
    "Learn then Test (Angelopoulos et al. 2021): fixed-sequence tests with exact binomial p-values over a fixed grid "
    "of thresholds, from ten starts; each row holds with {level:.0%} over the draw of the validation part."
)


@dataclass(frozen=True)
class Written:
    """Where a card is: for machines, and for people."""

    json: Path
    html: Path


def check_card_place(path: Path) -> None:
    """Refuse to replace files that are no card, such as those of a run; only reads.

    Raises:
        InputError: If one is there.
    """
    page = path.with_suffix(".html")
    if not path.exists():
        taken = page if page.exists() else None
    else:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            is_card = str(content["format"]).startswith(FORMAT.partition("/")[0] + "/")
        except (OSError, ValueError, KeyError, TypeError):
            is_card = False
        taken = None if is_card else path
    if taken is not None:
        fix = "Choose another --out, or move that file away."
        raise InputError("card", "what is there already must be a card, to be replaced", taken, fix)


def write_card(
    folder: Path,
    path: Path,
    *,
    calibration: Calibration,
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    exported: Mapping[str, Any] | None = None,
) -> Written:
    """Write the card as JSON to ``path`` and as a page beside it.

    Args:
        folder: Folder of a finished run.
        path: Ends in ``.json``.
        calibration: Of the run's logits.
        risks: Wanted risks.
        replicates: Of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        exported: The file that the card lies beside and how it was checked.

    Raises:
        InputError: If the run or its predictions cannot be used, or a number is out of range.
    """
    try:
        run = read_run(folder)
    except ValueError as error:
        fix = "Rerun its fedlas command: it resumes."
        raise InputError("card", "it must be the folder of a finished run", f"{folder}: {error}", fix) from error
    val, test = predictions_in(folder, "val"), predictions_in(folder, "test")
    stages = dict(zip(STAGES, (test, calibration.transform(test)), strict=True))
    content = _content(run, calibration, calibration.transform(val), stages, risks, replicates)
    content["model"]["classes"] = list(classes) if classes is not None else None
    if exported is not None:
        content["exported"] = dict(exported)
    content["limits"] = known_limits(content, test.target, notes=calibration.notes, config=read_config(folder) or {})
    page = card_page(content, stages, num_bins=saved.num_bins(run))
    return Written(write_json(path, content), write_text(path.with_suffix(".html"), page))


def _content(
    run: FinishedRun,
    calibration: Calibration,
    val: Predictions,
    stages: Mapping[str, Predictions],
    risks: Sequence[float],
    replicates: int,
) -> dict[str, Any]:
    """Everything on the card but its limits; ``val`` is calibrated."""
    num_bins, test = saved.num_bins(run), stages[STAGES[1]]
    measured = {stage: evaluate(each, num_bins=num_bins) for stage, each in stages.items()}
    names = list(measured[STAGES[1]])
    noise = noise_by_stage(stages, names, num_bins=num_bins, replicates=replicates)
    config = read_config(run.path) or {}
    data = read_data(run.path) or {}
    starts = read_starts(run.path / "environment.json")
    last = starts[-1] if starts else {}
    return {
        "format": FORMAT,
        "model": {
            "run": run.name,
            "recipe": run.recipe,
            "loss": run.loss,
            "seed": run.seed,
            "architecture": config.get("model"),
            "parameters": run.parameters,
            "best_epoch": run.best_epoch,
            "selected_by": run.selected_by,
            "num_classes": test.num_classes,
            "commit": last.get("commit"),
            "dirty": last.get("dirty"),
            "fedlas": last.get("fedlas"),
        },
        "calibration": {**calibration.plain(), "fitted on": "validation part, by NLL"},
        "data": {
            "name": (config.get("data") or {}).get("name"),
            "settings": config.get("data"),
            "fingerprint": data,
            "samples": {**_split_sizes(run.path), "val": val.num_samples, "test": test.num_samples},
        },
        "metrics": {stage: _with_noise(measured[stage], noise.get(stage, {})) for stage in stages},
        "metrics_of": {"part": "test", "num_bins": num_bins, "interval": LEVEL, "replicates": replicates},
        "selective": {
            "method": METHOD.format(level=LEVEL),
            "level": LEVEL,
            "thresholds": [_threshold(val, test, risk) for risk in risks],
        },
        "reliability": _reliability(test, num_bins),
        "reference": _reference(val, test),
    }


def predictions_in(folder: Path, part: str) -> Predictions:
    """Predictions of a run on one of its parts."""
    return Predictions.load(folder / "predictions" / f"{part}.npz")


def class_names(folder: Path, data: str | None) -> tuple[str, ...] | None:
    """Names of the classes, where the run's data is available."""
    splits, _ = splits_at_hand(folder, data=data)
    return None if splits is None else splits.classes


def _split_sizes(folder: Path) -> dict[str, int]:
    """Samples of each part, from the run's split."""
    try:
        with np.load(folder / "splits.npz", allow_pickle=False) as splits:
            return {part: len(splits[part]) for part in ("train", "val", "test") if part in splits}
    except (OSError, ValueError):
        return {}


def _with_noise(measured: Mapping[str, float], noise: Mapping[str, Noise]) -> dict[str, Any]:
    return {name: noise[name].plain() if name in noise else {"value": value} for name, value in measured.items()}


def _arrays(
    predictions: Predictions,
) -> tuple[Floats, NDArray[np.bool_]]:
    return predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()


def _threshold(val: Predictions, test: Predictions, risk: float) -> dict[str, Any]:
    """A threshold from validation, and what it does on the test part, which had no say in it."""
    confidence, correct = _arrays(val)
    found = risk_threshold(confidence, correct, risk=risk, num_classes=val.num_classes, level=LEVEL)
    row: dict[str, Any] = {
        "risk": risk,
        "threshold": found.threshold,
        "val": {"accepted": found.selected, "wrong": found.wrong, "coverage": found.coverage},
        "needed": found.needed,
    }
    if found.threshold is None:
        return row
    confidence, correct = _arrays(test)
    chosen = confidence >= found.threshold
    accepted, wrong = int(chosen.sum()), int((chosen & ~correct).sum())
    upper = clopper_pearson(wrong, accepted, level=LEVEL, sides=1)[1]
    row["test"] = {
        "accepted": accepted,
        "wrong": wrong,
        "coverage": accepted / len(chosen),
        "risk": wrong / accepted if accepted else None,
        "upper": upper,
    }
    return row


def _reliability(predictions: Predictions, num_bins: int) -> list[dict[str, float]]:
    bins = reliability_bins(predictions, num_bins=num_bins)
    edges, count, confidence, accuracy = (
        v.cpu().double().tolist() for v in (bins.edges, bins.count, bins.confidence, bins.accuracy)
    )
    return [
        {"low": edges[i], "high": edges[i + 1], "samples": n, "confidence": confidence[i], "accuracy": accuracy[i]}
        for i, n in enumerate(count)
        if n > 0
    ]


def _reference(val: Predictions, test: Predictions) -> dict[str, Any]:
    """Sums over the test part for ``fedlas monitor``; cells come from validation, so that they fit no test sample."""
    confidence, correct = _arrays(test)
    cells, bins = (_quantile_edges(_arrays(val)[0], number) for number in (CELLS, BINS))
    counts, _ = np.histogram(confidence, bins)
    return {
        "part": "test",
        "gaps": GapSums.of(cells, confidence, correct).plain(),
        "bin_edges": bins.tolist(),
        "bin_counts": counts.tolist(),
    }


def _quantile_edges(values: Floats, number: int) -> Floats:
    """From 0 over quantiles to 1, each once."""
    inner = np.unique(np.quantile(values, np.arange(1, number) / number))
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])
