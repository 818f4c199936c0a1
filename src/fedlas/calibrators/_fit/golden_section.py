"""Golden-section search: the minimum of a function of one number."""

from __future__ import annotations

from collections.abc import Callable

_SHRINK = (5**0.5 - 1) / 2


def golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Where ``function`` is lowest in ``[low, high]``, if it falls and then rises there.

    Args:
        function: Evaluated once at each point.
        low: Left end.
        high: Right end.
        tolerance: Width of the last bracket, of which the middle is returned.
    """
    values: dict[float, float] = {}
    left, right = high - _SHRINK * (high - low), low + _SHRINK * (high - low)
    while high - low > tolerance:
        for point in (left, right):
            if point not in values:
                values[point] = function(point)
        if values[left] <= values[right]:
            high, right = right, left
            left = high - _SHRINK * (high - low)
        else:
            low, left = left, right
            right = low + _SHRINK * (high - low)
    return (low + high) / 2
