"""Samples as a fit takes them: float64 rows, some at a time; weights that count, and no probability of exactly 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedlas._core.check import InputError
from fedlas.calibrators._fit.state import ones
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import check_predictions
from fedlas.predictions.probabilities import FLOOR, SUM_TOLERANCE
from fedlas.predictions.sample_values import SAMPLE_VALUES

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
    return ones(val.num_samples) if val.weights is None else val.weights


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


def smallest_probability(samples: float, classes: int) -> float:
    """Return the floor of a probability estimated as a share of ``samples``: ``1 / (C (N + 1))``.

    A share that is not 0 is at least ``1 / N``, so the floor replaces zeros only. It is the share that one further
    sample, spread over all classes, would add.
    """
    return 1 / (classes * (samples + 1))


ArrayOf = Literal["logits", "probs"]

_ROUNDING = 1e-5
"""Rows whose probabilities sum to 1 within this may be logarithms of probabilities."""
_ZERO = 2e-7
"""A probability below this that occurs more than once, and is the lowest, stands for 0."""


def as_predictions(val: object, target: Tensor | None = None) -> Predictions:
    """Convert the argument of ``fit`` or ``transform`` to predictions; a top label has the classes wrong and right."""
    if isinstance(val, TopLabel):
        both = torch.stack([1 - val.confidence, val.confidence], dim=1)
        logits = both.clamp(min=least_log(both.dtype).exp()).log()
        names = (*SAMPLE_VALUES, "covariates")
        shared: dict[str, Any] = {name: getattr(val, name) for name in names}
        return Predictions(logits, val.correct.long(), **shared)
    if target is None or isinstance(val, Predictions):
        return check_predictions(val)
    return (
        Predictions.from_probs(val, target)
        if array_kind(val) == "probs"
        else Predictions(val, target)
    )


def array_kind(val: object) -> ArrayOf | None:
    """Return whether an array holds probabilities (rows in [0, 1] that sum to 1, or numbers in [0, 1]) or logits."""
    if not isinstance(val, Tensor | np.ndarray):
        return None
    scores = torch.as_tensor(val)
    if not scores.is_floating_point() or scores.layout != torch.strided or not scores.numel():
        return "logits"
    inside = bool(((scores >= 0) & (scores <= 1)).all())
    if inside and scores.ndim == 2:
        inside = bool(((scores.double().sum(dim=1) - 1).abs() < SUM_TOLERANCE).all())
    return "probs" if inside and scores.ndim in (1, 2) else "logits"


def features_of(predictions: Predictions) -> Tensor:
    """Return the features.

    Raises:
        InputError: If there are none.
    """
    if predictions.features is None or predictions.features.numel() == 0:
        raise InputError(
            "predictions must hold features",
            "predictions without",
            "Run with train.save_features=true, or make them with fedlas.predict(..., features=True).",
        )
    return predictions.features


def least_log(dtype: torch.dtype) -> Tensor:
    """Return the logarithm that stands for a probability of 0 in predictions made of probabilities."""
    return torch.tensor(FLOOR, dtype=dtype, device="cpu").log()


def prepared(
    val: Predictions, *, repeat: bool, floor: bool
) -> tuple[Predictions, float | None, str | None]:
    """Return the samples of a fit, the least log-probability of them if there are zeros, and what to warn about.

    Args:
        val: With labels.
        repeat: Turn weights into repeated samples.
        floor: Raise probabilities of exactly 0.

    Raises:
        InputError: If weights that are not whole numbers are to be turned into repeated samples.
    """
    val = counted(val, repeat=repeat)
    least = _floor(val) if floor else None
    if least is None:
        return val, None, None
    zeros = (val.logits.gather(1, val.target.unsqueeze(1)) == val.logits.min()).sum()
    text = (
        f"{int(zeros)} of {val.num_samples:,} labels have a probability of exactly 0, and would decide the fit. All "
        f"probabilities are raised to {math.exp(least):.2g} at least."
    )
    return floored(val, least), least, text if zeros else None


def floored(predictions: Predictions, least: float | None) -> Predictions:
    """Return the same samples with log-probabilities of at least ``least``, None: as they are."""
    if least is None:
        return predictions
    return predictions.with_logits(predictions.logits.log_softmax(dim=1).clamp(min=least))


def _floor(val: Predictions) -> float | None:
    """Return the log-probability that stands for 0, by the number of samples, if some probabilities are exactly 0."""
    if bool((val.logits > 0).any()) or val.num_classes < 2:
        return None
    # Logarithms of probabilities whose zeros were replaced by one small number have that number many times.
    lowest = val.logits.min()
    total = val.num_samples if val.weights is None else float(val.weights.sum())
    # Its square, since higher floors were worse on confidences of networks that round to 1: they hide an order.
    least = 2 * math.log(smallest_probability(total, val.num_classes))
    ties = int((val.logits == lowest).sum())
    alike = bool((val.logits.logsumexp(dim=1).abs() < _ROUNDING).all())
    replaced = abs(float(lowest - least_log(val.logits.dtype).to(lowest))) < _ROUNDING * 10
    zero = replaced or (ties > 1 and float(lowest) < math.log(_ZERO))
    return least if alike and zero and float(lowest) < least else None


def scaled_weights(weights: Tensor) -> Tensor:
    """Return weights ``(N,)`` that count samples: whole numbers as they are, others with a mean of 1 where above 0."""
    if bool((weights == weights.round()).all()):
        return weights
    return weights / weights[weights > 0].mean()


def counted(val: Predictions, *, repeat: bool = False) -> Predictions:
    """Return the samples with weights that count them, or none where all are 1 or rows are repeated instead.

    Raises:
        InputError: If weights that are not whole numbers are to be turned into repeated samples.
    """
    if val.weights is None:
        return val
    weights = val.weights
    whole = bool((val.weights == val.weights.round()).all())
    if repeat and not whole:
        fix = "Pass whole numbers, which count samples, or choose temperature, vector, structured or auto."
        raise InputError("weights must be whole numbers for this calibrator", "others", fix)
    used = weights > 0
    counts = scaled_weights(weights)[used]
    rows = used.nonzero().squeeze(1)
    if repeat:
        rows = rows.repeat_interleave(counts.long())
        counts = torch.ones(0)
    plain = repeat or bool((counts == 1).all())
    return val.rows(rows)._replaced(weights=None if plain else counts)
