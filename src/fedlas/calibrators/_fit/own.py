"""Checks of calibrators that users write: of the map that a fit returns, and of constructors that call their base."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe

_PROBES = 2
"""Rows on which a map is tried."""


class ConstructorSkippedError(InputError, AttributeError):
    """Says that the constructor of a user's class lacks the call of its base, or an argument."""

    def __init__(self, owner: str, got: str) -> None:
        super().__init__(
            f"the constructor of {owner} must call that of its base and keep its arguments as attributes",
            got,
            "Begin it with super().__init__(), and write self.NAME = NAME for each argument.",
        )


def lacks_constructor(error: AttributeError) -> bool:
    """Return whether a module raised the error because its class did not call the constructor of ``nn.Module``."""
    is_module = isinstance(error.obj, nn.Module) and "_parameters" not in vars(error.obj)
    return is_module or "Module.__init__()" in str(error)


def check_map(row_map: Any, logits: Tensor, features: Tensor | None, owner: str) -> None:
    """Refuse what is no module from logits ``(n, C)``, and features if there are some, to as many.

    Raises:
        AttributeError: If its class did not call the constructor of ``nn.Module``.
        InputError: If it is something else, or returns another shape.
    """
    if not isinstance(row_map, nn.Module):
        raise InputError(
            f"fit_map of {owner} must return a module",
            describe(row_map),
            "Return an nn.Module whose forward maps logits (n, C) to calibrated logits (n, C).",
        )
    given = [logits] if features is None else [logits, features]
    rows, *others = (each[:_PROBES].detach().cpu().double() for each in given)
    with torch.no_grad():
        after = row_map(rows, *others)
    if not isinstance(after, Tensor) or after.shape != rows.shape:
        raise InputError(
            f"the map of {owner} must return a column a class, {tuple(rows.shape)} for logits {tuple(rows.shape)}",
            describe(after),
            "Return calibrated logits of all classes.",
        )
