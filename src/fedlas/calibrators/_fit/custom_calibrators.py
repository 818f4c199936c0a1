"""Checks of user-defined calibrators: the map that a fit returns, and the constructor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Protocol

from fedlas._core.check import InputError, describe
from fedlas.predictions import Predictions

if TYPE_CHECKING:
    from torch import Tensor, nn

FitMap = Callable[[Predictions], "nn.Module"]
"""Type of ``fit_map``: fits a map to labeled predictions."""
_NUM_PROBES = 2
"""Number of rows that a map is tested on."""


class _CalibratorLike(Protocol):
    """Protocol of a calibrator, whose module imports this one."""

    def _map_features(self, row_map: nn.Module, val: Predictions) -> Tensor | None: ...


class ConstructorSkippedError(InputError, AttributeError):
    """A user-defined constructor did not call the base constructor or did not store an argument."""

    def __init__(self, owner: str, got: str) -> None:
        super().__init__(
            f"the constructor of {owner} must call super().__init__() and store its arguments as attributes",
            got,
            "Start it with super().__init__(), and add self.NAME = NAME for each argument.",
        )


def raise_missing_attribute(calibrator: object, name: str) -> NoReturn:
    """Raise AttributeError; for a constructor argument that was not stored, say so.

    Raises:
        AttributeError: Always.
    """
    owner = type(calibrator).__name__
    for kind in type(calibrator).__mro__:
        init = vars(kind).get("__init__")
        if inspect.isfunction(init) and name in inspect.signature(init).parameters:
            raise ConstructorSkippedError(owner, f"no attribute {name!r}")
    raise AttributeError(f"{owner!r} object has no attribute {name!r}", name=name, obj=calibrator)


def fit_checked_map(calibrator: _CalibratorLike, val: Predictions, fit_map: FitMap) -> nn.Module:
    """Call ``fit_map`` of a calibrator and return the map; raise InputError if it is not a valid map.

    Raises:
        InputError: If the class of the map did not call the constructor of ``nn.Module``, or the map is something else
            or returns another shape.
    """
    from torch import nn

    try:
        row_map = fit_map(val)
        features = calibrator._map_features(row_map, val)
        _check_map(row_map, val.tensors().logits, features, type(calibrator).__name__)
    except AttributeError as error:
        is_uninitialized = isinstance(error.obj, nn.Module) and "_parameters" not in vars(error.obj)
        if is_uninitialized or "Module.__init__()" in str(error):
            owner = "the map" if error.obj is None else type(error.obj).__name__
            raise ConstructorSkippedError(owner, str(error)) from error
        raise
    return row_map


def _check_map(row_map: object, logits: Tensor, features: Tensor | None, owner: str) -> None:
    """Raise InputError unless the map is a module that returns logits of the same shape."""
    import torch
    from torch import Tensor, nn

    if not isinstance(row_map, nn.Module):
        raise InputError(
            f"fit_map of {owner} must return a module",
            describe(row_map),
            "Return an nn.Module whose forward maps logits (n, C) to calibrated logits (n, C).",
        )
    inputs = [logits] if features is None else [logits, features]
    rows, *others = (each[:_NUM_PROBES].detach().cpu().double() for each in inputs)
    with torch.no_grad():
        after = row_map(rows, *others)
    if not isinstance(after, Tensor) or after.shape != rows.shape:
        raise InputError(
            f"the map of {owner} must return one column per class, {tuple(rows.shape)} for logits {tuple(rows.shape)}",
            describe(after),
            "Return calibrated logits of all classes.",
        )
