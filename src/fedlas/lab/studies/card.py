"""The calibration card of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas.deploy.calibration import Calibration, fit_calibration
from fedlas.deploy.make_card import make_card, stages_of
from fedlas.lab.runs.build import splits_at_hand
from fedlas.lab.runs.collect import read_run
from fedlas.lab.runs.folder import RunFolder, UnreadableError
from fedlas.present.card import CalibrationCard
from fedlas.present.stages import estimates_by_stage
from fedlas.stats.estimates import REPLICATES
from fedlas.stats.selective_risk import DEFAULT_RISKS


def card_of_run(folder: Path, *, calibrate: str, data: str | None = None, **options: Any) -> CalibrationCard:
    """Return the calibration card of a finished run whose calibration is yet to be fitted.

    Args:
        folder: The run folder.
        calibrate: Calibrator to fit on its validation predictions, or none.
        data: Where its data is, for the names of its classes; None searches the usual places.
        **options: Of :func:`run_card`.

    Raises:
        InputError: As :func:`run_card`, or for an unknown calibrator.
    """
    run = RunFolder(folder)
    calibration = fit_calibration(calibrate, run.predictions("val"))
    # Class names need the data set, which may be on another machine; the card can do without them.
    splits, _ = splits_at_hand(folder, data=data)
    return run_card(run, calibration, classes=None if splits is None else splits.classes, **options)


def run_card(
    folder: RunFolder,
    calibration: Calibration,
    *,
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    classes: Sequence[str] | None = None,
    exported: Mapping[str, Any] | None = None,
) -> CalibrationCard:
    """The calibration card of a finished run, made of its predictions.

    Args:
        folder: The run, with validation and test predictions.
        calibration: Fitted on its validation predictions.
        risks: Wanted risks, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        classes: Names of the classes, where they are known.
        exported: The file that the card lies beside, and how it was checked.

    Raises:
        InputError: If it is no finished run, its files cannot be read, or a number is out of range.
    """
    try:
        run = read_run(folder)
    except ValueError as error:
        fix = "Rerun its fedlas command: it resumes."
        raise InputError("card", "it must be the folder of a finished run", f"{folder.path}: {error}", fix) from error
    # What the card says about the model and its data stands in the run's own files.
    test = folder.predictions("test")
    config, last = folder.config or {}, folder.starts[-1] if folder.starts else {}
    content = make_card(
        folder.predictions("val"),
        test,
        calibration,
        model={
            "run": run.name,
            **{key: getattr(run, key) for key in ("recipe", "loss", "seed", "parameters", "best_epoch", "selected_by")},
            "architecture": config.get("model"),
            **{key: last.get(key) for key in ("commit", "dirty", "fedlas")},
            "classes": list(classes) if classes is not None else None,
        },
        data={
            "name": (config.get("data") or {}).get("name"),
            "settings": config.get("data"),
            "fingerprint": folder.data or {},
            "samples": _split_sizes(folder),
        },
        num_bins=folder.num_bins,
        risks=risks,
        intervals=partial(estimates_by_stage, num_bins=folder.num_bins, replicates=replicates),
        replicates=replicates,
        exported=exported,
    )
    return CalibrationCard(content, stages_of(test, calibration), folder.num_bins)


def _split_sizes(folder: RunFolder) -> dict[str, int]:
    """Samples of each part; none where the split was not kept."""
    try:
        return {part: len(indices) for part, indices in folder.splits.items()}
    except UnreadableError:
        return {}
