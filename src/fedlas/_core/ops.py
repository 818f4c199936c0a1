"""Operations on rows of NumPy arrays ``(N, C)``, in blocks that fit the cache; numbers keep the precision they have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""An array in single or double precision."""
Float = TypeVar("Float", bound=np.floating[Any])
"""The precision of an array, which results keep."""
_BLOCK = 2**16
"""Numbers of a block: half a MiB in double precision."""
_FEW = 16
"""Columns up to which a reduction of rows is faster column by column."""


def iter_blocks(rows: int, columns: int, elements: int = _BLOCK) -> Iterator[slice]:
    """Yield slices of rows that hold about ``elements`` numbers each."""
    size = max(1, elements // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, start + size)


def row_max(values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest value of each row ``(N,)``."""
    if values.shape[1] > _FEW:
        largest: NDArray[Any] = values.max(axis=1)
        return largest
    largest = values[:, 0].copy()
    for column in range(1, values.shape[1]):
        np.maximum(largest, values[:, column], out=largest)
    return largest


def row_argmax(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the column of the largest value of each row ``(N,)``; ties go to the first."""
    if values.shape[1] > _FEW:
        return values.argmax(axis=1)
    best = np.zeros(len(values), np.int64)
    largest = values[:, 0].copy()
    for column in range(1, values.shape[1]):
        best[values[:, column] > largest] = column
        np.maximum(largest, values[:, column], out=largest)
    return best


def row_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of each row ``(N,)``, in the precision of ``values``; truth values are counted."""
    if values.shape[1] > _FEW or values.dtype.kind not in "f":
        total: NDArray[Any] = values.sum(axis=1)
        return total
    total = values[:, 0].copy()
    for column in range(1, values.shape[1]):
        total += values[:, column]
    return total


def softmax(logits: NDArray[Float], out: NDArray[Float] | None = None) -> NDArray[Float]:
    """Return the softmax over each row of ``logits (N, C)``; equal rows give identical results.

    Args:
        logits: Scores in single or double precision.
        out: Array that receives the result; it may be ``logits``.
    """
    return _normalized_rows(logits, out, log=False)


def log_softmax(logits: NDArray[Float], out: NDArray[Float] | None = None) -> NDArray[Float]:
    """Return the log-softmax over each row of ``logits (N, C)``; the arguments are those of :func:`softmax`."""
    return _normalized_rows(logits, out, log=True)


def logsumexp(logits: NDArray[Float]) -> NDArray[Float]:
    """Return ``log sum_k exp(logit_k)`` of each row ``(N,)``."""
    largest = row_max(logits)
    result: NDArray[Float] = log_partition(logits, largest, logits.dtype)
    result += largest
    return result


def log_partition(logits: NDArray[Any], largest: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return ``log sum_k exp(logit_k - largest logit)`` of each row ``(N,)``, computed in the precision ``dtype``."""
    result = np.empty(len(logits), dtype)
    for part in iter_blocks(*logits.shape):
        block, axis = _copy_block(logits[part], result.dtype)
        block -= np.expand_dims(largest[part], axis)
        result[part] = np.exp(block, out=block).sum(axis=axis)
    return np.log(result, out=result)


def sigmoid(logits: NDArray[Float]) -> NDArray[Float]:
    """Return ``1 / (1 + exp(-z))`` of each value."""
    result = np.negative(logits)
    with np.errstate(over="ignore"):  # the inverse of infinity is 0
        np.exp(result, out=result)
    result += 1.0
    return np.divide(1.0, result, out=result)


def softplus(logits: NDArray[Float]) -> NDArray[Float]:
    """Return ``log(1 + exp(z))`` of each value, without overflow."""
    result = np.abs(logits)
    np.negative(result, out=result)
    np.exp(result, out=result)
    np.log1p(result, out=result)
    result += np.maximum(logits, 0.0)
    return result


def _normalized_rows(
    logits: NDArray[Float], out: NDArray[Float] | None, *, log: bool
) -> NDArray[Float]:
    """Return the softmax of rows, or its logarithm."""
    result = np.empty(logits.shape, logits.dtype) if out is None else out
    for part in iter_blocks(*logits.shape):
        block, axis = _copy_block(logits[part], logits.dtype)
        block -= block.max(axis=axis, keepdims=True)
        if log:
            block -= np.log(np.exp(block).sum(axis=axis, keepdims=True))
        else:
            np.exp(block, out=block)
            block /= block.sum(axis=axis, keepdims=True)
        result[part] = block if axis else block.T
    return result


def _copy_block(rows: NDArray[Any], dtype: Any) -> tuple[NDArray[Any], int]:
    """Return a copy of rows in a precision, and its axis of the classes."""
    # Few classes lie as rows of the copy, since a reduction along short rows is slow.
    few = rows.shape[1] <= _FEW
    return np.array(rows.T if few else rows, dtype, order="C"), 0 if few else 1
