"""A calibrator on a finished run, as a row beside the losses that are to do without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.notes import fit_with_notes
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.run_parts import run_held_out
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result


@UNCERTAINTY.register(
    "post-hoc",
    title="Post-hoc calibration",
    paper="On Calibration of Modern Neural Networks",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
    least=1,
    most=1,
)
def post_hoc(runs: Sequence[RunFolder], *, calibrator: str = "temperature") -> Result:
    """A calibrator fitted on the run's validation part: what a loss is up against that should need none.

    Args:
        runs: One finished run.
        calibrator: Registry name, see ``fedlas list calibrators``.

    Returns:
        The calibrated predictions; those on validation are what the calibrator was fitted on.

    Raises:
        InputError: For an unknown calibrator, or one that needs what the run has not saved.
        MissingExtraError: If it needs a package that is not installed.
    """
    entry = CALIBRATORS[calibrator]
    held_out = run_held_out(runs[0].path, data=runs[0].data_root)
    fitted, notes = fit_with_notes(entry.value(), held_out.predictions(entry, alone=True))
    val, test = (replace(fitted.transform(runs[0].predictions(part)), features=None) for part in ("val", "test"))
    return Result(test, val, notes)
