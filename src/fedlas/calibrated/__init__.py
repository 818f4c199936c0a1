"""A trained model with its calibration: one module that returns calibrated logits.

In: any classifier and a loader of held-out data. Out: :class:`CalibratedModel`, which saves, compiles, exports and
moves like the model itself.
"""

from fedlas.calibrated.before_after import BeforeAfter, Measured
from fedlas.calibrated.calibrate import calibrate
from fedlas.calibrated.model import CalibratedModel

__all__ = ["BeforeAfter", "CalibratedModel", "Measured", "calibrate"]
