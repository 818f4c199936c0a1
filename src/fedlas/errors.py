"""The errors and the warning that users of fedlas can catch by name."""

from fedlas._core.check import CalibrationWarning, InputError, NonFiniteError
from fedlas._core.extras import MissingExtraError

__all__ = ["CalibrationWarning", "InputError", "MissingExtraError", "NonFiniteError"]
