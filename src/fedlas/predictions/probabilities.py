"""Rows of probabilities as people write them: checked, and divided by their sums where rounding or the user asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import CalibrationWarning, InputError, check_finite, describe

Probs = NDArray[np.floating[Any]]
FLOOR = float(np.finfo(np.float32).tiny)
"""Replaces a probability of exactly 0, whose logarithm is no logit: the smallest normal float32."""
ROUNDING = 1e-6
"""How far a probability may be below 0, or a sum miss 1 without a word, as numbers in single precision do."""
SUM_TOLERANCE = 1e-3
"""How far a probability, and the sum of a row, may be from 1, whatever they look like: half precision does so."""
_MOST_LOST = 0.5
"""No more of a row can be taken for lost to rounding."""
_WORTH_A_WORD = 0.01
_MOST_DIGITS = 6
Where = Callable[[int], str]
"""From the number of a row in a block to what messages call it."""


class Probabilities:
    """Checks rows of probabilities of all classes, and divides each by its sum where that is not 1.

    A row may miss 1 by 0.001, or by as much as rounding its ``C`` numbers to the decimal places that they are written
    with explains: by ``C / 2`` units of the last place below 1, as many small ones become 0, and by half a unit above 1
    for each number that is not 0.

    Args:
        owner: Who complains.
        normalize: Take rows of any numbers that are not negative.
        precision: Relative one of the numbers, where it is coarser than 0.001.
        file: Its name, if the rows are those of one.
        logits_fix: What to do with logits that were passed as probabilities.
        normalize_fix: How to ask for ``normalize``.

    State:
        How many rows came and were divided, and by what; :meth:`notes` says it.
    """

    def __init__(
        self,
        owner: str,
        *,
        normalize: bool,
        logits_fix: str,
        normalize_fix: str,
        precision: float = 0.0,
        file: str = "",
    ) -> None:
        self.owner, self.normalize, self._of = owner, normalize, f" of {file}" if file else ""
        self._precision = max(SUM_TOLERANCE, precision)
        self._logits_fix, self._normalize_fix = logits_fix, normalize_fix
        self._rows = self._divided = self._zeros = 0
        self._low, self._high = np.inf, -np.inf
        self._places: int | None = None

    def checked(self, probs: Probs, where: Where, column: Callable[[int], str] = str) -> Probs:
        """The rows ``(n, C)``, each summing to 1.

        Raises:
            InputError: For a row that is none; the message says what it looks like.
        """
        most = np.inf if self.normalize else 1.0 + self._precision
        probs = self.in_range(probs, where, column, "probabilities", most).clip(0.0)
        sums = probs.sum(axis=1, dtype=np.float64)
        below, above = self._tolerances(probs, sums)
        far = (sums <= 0) if self.normalize else (sums < 1.0 - below) | (sums > 1.0 + above)
        if far.any():
            row = int(np.flatnonzero(far)[0])
            expected = (
                "a row must have a positive number" if self.normalize else "the probabilities of a row must sum to 1"
            )
            got = f"{sums[row]:.6g} in {where(row)}{self._of} ({int(far.sum()):,} such rows among {len(far):,})"
            fix = (
                "Remove the row."
                if self.normalize
                else "Name the columns of all classes, and no other; for independent classes there is no softmax. "
                f"{self._normalize_fix}"
            )
            raise InputError(self.owner, expected, got, fix)
        self._rows += len(sums)
        divide = np.abs(sums - 1.0) > ROUNDING
        if divide.any():
            self._divided += int(divide.sum())
            self._low, self._high = min(self._low, float(sums.min())), max(self._high, float(sums.max()))
            probs = np.where(divide[:, None], probs / sums[:, None].astype(probs.dtype), probs)
        return probs

    def both(self, probs: Probs, where: Where, column: Callable[[int], str] = str) -> Probs:
        """Both probabilities ``(n, 2)`` from that of the second class ``(n, 1)``.

        Raises:
            InputError: If one is outside [0, 1].
        """
        return both_of(self.in_range(probs, where, column, "probabilities", 1.0 + self._precision).clip(0.0, 1.0))

    def in_range(self, values: Probs, where: Where, column: Callable[[int], str], what: str, most: float) -> Probs:
        """The values, if all are in ``[0, most]``.

        Raises:
            InputError: Otherwise; the message says what they look like.
        """
        outside = (values < -ROUNDING) | (values > most)
        if outside.any():
            row, number = (int(place[0]) for place in np.nonzero(outside))
            got = f"{values[row, number]:.6g} in {where(row)}, column {column(number)}"
            expected = f"{what} must be in [0, 1]" if most < np.inf else f"{what} must not be negative"
            raise InputError(self.owner, expected, got, self._looks_like(values))
        return values

    def logits(self, probs: Probs) -> Probs:
        """Their logarithms, which are logits; zeros become :data:`FLOOR`, and are counted."""
        self._zeros += int((probs <= 0).sum())
        found: Probs = np.log(np.maximum(probs, FLOOR))
        return found

    @property
    def zeros(self) -> int:
        """Probabilities of exactly 0 so far."""
        return self._zeros

    @property
    def lost(self) -> float:
        """The largest share that a row lacked of 1 or had too much, where it was not meant to be normalized."""
        return 0.0 if self.normalize or not self._divided else max(1.0 - self._low, self._high - 1.0)

    def notes(self) -> list[str]:
        """What was made of the rows so far, as sentences."""
        if not self._divided:
            return []
        text = f"{self._divided:,} of {self._rows:,} rows were divided by their sums"
        if self.normalize:
            return [f"{text}, which are from {self._low:.6g} to {self._high:.6g}."]
        rounded = "" if self._places is None else f", as their numbers are rounded to {self._places} decimals"
        lines = [f"{text}, which miss 1 by {self.lost:.2g} at most{rounded}."]
        if self.lost > _WORTH_A_WORD:
            lines.append(
                f"Rounding took up to {100 * self.lost:.2g} % of a row, and dividing moves confidences by as much: "
                "write more decimals."
            )
        return lines

    def _tolerances(self, probs: Probs, sums: NDArray[np.float64]) -> tuple[float, Probs | float]:
        """How far below 1 the sum of any row may be, and how far above each."""
        precision = self._precision
        # Decimals take longer to find than all else here, and most files need no excuse.
        near = bool((np.abs(sums - 1.0) <= precision).all())
        if near or (places := decimal_places(probs)) is None:
            return precision, precision
        unit = 0.5 * 10.0**-places
        below = min(_MOST_LOST, unit * probs.shape[1]) + ROUNDING
        if below > precision:
            self._places = max(places, self._places or 0)
        return max(precision, below), np.maximum(precision, unit * (probs > 0).sum(axis=1) + ROUNDING)

    def _looks_like(self, values: Probs) -> str:
        """What to do with values that are no probabilities, by what they look like."""
        if (values < -ROUNDING).any():
            return f"These look like logits: {self._logits_fix}"
        sums = values.sum(axis=1, dtype=np.float64)
        if (np.abs(sums - 100.0) < 1.0).all() or (values.shape[1] == 1 and values.max() <= 100.0):
            return "These look like percentages: divide by 100."
        return f"Of logits: {self._logits_fix} {self._normalize_fix}"


def decimal_places(values: Probs) -> int | None:
    """With how many decimals (2 to 6) all ``values`` in [0, 1] are written; None if with more, or if all are whole.

    Example:
        >>> decimal_places(np.array([[0.125, 0.875]])), decimal_places(np.array([[1 / 3, 2 / 3]]))
        (3, None)
    """
    single = values.dtype.itemsize <= 4
    # In single precision a number of six decimals is hardly distinguishable from any other.
    for places in range(2, _MOST_DIGITS - single + 1):
        scaled = values.astype(np.float64) * 10.0**places
        rounding = 10.0**places * float(np.finfo(values.dtype).eps)
        if bool((np.abs(scaled - np.rint(scaled)) <= rounding).all()):
            return None if places == 2 and bool((scaled % 100 == 0).all()) else places
    return None


def logits_from(owner: str, probs: Tensor, *, normalize: bool) -> Tensor:
    """The logarithms of ``probs (N, C)``, or of the second of two classes ``(N,)``, on their device; for ``owner``.

    Raises:
        InputError: If they are no probabilities of all classes.
    """
    if not probs.is_floating_point() or probs.ndim not in (1, 2) or not probs.numel():
        fix = "Pass one row of probabilities a sample, or the probability of the second of two classes."
        raise InputError(owner, "probs must be floats (N, C) or (N,)", describe(probs), fix)
    check_finite(owner, "probs", probs)
    single = probs.dtype not in (torch.float32, torch.float64)
    values = probs.cpu().float().numpy() if single else probs.cpu().numpy()
    rows = Probabilities(
        owner,
        normalize=normalize,
        precision=float(torch.finfo(probs.dtype).eps),
        logits_fix="pass Predictions(logits, target).",
        normalize_fix="Pass normalize=True to divide each row by its sum.",
    )
    check, values = (rows.both, values.reshape(-1, 1)) if values.size == len(values) else (rows.checked, values)
    checked = check(values, lambda row: f"row {row}")
    if rows.lost > _WORTH_A_WORD:
        warnings.warn(f"{owner}: {' '.join(rows.notes())}", CalibrationWarning, stacklevel=3)
    return torch.from_numpy(rows.logits(checked)).to(probs.device)


def both_of(probs: Probs) -> Probs:
    """Both probabilities ``(n, 2)`` from that of the second class ``(n, 1)``."""
    return np.concatenate([1.0 - probs, probs], axis=1)


_FEWEST = 8
"""Rows below which logits that look like probabilities may do so by chance."""


def are_probabilities(logits: Tensor) -> bool:
    """Whether logits are almost surely probabilities; rows of zeros and ones, which a test may make, do not count."""
    if len(logits) < _FEWEST or logits.shape[1] < 2:
        return False
    for rows in (logits[:_FEWEST], logits):  # the first rows tell in nearly all cases
        low, high = rows.aminmax()
        if low < 0 or high > 1 or bool(((rows.sum(dim=1) - 1).abs() > 1e-3).any()):
            return False
    return bool(((logits > 0) & (logits < 1)).any())
