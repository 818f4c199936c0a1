"""Encoding of a scikit-learn model's inputs as features for a calibrator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import LARGEST, InputError, describe
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.tables.encoder import MAX_VALUES, encode_columns, infer_column_covariates

_MAX_DENSE_NUMBERS = 2**27
"""Most numbers of a sparse matrix that are made dense, 1 GiB of float64."""


@dataclass
class SideEncoder:
    """Encoder of inputs ``X`` as features ``(N, D)``, fitted on the calibration samples.

    Args:
        source: Function applied to ``X`` first: the first steps of a pipeline, or a function of the user.

    State:
        After :meth:`fit`: ``columns``, the names of all columns of ``X``, numbered if they have none; ``encoder``, what
        those that are used hold, as :class:`~fedlas.predictions.covariates.Covariates` of tables have it;
        ``covariates``, the same, but None for a bare matrix, in which groups of zeros and ones are searched for;
        ``note``, why there is no side information, empty if there is.
    """

    source: Callable[[Any], Any] | None = None
    columns: tuple[str, ...] = ()
    encoder: Covariates | None = None
    covariates: Covariates | None = None
    note: str = ""

    def fit(self, X: Any) -> Tensor | None:  # noqa: N803 (scikit-learn's)
        """Fit the encoder to ``X`` and return its features ``(N, D)``, or None if ``X`` has no usable columns."""
        values = self._side_information(X)
        parts = self._named_columns(values)
        if parts is None:
            return None
        self.columns = tuple(parts)
        useful = {name: part for name, part in parts.items() if _is_informative(part)}
        if not useful:
            self.note = "no column of X holds numbers or few categories"
            return None
        self.encoder = infer_column_covariates(useful, [*useful])
        is_bare = not hasattr(values, "columns") and not self.encoder.categories
        self.covariates = None if is_bare else self.encoder
        return self._encode(parts)

    def __call__(self, X: Any) -> Tensor:  # noqa: N803
        """Return features ``(N, D)`` float64.

        Raises:
            InputError: If ``X`` has other columns than in the fit.
        """
        parts = self._named_columns(self._side_information(X))
        if parts is None or len(parts) != len(self.columns):
            raise InputError(
                f"X must have {len(self.columns)} columns, as in the fit",
                describe(X) if parts is None else f"{len(parts)} columns",
                "Pass the columns of the fit, in the same order.",
            )
        return self._encode(dict(zip(self.columns, parts.values(), strict=True)))

    @property
    def is_numeric(self) -> bool:
        """Whether every column holds numbers, so that the encoder can be a torch module."""
        return self.encoder is not None and self.encoder.numbers == self.columns

    def layer(self) -> nn.Module:
        """Return the encoder of numeric columns ``(N, D)`` as a torch module."""
        encoder = self.encoder or Covariates()
        means = torch.tensor([encoder.means[name] for name in self.columns], dtype=torch.float64)
        return NumbersLayer(means, tuple(map(self.columns.index, encoder.gaps)))

    def _side_information(self, X: Any) -> Any:  # noqa: N803
        return X if self.source is None else self.source(X)

    def _named_columns(self, values: Any) -> dict[str, NDArray[Any]] | None:
        if hasattr(values, "tocsc"):  # sparse
            if int(np.prod(values.shape)) > _MAX_DENSE_NUMBERS:
                self.note = f"X is sparse and has {values.shape[1]:,} columns"
                return None
            values = values.toarray()
        if hasattr(values, "columns") and hasattr(values, "shape"):
            return {
                str(name): _clean_column(_column_array(values[name])) for name in values.columns
            }
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.ndim != 2 or not array.shape[1]:
            self.note = f"X has no columns: {describe(values)}"
            return None
        return {f"x{place}": _clean_column(column) for place, column in enumerate(array.T)}

    def _encode(self, parts: dict[str, NDArray[Any]]) -> Tensor:
        # A copy, whose count of values that the fit did not see goes with it.
        encoder = replace(self.encoder or Covariates(), unknown=Counter())
        features = encode_columns(encoder, {name: parts[name] for name in encoder.columns})
        return torch.from_numpy(features)


class NumbersLayer(nn.Module):
    """Torch module that encodes numeric columns: missing values become the column's mean.

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


def _column_array(series: Any) -> NDArray[Any]:
    """Return a frame's column as an array, with missing values of pandas' extension types as None."""
    if hasattr(series, "notna") and not isinstance(series.dtype, np.dtype):
        series = series.astype(object).where(series.notna(), None)
    return np.asarray(series)


def _clean_column(column: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as float64 clipped to +-1.3e30, and all other values unchanged."""
    if column.dtype.kind == "O":
        try:
            values = [np.nan if value is None else value for value in column.tolist()]
            column = np.array(values).astype(np.float64) if _are_numbers(values) else column
        except (TypeError, ValueError):
            return column
    if column.dtype.kind in "fiu":
        return column.astype(np.float64).clip(-LARGEST, LARGEST)
    return column


def _are_numbers(values: list[Any]) -> bool:
    return not any(isinstance(value, str | bool | np.bool_) for value in values)


def _is_informative(column: NDArray[Any]) -> bool:
    """Return whether a column holds numbers or a few distinct categories; times are not informative."""
    if column.dtype.kind == "f":
        return not bool(np.isnan(column).all())
    if column.dtype.kind not in "OUSb":
        return False
    present = [value for value in column.tolist() if value is not None and value == value]
    return 1 < len({str(value) for value in present}) <= MAX_VALUES


def side_information_function(estimator: Any, features: Any) -> Any:
    """Return the function that maps ``X`` to side information, or None if ``X`` itself is used."""
    if callable(features):
        return features
    inner = estimator.estimator if type(estimator).__name__ == "FrozenEstimator" else estimator
    steps = getattr(inner, "steps", ())
    return inner[:-1].transform if len(steps) > 1 else None
