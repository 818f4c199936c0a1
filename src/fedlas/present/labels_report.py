"""``fedlas.report`` for multi-label predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlas._core.check import Argument, InputError
from fedlas.binary import label_group_measures, label_measures
from fedlas.calibrated.calibration import Calibration
from fedlas.calibrators import MultiLabelCalibration
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.predictions.multi_label import check_same_labels, require_known_labels
from fedlas.present.labels import LabelEvaluation
from fedlas.present.stages import RAW

if TYPE_CHECKING:
    from fedlas.predictions import MultiLabel


def report_labels(
    predictions: MultiLabel,
    val: object,
    method: Any,
    *,
    num_bins: int,
    confidence_level: float,
    replicates: int,
    groups: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
    **shown: Any,
) -> LabelEvaluation:
    """Measure multi-label predictions before and after calibration.

    Args:
        predictions: Labeled predictions, without rows of weight zero.
        val: Held-out predictions of the same labels; None fits nothing.
        method: Name of a calibrator; None and ``"auto"`` are the default of several labels.
        num_bins: As in :func:`fedlas.report`.
        confidence_level: As in :func:`fedlas.report`.
        replicates: As in :func:`fedlas.report`.
        groups: Group of each sample.
        notes: Notes to add to.
        **shown: Further fields of the evaluation.
    """
    require_known_labels(predictions)
    if val is None and method is not None:
        raise InputError(
            (Argument("method"), " requires held-out predictions"),
            ("no ", Argument("on")),
            ("Pass ", Argument("on"), " with held-out predictions of the same labels."),
        )
    remarks = list(notes)
    stages = {RAW: predictions}
    fitted: dict[str, Calibration] = {}
    if val is not None:
        calibration = _fit_labels(val, predictions, method)
        fitted[calibration.method] = calibration
        remarks += calibration.notes
        stages[f"after {calibration.method}"] = calibration.transform(predictions)
    options: dict[str, Any] = {"num_bins": num_bins, "confidence_level": confidence_level}
    options["replicates"] = replicates
    tables = {stage: label_measures(each, **options) for stage, each in stages.items()}
    return LabelEvaluation(
        stages=stages,
        labels=tables,
        groups={}
        if groups is None
        else {
            stage: label_group_measures(each, groups, **options) for stage, each in stages.items()
        },
        fitted=fitted,
        notes=tuple(filter(None, remarks)),
        **options,
        **shown,
    )


def _fit_labels(val: object, test: MultiLabel, method: Any) -> Calibration:
    """Return the calibration fitted on held-out predictions."""
    held_out, _ = check_same_labels(val, test, Argument("on"))
    unfitted = MultiLabelCalibration.from_method("auto" if method is None else method)
    return Calibration(*fit_with_notes(unfitted, held_out))
