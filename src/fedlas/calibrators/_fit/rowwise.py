"""Preparing samples for a fit: float64 rows in chunks, normalized weights, and a floor for probabilities of 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedlas._core.check import InputError, is_tensor
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import require_predictions
from fedlas.predictions.arguments import relative_precision, to_numbers
from fedlas.predictions.probabilities import FLOOR, SUM_TOLERANCE
from fedlas.predictions.sample_values import SAMPLE_VALUES
from fedlas.predictions.two_arrays import are_logits
from fedlas.resample.effective import effective_sample_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Elements of a chunk: 2 MiB of float64, so that a few work arrays of that size fit the cache.
_CHUNK_ELEMENTS = 2**18
# Most elements that are cached between passes.
_MAX_CACHED = 2**23


def iter_float64_rows(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of ``logits (..., N, C)`` in order, as (row slice, float64 rows on the CPU).

    Always on the CPU: not every accelerator has float64, and sums there may differ between runs. Rows that are float64
    on the CPU already are not copied: do not write to them.
    """
    samples = logits.shape[-2]
    rows = max(1, _CHUNK_ELEMENTS * samples // max(1, logits.numel()))
    for start in range(0, samples, rows):
        part = slice(start, min(start + rows, samples))
        yield part, logits[..., part, :].detach().cpu().double()


class _ColumnChunks:
    """Iterable of transposed chunks of logits, computed anew at each iteration."""

    def __init__(self, logits: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self._logits = logits
        self._change = transform

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        import torch

        for part, rows in iter_float64_rows(self._logits):
            yield part, self._change(rows.mT.clone(memory_format=torch.contiguous_format))


def column_chunks(
    logits: Tensor, transform: Callable[[Tensor], Tensor]
) -> Iterable[tuple[slice, Tensor]]:
    """Return chunks of ``logits (..., N, C)`` transposed to float64 columns ``(..., C, n)``, with their row slices.

    A softmax of few classes takes a tenth of the time over the first dimension. The result can be iterated repeatedly:
    up to 64 MiB are cached, larger results are computed again.

    Args:
        logits: ``(..., N, C)``.
        transform: Maps an array ``(..., C, n)`` to one of the same shape; may work in place.
    """
    columns = _ColumnChunks(logits, transform)
    return list(columns) if logits.numel() <= _MAX_CACHED else columns


def weight_blocks(subset_weights: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """Return subset weights ``(F, N)`` in blocks of subsets whose logits fit the cache together."""
    return subset_weights.split(max(1, _CHUNK_ELEMENTS // logits.numel()))


def sample_weights(val: Predictions) -> Tensor:
    """Return the sample weights ``(N,)``, float64 on the CPU; ones if the predictions have none."""
    from fedlas.calibrators._fit.buffers import ones

    weights = None if val.weights is None else val.tensors().weights
    return ones(val.num_samples) if weights is None else weights


def map_rows(
    logits: Tensor, function: Callable[..., Tensor], features: Tensor | None = None
) -> Tensor:
    """Apply ``function`` to the rows of ``logits`` in float64; the result has their dtype and device.

    Args:
        logits: ``(N, C)``.
        function: Maps float64 rows ``(n, C)``, and features ``(n, D)`` if given, to ``(n, C)``, row by row.
        features: ``(N, D)``, or None.
    """
    import torch

    result = torch.empty_like(logits)
    for part, rows in iter_float64_rows(logits):
        others = () if features is None else (features[part].detach().cpu().double(),)
        result[part] = function(rows, *others).to(result)
    return result


def total_nll(val: Predictions, function: Callable[[Tensor], Tensor]) -> float:
    """Return the weighted sum of ``-log softmax(function(z))[y]`` over the samples."""
    from torch.nn.functional import cross_entropy

    total = 0.0
    weights, tensors = sample_weights(val), val.tensors()
    for part, rows in iter_float64_rows(tensors.logits):
        errors = cross_entropy(function(rows), tensors.target[part], reduction="none")
        total += float(weights[part] @ errors)
    return total


def column_moments(
    rows: Tensor, weights: Tensor, function: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return weighted mean and standard deviation of each column; a deviation of 0 becomes 1.

    Args:
        rows: ``(..., N, C)``.
        weights: ``(..., N)``.
        function: Maps float64 rows ``(..., n, C)`` to ``(..., n, M)``; None: the identity.

    Returns:
        Two float64 tensors ``(..., M)``.
    """
    import torch

    total = weights.sum(dim=-1, keepdim=True)

    def average(change: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        for part, each in iter_float64_rows(rows):
            changed = change(each if function is None else function(each))
            parts.append((weights[..., None, part] @ changed).squeeze(-2))
        return torch.stack(parts).sum(dim=0) / total

    mean = average(lambda each: each)
    deviation = average(lambda each: (each - mean.unsqueeze(-2)).square()).sqrt()
    # The deviation of a constant column is rounding, and must not be divided by.
    return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)


def probability_floor(samples: float, classes: int) -> float:
    """Return the floor of a probability that is estimated as a share of samples, ``1 / (C (N + 1))``.

    Any nonzero share is at least ``1 / N``, so the floor only replaces zeros. It is the share that one further sample,
    spread over all classes, would add.
    """
    return 1 / (classes * (samples + 1))


ArrayKind = Literal["logits", "probs"]

_ROUNDING = 1e-5
"""Tolerance of the sum of probabilities, for logits that are log-probabilities."""
_MAX_ZERO_STAND_IN = 2e-7
"""A lowest probability below this stands for 0 if it occurs more than once."""


def to_predictions(val: object, target: Tensor | None = None) -> Predictions:
    """Return the argument of ``fit`` or ``transform`` as predictions; a ``TopLabel`` has classes wrong and right."""
    import torch

    if isinstance(val, TopLabel):
        both = torch.stack([1 - val.tensors().confidence, val.tensors().confidence], dim=1)
        logits = both.clamp(min=zero_log_prob(both.dtype).exp()).log()
        names = (*SAMPLE_VALUES, "covariates")
        shared: dict[str, Any] = {name: getattr(val, name) for name in names}
        return Predictions(logits, val.tensors().correct.long(), **shared)
    if target is None or isinstance(val, Predictions):
        return require_predictions(val)
    return (
        Predictions.from_probs(val, target)
        if array_kind(val) == "probs"
        else Predictions(val, target)
    )


def array_kind(val: object) -> ArrayKind | None:
    """Return "probs" if an array holds probabilities, else "logits"; None if it is not an array."""
    if not is_tensor(val) and not isinstance(val, np.ndarray):
        return None
    scores = to_numbers("val", val)
    if scores.dtype.kind != "f" or scores.ndim not in (1, 2) or not scores.size:
        return "logits"
    if are_logits(scores, relative_precision(val)) or float(scores.max()) > 1 + SUM_TOLERANCE:
        return "logits"
    sums = scores.sum(axis=-1, dtype=np.float64)
    sums_to_1 = scores.ndim == 1 or bool((np.abs(sums - 1) < SUM_TOLERANCE).all())
    return "probs" if sums_to_1 else "logits"


def require_features(predictions: Predictions) -> Tensor:
    """Return the features of the predictions.

    Raises:
        InputError: If there are none.
    """
    features = predictions.tensors().features
    if features is None or features.numel() == 0:
        raise InputError(
            "predictions must hold features",
            "predictions without features",
            "Train with train.save_features=true, or use fedlas.predict(..., features=True).",
        )
    return features


def zero_log_prob(dtype: torch.dtype) -> Tensor:
    """Return the log-probability that stands for a probability of 0 in predictions made from probabilities."""
    import torch

    return torch.tensor(FLOOR, dtype=dtype, device="cpu").log()


def prepare_samples(
    val: Predictions, *, repeat_rows: bool, raise_zeros: bool
) -> tuple[Predictions, float | None, str | None]:
    """Return the samples prepared for a fit, the floor of log-probabilities or None, and a warning or None.

    Args:
        val: With labels.
        repeat_rows: Turn weights into repeated samples.
        raise_zeros: Raise probabilities of exactly 0.

    Raises:
        InputError: If ``repeat_rows`` and weights are not whole numbers.
    """
    val = normalize_weights(val, repeat_rows=repeat_rows)
    least_log = _find_log_floor(val) if raise_zeros else None
    if least_log is None:
        return val, None, None
    zero_labels = (
        val.tensors().logits.gather(1, val.tensors().target.unsqueeze(1))
        == val.tensors().logits.min()
    ).sum()
    text = (
        f"{int(zero_labels)} of {val.num_samples:,} labels have a probability of exactly 0, which would dominate the "
        f"fit. All probabilities are raised to at least {math.exp(least_log):.2g}."
    )
    return floor_log_probs(val, least_log), least_log, text if zero_labels else None


def floor_log_probs(predictions: Predictions, least_log: float | None) -> Predictions:
    """Return the samples with log-probabilities raised to at least ``least_log``; None: unchanged."""
    if least_log is None:
        return predictions
    return predictions.with_logits(
        predictions.tensors().logits.log_softmax(dim=1).clamp(min=least_log)
    )


def _find_log_floor(val: Predictions) -> float | None:
    """Return the floor of log-probabilities if some probabilities are exactly 0, or None."""
    if bool((val.tensors().logits > 0).any()) or val.num_classes < 2:
        return None
    # If zeros were replaced by a small number, that number occurs many times.
    min_log_prob = val.tensors().logits.min()
    total = val.num_samples if val.weights is None else float(val.weights.sum())
    # The square: higher floors hide the order of confidences that round to 1, and gave worse fits.
    log_floor = 2 * math.log(probability_floor(total, val.num_classes))
    num_ties = int((val.tensors().logits == min_log_prob).sum())
    is_normalized = bool((val.tensors().logits.logsumexp(dim=1).abs() < _ROUNDING).all())
    is_replaced = (
        abs(float(min_log_prob - zero_log_prob(val.tensors().logits.dtype).to(min_log_prob)))
        < _ROUNDING * 10
    )
    has_zeros = is_replaced or (num_ties > 1 and float(min_log_prob) < math.log(_MAX_ZERO_STAND_IN))
    return log_floor if is_normalized and has_zeros and float(min_log_prob) < log_floor else None


def scale_weights(weights: Tensor) -> Tensor:
    """Return sample weights ``(N,)`` scaled to sum to the effective sample size; whole numbers stay unchanged.

    Whole numbers are copies. Others say how often samples count, and not that all of them are as much evidence.
    """
    if bool((weights == weights.round()).all()):
        return weights
    return weights * (effective_sample_size(weights) / weights.sum())


def normalize_weights(val: Predictions, *, repeat_rows: bool = False) -> Predictions:
    """Return the samples with normalized weights, or with repeated rows; rows of weight 0 are removed.

    Raises:
        InputError: If ``repeat_rows`` and weights are not whole numbers.
    """
    import torch

    weights = val.tensors().weights
    if weights is None:
        return val
    is_whole = bool((weights == weights.round()).all())
    if repeat_rows and not is_whole:
        fix = "Pass whole numbers, or choose temperature, vector, structured or auto."
        raise InputError(
            "weights must be whole numbers for this calibrator", "fractional weights", fix
        )
    is_used = weights > 0
    counts = scale_weights(weights)[is_used]
    rows = is_used.nonzero().squeeze(1)
    if repeat_rows:
        rows = rows.repeat_interleave(counts.long())
        counts = torch.ones(0)
    drop_weights = repeat_rows or bool((counts == 1).all())
    return val.rows(rows)._replace_fields(weights=None if drop_weights else counts)
