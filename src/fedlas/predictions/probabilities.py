"""Validation of probability rows, and their normalization where rounding or the user asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import Argument, InputError, Text, check_finite, describe, warn_user
from fedlas._core.errors import public_call_name
from fedlas._core.ops import Floats, row_sum
from fedlas._core.types import BoolArray

FLOOR = float(np.finfo(np.float32).tiny)
"""Replaces a probability of exactly 0, whose logarithm is no logit: the smallest normal float32."""
NEAREST_TO_0 = 2.0**-53
"""Replaces 1 less a probability of exactly 1 of a label: half the step of float64 below 1."""
ROUNDING = 1e-6
"""How far a probability may be below 0, or a sum miss 1 without a word, as numbers in single precision do."""
SUM_TOLERANCE = 1e-3
"""How far a probability, and the sum of a row, may be from 1, whatever they look like: half precision does so."""
FLOOR_ROUNDING = 1e-4
"""Rounding of the logarithm of :data:`FLOOR` in single precision, and of sums of probabilities beside it."""
LABEL_ROUNDING = 1e-9
"""Rounding of the log-odds of a label."""
_MAX_LOST = 0.5
"""Largest deficit of a row sum that can be attributed to rounding."""
_WORTH_A_WORD = 0.01
_MAX_DIGITS = 6
_FEWEST = 8
"""Rows below which logits that look like probabilities may do so by chance."""
RowNamer = Callable[[int], str]
"""Maps a row index of a chunk to the name of the row in messages."""


class ProbabilityChecker:
    """Validates rows of class probabilities, and divides rows by their sums where these are not 1.

    A row may miss 1 by 0.001, or by as much as rounding its ``C`` numbers to the decimal places that they are written
    with explains: by ``C / 2`` units of the last place below 1, as many small ones become 0, and by half a unit above 1
    for each number that is not 0.

    Args:
        normalize: Take rows of any numbers that are not negative.
        fixes: Sentences on the remedy for ``"logits"`` and ``"percent"`` that were passed as probabilities, and
            on how to ``"normalize"``.
        precision: Relative one of the numbers, where it is coarser than 0.001.
        file: Its name, if the rows are those of one.

    State:
        How many rows came and were divided, and by what; :meth:`notes` says it.
    """

    def __init__(
        self,
        *,
        normalize: bool,
        fixes: Mapping[str, Sequence[Text]],
        precision: float = 0.0,
        file: str = "",
    ) -> None:
        self.normalize = normalize
        self.file = file
        self._precision = max(SUM_TOLERANCE, precision)
        self._fixes = fixes
        self._rows = self._divided = 0
        self._low = math.inf
        self._high = -math.inf
        self._places: int | None = None

    def normalize_rows(
        self, probs: Floats, row_name: RowNamer, column_name: Callable[[int], str] = str
    ) -> Floats:
        """Return the rows ``(n, C)``, each summing to 1; ``probs`` itself if nothing changes.

        Raises:
            InputError: For a row that is none; the message says what it looks like.
        """
        most = math.inf if self.normalize else 1.0 + self._precision
        probs = self.check_range(probs, row_name, column_name, "probabilities", most)
        sums = row_sum(probs)
        low, high = float(sums.min()), float(sums.max())
        below, above = self._tolerances(probs, low, high)
        far = (sums <= 0) if self.normalize else (sums < 1.0 - below) | (sums > 1.0 + above)
        if bool(far.any()):
            row = int(far.nonzero()[0][0])
            place = f"{row_name(row)} of {self.file}" if self.file else row_name(row)
            got = f"{float(sums[row]):.6g} in {place} ({int(far.sum()):,} such rows among {len(far):,})"
            if self.normalize:
                raise InputError(
                    "every row must have a positive sum", f"a sum of {got}", "Remove the row."
                )
            fix = "name the columns of all classes and no others (independent labels need not sum to 1)"
            raise InputError(
                "the probabilities of each row must sum to 1",
                f"a sum of {got}",
                [fix, *self._fixes["normalize"]],
            )
        self._rows += len(sums)
        # A softmax in single precision misses 1 by a few units of its last place; such rows stay as they are.
        rounding = max(ROUNDING, 4 * float(np.finfo(probs.dtype).eps) * probs.shape[1] ** 0.5)
        if low < 1.0 - rounding or high > 1.0 + rounding:
            rows = np.flatnonzero(np.abs(sums - 1.0) > rounding)
            self._divided += len(rows)
            self._low, self._high = min(self._low, low), max(self._high, high)
            probs = probs.copy()
            probs[rows] /= sums[rows, None]
        return probs

    def complete_pairs(
        self, probs: Floats, row_name: RowNamer, column_name: Callable[[int], str] = str
    ) -> Floats:
        """Return both class probabilities ``(n, 2)`` from the probability of the second class ``(n, 1)``.

        Raises:
            InputError: If one is outside [0, 1].
        """
        upper = 1.0 + self._precision
        probs = self.check_range(probs, row_name, column_name, "probabilities", upper)
        probs = np.minimum(probs, 1.0)
        return np.concatenate([1.0 - probs, probs], axis=1)

    def check_range(
        self,
        values: Floats,
        row_name: RowNamer,
        column_name: Callable[[int], str],
        noun: str,
        upper: float,
    ) -> Floats:
        """Return the values if all are in ``[0, most]``; rounding errors below 0 become 0.

        Raises:
            InputError: Otherwise; the message says what they look like.
        """
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= upper:
            return values
        outside = (values < -ROUNDING) | (values > upper)
        if bool(outside.any()):
            row, number = (int(index[0]) for index in outside.nonzero())
            raise InputError(
                f"{noun} must be in [0, 1]" if upper < math.inf else f"{noun} must not be negative",
                f"{float(values[row, number]):.6g} in {row_name(row)}, column {column_name(number)}",
                self._value_fix(values),
            )
        return np.maximum(values, 0.0)

    @property
    def max_sum_error(self) -> float:
        """Largest distance of a row sum from 1; 0 if rows were to be normalized."""
        return (
            0.0 if self.normalize or not self._divided else max(1.0 - self._low, self._high - 1.0)
        )

    def notes(self) -> list[str]:
        """Return notes on the rows that were divided by their sums."""
        if not self._divided:
            return []
        text = f"{self._divided:,} of {self._rows:,} rows were divided by their sums"
        if self.normalize:
            return [f"{text}, from {self._low:.6g} to {self._high:.6g}."]
        rounded = (
            ""
            if self._places is None
            else f", because numbers are rounded to {self._places} decimals"
        )
        lines = [f"{text}, which differ from 1 by at most {self.max_sum_error:.2g}{rounded}."]
        if self.max_sum_error > _WORTH_A_WORD:
            lines.append(
                f"Rounding changed row sums, and so confidences, by up to {100 * self.max_sum_error:.2g} %: write "
                "more decimals."
            )
        return lines

    def _tolerances(self, probs: Floats, low: float, high: float) -> tuple[float, Any]:
        """Return the tolerance of row sums below 1 (one number) and above 1 (a number, or one per row)."""
        precision = self._precision
        # Decimals take longer to count than all else here, and most files need no excuse.
        near = low >= 1.0 - precision and high <= 1.0 + precision
        if near or (places := decimal_places(probs)) is None:
            return precision, precision
        unit = 0.5 * 10.0**-places
        below = min(_MAX_LOST, unit * probs.shape[1]) + ROUNDING
        if below > precision:
            self._places = max(places, self._places or 0)
        above = unit * np.count_nonzero(probs > 0, axis=1) + ROUNDING
        return max(precision, below), np.maximum(above, precision)

    def _value_fix(self, values: Floats) -> list[Text]:
        """Return remedies for values outside [0, 1], which may be logits or percentages."""
        if bool((values < -ROUNDING).any()):
            return _prefix_first("these look like logits: ", self._fixes["logits"])
        sums = values.sum(axis=1)
        if bool((np.abs(sums - 100.0) < 1.0).all()) or (
            values.shape[1] == 1 and float(values.max()) <= 100.0
        ):
            return _prefix_first("these look like percentages: ", self._fixes["percent"])
        logits = self._fixes["logits"]
        return [*self._fixes["normalize"], *_prefix_first("for logits, ", logits)]


def _prefix_first(prefix: str, remedies: Sequence[Text]) -> list[Text]:
    """Return the remedies with ``prefix`` in front of the first."""
    return [f"{prefix}{remedies[0]}", *remedies[1:]]


def decimal_places(values: Floats) -> int | None:
    """Return the number of decimals (2 to 6) of ``values`` in [0, 1], or None if there are more or all are 0 or 1.

    Example:
        >>> decimal_places(np.array([[0.125, 0.875]])), decimal_places(np.array([[1 / 3, 2 / 3]]))
        (3, None)
    """
    single = values.dtype.itemsize <= 4
    eps = float(np.finfo(values.dtype).eps)
    # In single precision a number of six decimals is hardly distinguishable from any other.
    for places in range(2, _MAX_DIGITS - single + 1):
        scaled = values.astype(np.float64) * 10.0**places
        if bool((np.abs(scaled - scaled.round()) <= 10.0**places * eps).all()):
            return None if places == 2 and bool((scaled % 100 == 0).all()) else places
    return None


def check_probabilities(probs: NDArray[Any], *, normalize: bool, precision: float = 0.0) -> Floats:
    """Return validated probabilities ``(N, C)``; from the second of two classes ``(N,)``, both ``(N, 2)``.

    Args:
        probs: The numbers.
        normalize: Divide every row by its sum, whatever that is.
        precision: Relative one of the numbers, where they were rounded more coarsely than their dtype shows.

    Raises:
        InputError: If they are no probabilities of all classes.
    """
    if probs.dtype.kind != "f" or probs.ndim not in (1, 2) or not probs.size:
        raise InputError(
            "probs must be floats of shape (N, C) or (N,)",
            describe(probs),
            "Pass one row of class probabilities per sample, or the probability of the second of two classes.",
        )
    if not isinstance(normalize, bool):
        raise InputError("normalize must be True or False", describe(normalize), "Pass True.")
    check_finite("probs", probs)
    rows = ProbabilityChecker(normalize=normalize, precision=precision, fixes=_FIXES)
    values = probs if probs.dtype == np.float64 else probs.astype(np.float32, copy=False)
    values = values.reshape(len(values), -1)
    check = rows.complete_pairs if values.shape[1] == 1 else rows.normalize_rows
    checked = check(values, lambda row: f"row {row}")
    if rows.max_sum_error > _WORTH_A_WORD:
        warn_user(f"{public_call_name()}: {' '.join(rows.notes())}")
    return checked


_NORMALIZE: list[Text] = [
    "make each row sum to 1",
    ("pass ", Argument("normalize", True), " to divide each row by its sum"),
]
_FIXES: dict[str, list[Text]] = {
    "logits": ["pass Predictions(logits, target)"],
    "percent": ["divide by 100"],
    "normalize": _NORMALIZE,
}
TABLE_FIXES: dict[str, list[Text]] = {
    "logits": ["convert them to probabilities", ("name them by ", Argument("logits"))],
    "percent": ["divide by 100", ("pass ", Argument("percent", True))],
    "normalize": _NORMALIZE,
}
"""Remedies for columns of a table."""


def binary_logits(log_odds: Floats) -> Floats:
    """Return two-class logits ``(N, 2)``, ``(0, z)`` for log-odds ``z (N,)`` of the second class."""
    return np.stack([np.zeros_like(log_odds), log_odds], axis=1)


def safe_log(probs: Floats) -> Floats:
    """Return the logarithm of probabilities ``(N, C)``, clamped below at :data:`FLOOR`."""
    logs = np.maximum(probs, np.asarray(FLOOR, probs.dtype))
    return np.log(logs, out=logs)


def is_zero_or_one(log_odds: Floats, num_classes: int = 2) -> BoolArray:
    """Return whether log-odds ``(N,)`` stand for a probability of exactly 0 or 1, which has none.

    Args:
        log_odds: Of one of ``num_classes`` classes against the rest, or of a label, in float64.
        num_classes: Classes of which all others have a probability of 0 beside one of 1.
    """
    # A network's logits hardly ever are these numbers, so that predictions that were saved as logits need no mark.
    floor = math.log(FLOOR)
    zero, one = floor, -floor - math.log(max(num_classes - 1, 1))
    distance = np.minimum(np.abs(log_odds - zero), np.abs(log_odds - one))
    is_label = np.abs(log_odds + math.log(NEAREST_TO_0)) < LABEL_ROUNDING
    result: BoolArray = (distance < FLOOR_ROUNDING) | is_label
    return result


def are_probabilities(logits: Floats) -> bool:
    """Return whether logits are almost surely (rounded) probabilities; rows of zeros and ones do not count."""
    if len(logits) < _FEWEST or logits.shape[1] < 2:
        return False
    tolerance = SUM_TOLERANCE
    for rows in (logits[:_FEWEST], logits):  # the first rows decide in nearly all cases
        low, high = float(rows.min()), float(rows.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            return False
        if len(rows) == _FEWEST and (places := decimal_places(rows)) is not None:
            tolerance = max(
                tolerance, min(_MAX_LOST, 0.5 * 10.0**-places * rows.shape[1]) + ROUNDING
            )
        if bool((np.abs(row_sum(rows) - 1) > tolerance).any()):
            return False
    return bool(((logits > 0) & (logits < 1)).any())
