"""A trained model or a table of scores with its calibration.

In: any classifier and a loader of held-out data, or a table of scores and labels. Out: :class:`CalibratedModel`, which
saves, compiles, exports and moves like the model itself; :class:`TableCalibration`, which adds calibrated columns.
"""

from fedlas.calibrated.before_after import BeforeAfter, Measured
from fedlas.calibrated.calibrate import calibrate
from fedlas.calibrated.model import CalibratedModel
from fedlas.calibrated.table import TableCalibration

__all__ = ["BeforeAfter", "CalibratedModel", "Measured", "TableCalibration", "calibrate"]
