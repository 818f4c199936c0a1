"""Calibrated models and calibrations of tables of scores.

In: any classifier and a loader of held-out data, or a table of scores and labels. Out: :class:`CalibratedModel`, which
saves, compiles, exports and moves like the model itself; :class:`TableCalibration`, which adds calibrated columns.
Every public name is imported at its first use: a model needs nothing of tables.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.calibrated.before_after import BeforeAfter, Measured, measure_before_after
    from fedlas.calibrated.fit_model import calibrate
    from fedlas.calibrated.model import CalibratedModel
    from fedlas.calibrated.tables.files import apply_to_files
    from fedlas.calibrated.tables.since import files_since
    from fedlas.calibrated.tables.table_calibration import TableCalibration

__all__ = [
    "BeforeAfter",
    "CalibratedModel",
    "Measured",
    "TableCalibration",
    "apply_to_files",
    "calibrate",
    "files_since",
    "measure_before_after",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "before_after": "BeforeAfter Measured measure_before_after",
            "fit_model": "calibrate",
            "model": "CalibratedModel",
            "tables.since": "files_since",
            "tables.table_calibration": "TableCalibration",
            "tables.files": "apply_to_files",
        },
    )

    def __dir__() -> list[str]:
        return __all__
