"""Logits in float64, some rows at a time, so that no second large copy of them exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlas.predictions import Predictions

# Elements of a chunk: 2 MiB of float64, so that a few work arrays of that size fit the cache.
_CHUNK_ELEMENTS = 2**18
# Most numbers that are kept between passes.
_KEPT = 2**23


def double_rows(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of ``logits (..., N, C)`` in order, as ``(which rows, float64 on the CPU)``.

    Always on the CPU: not every accelerator has float64, and sums there may differ between runs. Rows that are float64
    on the CPU already are not copied: do not write to them.
    """
    samples = logits.shape[-2]
    rows = max(1, _CHUNK_ELEMENTS * samples // max(1, logits.numel()))
    for start in range(0, samples, rows):
        part = slice(start, min(start + rows, samples))
        yield part, logits[..., part, :].detach().cpu().double()


class _Columns:
    """Some rows as columns at a time, computed at each iteration."""

    def __init__(self, logits: Tensor, change: Callable[[Tensor], Tensor]) -> None:
        self._logits = logits
        self._change = change

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for part, rows in double_rows(self._logits):
            yield part, self._change(rows.mT.clone(memory_format=torch.contiguous_format))


def columns_of(
    logits: Tensor, change: Callable[[Tensor], Tensor]
) -> Iterable[tuple[slice, Tensor]]:
    """Return some rows of ``logits (..., N, C)`` at a time as float64 columns ``(..., C, n)``, and which rows.

    The softmax of few classes takes a tenth of the time over the first dimension. Can be read again and again; at most
    64 MiB are kept for that, and more are computed again.

    Args:
        logits: ``(..., N, C)``.
        change: From a fresh array ``(..., C, n)`` to one of that shape; it may write to it.
    """
    columns = _Columns(logits, change)
    return list(columns) if logits.numel() <= _KEPT else columns


def blocks(parts: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """Return weights of parts of the samples ``(F, N)`` in blocks whose logits fit the cache together."""
    return parts.split(max(1, _CHUNK_ELEMENTS // logits.numel()))


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


def row_moments(
    rows: Tensor, weights: Tensor, function: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the columns of some rows; the deviation is 1 where it would be 0.

    Args:
        rows: ``(..., N, C)``.
        weights: ``(..., N)``.
        function: From float64 rows ``(..., n, C)`` to ``(..., n, M)``; None: the rows.

    Returns:
        Two float64 tensors ``(..., M)``.
    """
    total = weights.sum(dim=-1, keepdim=True)

    def average(change: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        for part, each in double_rows(rows):
            changed = change(each if function is None else function(each))
            parts.append((weights[..., None, part] @ changed).squeeze(-2))
        return torch.stack(parts).sum(dim=0) / total

    mean = average(lambda each: each)
    deviation = average(lambda each: (each - mean.unsqueeze(-2)).square()).sqrt()
    # The deviation of a constant column is rounding, and must not be divided by.
    return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
