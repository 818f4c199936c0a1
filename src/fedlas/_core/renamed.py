"""Decorator that accepts the old names of renamed arguments, with a DeprecationWarning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def accept_old_names(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that accepts old names of keyword arguments, with a DeprecationWarning.

    Args:
        **names: The new name of each old one.

    Example:
        >>> @accept_old_names(calibrator="method")
        ... def fit(method: str = "auto") -> str:
        ...     return method
        >>> with warnings.catch_warnings(action="ignore"):
        ...     fit(calibrator="temperature")
        'temperature'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call_renamed(*args: P.args, **options: P.kwargs) -> R:
            for old, new in names.items():
                if old in options and new not in options:
                    place = function.__qualname__.removesuffix(".__init__")
                    warnings.warn(
                        f"{place}: {old}= was renamed to {new}=; the old name will be removed in the next release.",
                        DeprecationWarning,
                        stacklevel=2,
                    )
                    options[new] = options.pop(old)
            return function(*args, **options)

        return call_renamed

    return decorate
