"""Samples as a fit takes them: predictions, weights that count samples, and no probability of exactly 0."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError
from fedlas.calibrators._fit.one_vs_rest import smallest_probability
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.predictions import check_predictions
from fedlas.predictions.probabilities import FLOOR, SUM_TOLERANCE

ArrayOf = Literal["logits", "probs"]

_ROUNDING = 1e-5
"""Rows whose probabilities sum to 1 within this may be logarithms of probabilities."""
_ZERO = 2e-7
"""A probability below this that occurs more than once, and is the lowest, stands for 0."""


def as_predictions(val: Any, target: Tensor | None = None) -> Predictions:
    """Convert the argument of ``fit`` or ``transform`` to predictions; a top label has the classes wrong and right."""
    if isinstance(val, TopLabel):
        both = torch.stack([1 - val.confidence, val.confidence], dim=1)
        logits = both.clamp(min=least_log(both.dtype).exp()).log()
        shared = {"features": val.features, "weights": val.weights, "clusters": val.clusters}
        return Predictions(logits, val.correct.long(), **shared)
    if target is None or isinstance(val, Predictions):
        return check_predictions(val)
    return (
        Predictions.from_probs(val, target)
        if array_kind(val) == "probs"
        else Predictions(val, target)
    )


def array_kind(val: Any) -> ArrayOf | None:
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
    counts = weights[used] if whole else weights[used] / weights[used].mean()
    rows = used.nonzero().squeeze(1)
    if repeat:
        rows = rows.repeat_interleave(counts.long())
        counts = torch.ones(0)
    plain = repeat or bool((counts == 1).all())
    return val.rows(rows)._replaced(weights=None if plain else counts)
