"""Predictions on the parts of a run that calibrators need, computed by its model where they are not saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedlas._core.check import InputError, truncated_list
from fedlas._core.files import is_file
from fedlas._core.ranks import new_accelerator
from fedlas.lab.runs.bench_folder import is_run_folder, run_folders
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained_run
from fedlas.objective.predict import drifted_predictions
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.tables.files import FORMATS
from fedlas.present.stages import HeldOut

Show = Callable[[str], None]
DRIFT_PART = "val-drift"
"""Part that training does not save; it is computed by the run's model at first use."""
_LEVELS = 10


def load_test_predictions(folder: Path) -> Predictions:
    """Return the test predictions of a run.

    Raises:
        InputError: If the folder is a bench or no run folder, or the predictions cannot be read.
    """
    run = RunFolder(folder)
    if not is_file(run.part_path("test")) and any(
        is_run_folder(child) for child in run_folders(folder)
    ):
        raise InputError(
            "the folder must be a single run's",
            f"the bench {folder}",
            f"Run fedlas runs report {folder}, or name one of its runs.",
        )
    if not is_run_folder(run) and not is_file(run.part_path("test")):
        files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in FORMATS)
        raise InputError(
            "the folder must be a run folder",
            f"{folder} with {truncated_list(files) if files else 'no file of predictions'}",
            "Name a file of predictions, or a run folder.",
        )
    return run.predictions("test")


def load_held_out(
    folder: Path,
    *,
    val: AnyPredictions | None = None,
    data: str | None = None,
    show: Show = lambda _text: None,
) -> HeldOut:
    """Return the held-out predictions of a run for calibrators: its validation part, and parts computed on demand.

    Args:
        folder: The run folder.
        val: Predictions that the user named; None for the run's own.
        data: Where the run's data is; None searches the usual places.
        show: As in :class:`~fedlas.present.stages.HeldOut`.

    Raises:
        InputError: If the validation predictions cannot be read.

    State:
        A computed part is saved in the run folder, and read from there the next time.
    """
    held_out = RunFolder(folder).predictions("val") if val is None else val
    parts = {DRIFT_PART: partial(_drifted_predictions, folder, data, show)}
    return HeldOut(held_out, named=val is not None, parts=parts, show=show)


def _drifted_predictions(
    folder: Path, data: str | None, show: Show, needs: frozenset[str]
) -> Predictions:
    """Return predictions on validation images under growing noise, from the saved file if it has the fields."""
    run = RunFolder(folder)
    path = run.part_path(DRIFT_PART)
    if path.is_file():
        saved = Predictions.load(path)
        if all(getattr(saved, name) is not None for name in needs):
            return saved
    trained = load_trained_run(folder, data=data).to(new_accelerator().device)
    splits = trained.splits
    train = trained.run.recipe.train

    def on_level(level: int, noise: float, accuracy: float) -> None:
        show(
            f"{path.name}: level {level + 1} of {_LEVELS}, noise {noise:.2f}, accuracy {accuracy:.1%}"
        )

    predictions = drifted_predictions(
        trained.objective,
        splits.batches(splits.val, batch_size=train.batch_size),
        levels=_LEVELS,
        seed=trained.run.seed,
        features=bool(needs),
        on_level=on_level,
    )
    predictions.save(run.require_inside(path))
    return predictions
