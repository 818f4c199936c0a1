"""Public errors and warnings of fedlas."""

from fedlas._core.check import CalibrationWarning, InputError, NonFiniteError
from fedlas._core.extras import MissingExtraError

__all__ = ["CalibrationWarning", "InputError", "MissingExtraError", "NonFiniteError"]
