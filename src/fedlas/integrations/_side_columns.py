"""The inputs of a scikit-learn model as side information: numbers as they are, categories a column a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import LARGEST, InputError, describe

_MOST_NUMBERS = 2**27
"""Numbers of side information that are made dense, 1 GiB of float64."""
_MOST_VALUES = 100
"""Values of a category; a column of more is an identifier or free text."""


@dataclass
class SideColumns:
    """Turns inputs ``X`` into features ``(N, D)``, as the samples of the fit define them.

    A missing number becomes the mean of its column, and a column of more says that it was missing. A category has a
    column for each value of the fit; another value, or none, is zero in all.

    Args:
        source: Makes the side information of ``X``: the first steps of a pipeline, or a function of the user.

    State:
        After :meth:`fit`: ``columns``, for each column of ``X`` its mean if it holds numbers, its values if categories,
        None if it is left out; ``missing``, numbers of columns that had missing values; ``note``, why there is no side
        information, empty if there is.
    """

    source: Callable[[Any], Any] | None = None
    columns: list[float | tuple[str, ...] | None] = field(default_factory=list)
    missing: tuple[int, ...] = ()
    note: str = ""

    def fit(self, X: Any) -> Tensor | None:  # noqa: N803 (scikit-learn's)
        """Return features of the samples of the fit, or None if ``X`` has no columns."""
        parts = self._columns_of(X)
        if parts is None:
            return None
        self.columns = [_rule(part) for part in parts]
        gaps = [
            place
            for place, part in enumerate(parts)
            if part.dtype.kind == "f" and np.isnan(part).any()
        ]
        self.missing = tuple(place for place in gaps if self.columns[place] is not None)
        if all(rule is None for rule in self.columns):
            self.note = "no column of X holds numbers or few categories"
            return None
        return self._made(parts)

    def __call__(self, X: Any) -> Tensor:  # noqa: N803
        """Return features ``(N, D)`` float64.

        Raises:
            InputError: If ``X`` has other columns than in the fit.
        """
        parts = self._columns_of(X)
        if parts is None or len(parts) != len(self.columns):
            raise InputError(
                f"X must have {len(self.columns)} columns",
                describe(X) if parts is None else f"{len(parts)} columns",
                "Pass the columns of the fit, in their order.",
            )
        return self._made(parts)

    @property
    def is_numeric(self) -> bool:
        """Whether every column holds numbers, so that a layer can make the features."""
        return all(isinstance(rule, float) for rule in self.columns)

    def layer(self) -> nn.Module:
        """Return the same map of numbers ``(N, D)`` as a module."""
        return NumbersLayer(torch.tensor(self.columns, dtype=torch.float64), self.missing)

    def _columns_of(self, X: Any) -> list[NDArray[Any]] | None:  # noqa: N803
        values = X if self.source is None else self.source(X)
        if hasattr(values, "tocsc"):  # sparse
            if int(np.prod(values.shape)) > _MOST_NUMBERS:
                self.note = f"X is sparse and has {values.shape[1]:,} columns"
                return None
            values = values.toarray()
        if hasattr(values, "columns") and hasattr(values, "shape"):
            names = list(values.columns)
            return [_plain(np.asarray(values[name])) for name in names]
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.ndim != 2 or not array.shape[1]:
            self.note = f"X has no columns: {describe(X)}"
            return None
        return [_plain(column) for column in array.T]

    def _made(self, parts: list[NDArray[Any]]) -> Tensor:
        columns: list[NDArray[Any]] = []
        for part, rule in zip(parts, self.columns, strict=True):
            if isinstance(rule, float):
                numbers = part if part.dtype.kind == "f" else np.full(len(part), np.nan)
                columns.append(np.where(np.isnan(numbers), rule, numbers).clip(-LARGEST, LARGEST))
            elif rule is not None:
                names = _names(part)
                columns.extend((names == value).astype(np.float64) for value in rule)
        columns.extend(np.isnan(parts[place]).astype(np.float64) for place in self.missing)
        return torch.from_numpy(np.stack(columns, axis=1))


class NumbersLayer(nn.Module):
    """Features of numbers, missing ones filled with the mean of their column.

    Args:
        means: Mean of each column ``(D,)``.
        missing: Columns that had missing numbers in the fit.
    """

    means: Tensor

    def __init__(self, means: Tensor, missing: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.missing = list(missing)

    def forward(self, X: Tensor) -> Tensor:  # noqa: N803
        """Return features ``(N, D + missing)`` of ``X (N, D)``."""
        gaps = X.isnan()
        filled = torch.where(gaps, self.means.to(X.dtype), X)
        if not self.missing:
            return filled
        return torch.cat([filled, gaps[:, self.missing].to(X.dtype)], dim=1)


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return numbers and booleans as float64, all else as text or objects."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    if column.dtype.kind == "O":
        try:
            return np.array(
                [np.nan if value is None else value for value in column.tolist()]
            ).astype(np.float64)
        except (TypeError, ValueError):
            return column
    return column


def _names(column: NDArray[Any]) -> NDArray[Any]:
    """Return the values of a category as text."""
    return np.array([str(value) for value in column.tolist()], dtype=object)


def _rule(column: NDArray[Any]) -> float | tuple[str, ...] | None:
    """Return the mean of a column of numbers, the values of a category; None for any other column."""
    if column.dtype.kind == "f":
        numbers = column[~np.isnan(column)]
        return float(numbers.clip(-LARGEST, LARGEST).mean()) if len(numbers) else None
    if column.dtype.kind not in "OUS":  # times, for example
        return None
    present = [value for value in column.tolist() if value is not None and value == value]
    values = sorted({str(value) for value in present})
    return tuple(values) if 1 < len(values) <= _MOST_VALUES else None


def side_source(estimator: Any, features: Any) -> Any:
    """Return the function that makes side information of ``X``; None: it is ``X``."""
    if callable(features):
        return features
    inner = estimator.estimator if type(estimator).__name__ == "FrozenEstimator" else estimator
    steps = getattr(inner, "steps", ())
    return inner[:-1].transform if len(steps) > 1 else None
