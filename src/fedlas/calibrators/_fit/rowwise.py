"""Logits in float64, some rows at a time, so that no second large copy of them exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlas.predictions import Predictions

# Elements of a chunk: 2 MiB of float64, so that a few work arrays of that size fit the cache.
_CHUNK_ELEMENTS = 2**18
# Most numbers that are kept between passes.
_KEPT = 2**23


def double_rows(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of ``logits (N, C)`` in order, as ``(which rows, float64 on the CPU)``.

    Always on the CPU: not every accelerator has float64, and sums there may differ between runs. Rows that are float64
    on the CPU already are not copied: do not write to them.
    """
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    for start in range(0, logits.shape[0], rows):
        part = slice(start, min(start + rows, logits.shape[0]))
        yield part, logits[part].detach().cpu().double()


class Columns:
    """Float64 columns ``(C, n)`` of some rows of ``logits (N, C)`` at a time, after ``change``, and which rows.

    The softmax of few classes takes a tenth of the time over the first dimension. Can be read again and again; at most
    64 MiB are kept in between, and more are computed again.

    Args:
        logits: ``(N, C)``.
        change: From a fresh array ``(C, n)`` to one of that shape; it may write to it.
    """

    def __init__(self, logits: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        self._logits = logits
        self._change = change
        self._kept: list[tuple[slice, Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        if self._logits.numel() > _KEPT:
            return self._computed()
        self._kept = self._kept or list(self._computed())
        return iter(self._kept)

    def _computed(self) -> Iterator[tuple[slice, Tensor]]:
        for part, rows in double_rows(self._logits):
            yield part, self._change(rows.T.clone(memory_format=torch.contiguous_format))


def weights_of(val: Predictions) -> Tensor:
    """Return the weight of each sample ``(N,)``, float64 on the CPU; ones if there are none."""
    return (
        torch.ones(val.num_samples, dtype=torch.float64, device="cpu")
        if val.weights is None
        else val.weights
    )


def map_rows(
    logits: Tensor, function: Callable[..., Tensor], features: Tensor | None = None
) -> Tensor:
    """Return ``function`` of the rows of ``logits``, computed in float64; the result has their dtype and device.

    Args:
        logits: ``(N, C)``.
        function: From float64 rows ``(n, C)``, and features ``(n, D)`` if there are some, to ``(n, C)``, row by row.
        features: ``(N, D)``, or None.
    """
    result = torch.empty_like(logits)
    for part, rows in double_rows(logits):
        others = () if features is None else (features[part].detach().cpu().double(),)
        result[part] = function(rows, *others).to(result)
    return result


def total_nll(val: Predictions, function: Callable[[Tensor], Tensor]) -> float:
    """Sum of ``-log softmax(function(z))[y]`` over the samples, by their weights."""
    total = 0.0
    weights = weights_of(val)
    for part, rows in double_rows(val.logits):
        total += float(
            weights[part] @ cross_entropy(function(rows), val.target[part].cpu(), reduction="none")
        )
    return total


def column_moments(
    logits: Tensor, function: Callable[[Tensor], Tensor], weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each column of ``function(logits)``; the deviation is 1 where it would be 0.

    Args:
        logits: ``(N, C)``.
        function: From float64 rows ``(n, C)`` to ``(n, ...)``.
        weights: Weight of each row ``(N,)``; None: 1.

    Returns:
        Two float64 tensors of the shape of one row of the result.
    """
    weights = (
        torch.ones(len(logits), dtype=torch.float64, device="cpu") if weights is None else weights
    )

    def average(of: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [
            torch.tensordot(weights[part], of(function(rows)), dims=1)
            for part, rows in double_rows(logits)
        ]
        return torch.stack(parts).sum(dim=0) / weights.sum()

    mean = average(lambda rows: rows)
    deviation = average(lambda rows: (rows - mean).square()).sqrt()
    # The deviation of a constant column is rounding, and must not be divided by.
    return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
