"""Fields with one value per sample (features, weights, clusters, time), and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import LARGEST, InputError, check_finite_dense, describe, to_array
from fedlas.predictions.arguments import holds_text
from fedlas.predictions.tensors import to_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_sample_values(
    values: dict[str, Any], num_samples: int, device: torch.device | str = "cpu"
) -> None:
    """Replace the :data:`SAMPLE_VALUES` in ``values`` by validated tensors, in place.

    Args:
        values: What was passed, by name; it is changed.
        num_samples: ``N``.
        device: Device of the features ``(N, D)``; all others ``(N,)`` stay on the CPU.

    Raises:
        InputError: If there is not a row or a value for each sample; or as :class:`~fedlas.Predictions`.
    """
    for name, check in SAMPLE_VALUES.items():
        if values.get(name) is not None:
            values[name] = check(values[name], num_samples)
    if values.get("features") is not None:
        values["features"] = values["features"].to(device)


def _check_features(features: object, num_samples: int) -> Tensor:
    """Return ``features (N, D)`` as a tensor."""
    features = to_tensor("features", features)
    fits = features.ndim == 2 and len(features) == num_samples and features.shape[1]
    if not fits or features.is_complex():
        raise InputError(
            f"features must have shape ({num_samples}, D)",
            describe(features),
            "Pass one row per sample.",
        )
    check_finite_dense("features", features)
    return features


def _check_weights(weights: object, num_samples: int) -> Tensor:
    """Return ``weights (N,)`` as float64 on the CPU; values below ``1 / LARGEST`` become 0."""
    weights = to_tensor("weights", weights)
    if weights.shape != (num_samples,) or weights.is_complex():
        raise InputError(
            f"weights must have shape ({num_samples},)",
            describe(weights),
            "Pass one weight per sample.",
        )
    weights = weights.cpu().double()
    low = float(weights.min())
    high = float(weights.max())
    if not (low >= 0 and high <= LARGEST):  # so worded that NaN fails
        raise InputError(
            f"weights must be in [0, {LARGEST:g}]",
            f"values from {low:.6g} to {high:.6g}",
            "Leave out samples of unknown weight; divide large weights by a constant.",
        )
    # Squares of smaller ones underflow in the sums of an effective sample size.
    weights = weights.where(weights >= 1 / LARGEST, 0.0)
    if not bool((weights > 0).any()):
        raise InputError(
            f"at least one weight must be {1 / LARGEST:g} or more",
            f"at most {high:g}",
            "Rescale the weights: only their ratios matter.",
        )
    return weights


def cluster_codes(clusters: object, num_samples: int) -> Tensor:
    """Return cluster ids ``(N,)`` as int64 on the CPU; names become codes in sorted order.

    Raises:
        InputError: If there is not a whole number or a name for each sample.
    """
    fix = "Pass one integer or name per sample, such as its image, patient or user."
    if holds_text("clusters", clusters):
        names = to_array("clusters", clusters, fix)
        clusters = _factorize_names(names) if names.ndim == 1 else clusters
    clusters = to_tensor("clusters", clusters, fix)
    if clusters.is_floating_point() and clusters.dtype.itemsize == 1:
        clusters = clusters.float()  # 8-bit floats have no trunc
    if clusters.is_floating_point() and bool((clusters == clusters.trunc()).all()):
        clusters = clusters.long()
    whole = not clusters.is_floating_point() and not clusters.is_complex()
    if clusters.shape != (num_samples,) or not whole:
        raise InputError(
            f"clusters must be whole numbers or names of shape ({num_samples},)",
            describe(clusters),
            fix,
        )
    return clusters.cpu().long()


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


def _time_ranks(time: object, num_samples: int) -> Tensor:
    """Return the rank of each time ``(N,)``, from 0; text is read as numbers or dates."""
    import torch

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
    return torch.from_numpy(np.unique(values, return_inverse=True)[1]).long()


SAMPLE_VALUES: Mapping[str, Callable[[Any, int], Tensor]] = {
    "features": _check_features,
    "weights": _check_weights,
    "clusters": cluster_codes,
    "time": _time_ranks,
}
"""Check of each field that has one value per sample, by name of the field."""
