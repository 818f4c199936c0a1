"""Fields with one value per sample (features, weights, clusters, time), and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import LARGEST, InputError, check_finite, describe, to_array
from fedlas._core.types import FloatArray, IntArray
from fedlas.predictions.arguments import are_whole, as_read_only, holds_text, to_numbers


def check_sample_values(values: dict[str, Any], num_samples: int) -> None:
    """Replace the :data:`SAMPLE_VALUES` in ``values`` by validated read-only arrays, in place.

    Args:
        values: What was passed, by name; it is changed.
        num_samples: ``N``.

    Raises:
        InputError: If there is not a row or a value for each sample; or as :class:`~fedlas.Predictions`.
    """
    for name, check in SAMPLE_VALUES.items():
        if values.get(name) is not None:
            values[name] = as_read_only(check(values[name], num_samples))


def _check_features(features: object, num_samples: int) -> NDArray[Any]:
    """Return ``features (N, D)`` as an array."""
    array = to_numbers("features", features)
    fits = array.ndim == 2 and len(array) == num_samples and array.shape[1]
    if not fits or array.dtype.kind == "c":
        raise InputError(
            f"features must have shape ({num_samples}, D)",
            describe(features),
            "Pass one row per sample.",
        )
    check_finite("features", array)
    return array


def _check_weights(weights: object, num_samples: int) -> FloatArray:
    """Return ``weights (N,)`` as float64; values below ``1 / LARGEST`` become 0."""
    numbers = to_numbers("weights", weights)
    if numbers.shape != (num_samples,) or numbers.dtype.kind == "c":
        raise InputError(
            f"weights must have shape ({num_samples},)",
            describe(weights),
            "Pass one weight per sample.",
        )
    values = numbers.astype(np.float64, copy=False)
    low = float(values.min())
    high = float(values.max())
    if not (low >= 0 and high <= LARGEST):  # so worded that NaN fails
        raise InputError(
            f"weights must be in [0, {LARGEST:g}]",
            f"values from {low:.6g} to {high:.6g}",
            "Leave out samples of unknown weight; divide large weights by a constant.",
        )
    # Squares of smaller ones underflow in the sums of an effective sample size.
    values = np.where(values >= 1 / LARGEST, values, 0.0)
    if not bool((values > 0).any()):
        raise InputError(
            f"at least one weight must be {1 / LARGEST:g} or more",
            f"at most {high:g}",
            "Rescale the weights: only their ratios matter.",
        )
    return values


def cluster_codes(clusters: object, num_samples: int) -> IntArray:
    """Return cluster ids ``(N,)`` as int64; names become codes in sorted order.

    Raises:
        InputError: If there is not a whole number or a name for each sample.
    """
    fix = "Pass one integer or name per sample, such as its image, patient or user."
    if holds_text("clusters", clusters):
        names = to_array("clusters", clusters, fix)
        clusters = _factorize_names(names) if names.ndim == 1 else clusters
    codes = to_numbers("clusters", clusters, fix)
    if codes.shape != (num_samples,) or not are_whole(codes):
        raise InputError(
            f"clusters must be whole numbers or names of shape ({num_samples},)",
            describe(clusters),
            fix,
        )
    return codes.astype(np.int64, copy=False)


def _factorize_names(names: np.ndarray) -> np.ndarray:
    """Return an integer code per name, in sorted order."""
    missing = [row for row, name in enumerate(names.tolist()) if name is None or name != name]
    if missing:
        raise InputError(
            "every sample must have a cluster",
            f"no cluster in row {missing[0]}",
            "Fill it in; give an independent sample a cluster of its own.",
        )
    return np.unique(names.astype(str), return_inverse=True)[1]


def _time_ranks(time: object, num_samples: int) -> IntArray:
    """Return the rank of each time ``(N,)``, from 0; text is read as numbers or dates."""
    values = to_array("time", time)
    if values.dtype.kind in "OUS" and values.ndim == 1:
        from fedlas.predictions.times import parse_times

        times = parse_times(values.tolist())
        values = values if times is None else times
    is_order = values.dtype.kind in "fiubM" and values.shape == (num_samples,)
    if not is_order or bool(np.asarray(values != values).any()):
        raise InputError(
            f"must be numbers or dates of shape ({num_samples},), none missing",
            describe(time),
            "Write all as 2026-05-31, or all with a time and time zone; remove samples without a time.",
            argument="time",
        )
    ranks: IntArray = np.unique(values, return_inverse=True)[1].astype(np.int64, copy=False)
    return ranks


SAMPLE_VALUES: Mapping[str, Callable[[Any, int], NDArray[Any]]] = {
    "features": _check_features,
    "weights": _check_weights,
    "clusters": cluster_codes,
    "time": _time_ranks,
}
"""Check of each field that has one value per sample, by name of the field."""
