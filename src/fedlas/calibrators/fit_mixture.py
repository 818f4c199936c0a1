"""Fitting a mixture of calibrators: members on all samples, mixture weights on out-of-fold predictions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas.calibrators._fit.absent_share import AbsentShare, fit_absent_share
from fedlas.calibrators._fit.buffers import zeros
from fedlas.calibrators._fit.custom_calibrators import fit_checked_map
from fedlas.calibrators._fit.design_effect import design_effect
from fedlas.calibrators._fit.fit_warnings import attach_warnings, format_classes, warning_if
from fedlas.calibrators._fit.folds import (
    OutOfFold,
    effective_count,
    make_folds,
    validation_sample_ids,
)
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.calibrators._fit.side_maps import SideInformation
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.affine import VectorScaling
from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.bcts import BiasCorrectedTemperature
from fedlas.calibrators.confusion import ConfusionCalibration
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.mixture import (
    FEATURES,
    CalibratedMixture,
    CrossFit,
    Share,
)
from fedlas.calibrators.mixture_features import (
    fit_regressions,
    out_of_fold_predictions,
    regression_plan,
    weigh_regressions,
)
from fedlas.calibrators.mixture_weights import (
    MANY_CLASSES,
    MANY_SAMPLES,
    Prior,
    fit_logit_share,
    identity_map,
)
from fedlas.calibrators.pooled_spline import PooledSplineCalibration
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import TemperatureScaling
from fedlas.resample.clusters import is_clustered, merge_overlapping_groups
from fedlas.resample.folds import canonical_order, systematic_sample

if TYPE_CHECKING:
    from fedlas.calibrators._fit.side_maps import SideInformation
    from fedlas.predictions import Predictions

RAW = "as predicted"
_MAX_FLEXIBLE_LOGITS = 2**19
"""Most logits (N x C) that a member with a curve or a matrix row per class is fitted on: about a second per member."""
_MIN_ROWS_PER_CLASS = 10
"""Fewest rows per class for these members."""
_MAX_HELD_OUT_LOGITS = 2**22
"""Most held-out logits over all folds."""
_MAX_MATRIX_CLASSES = 32
_NORMAL_95 = 1.645
"""Standard errors of a one-sided 95 % bound."""
_SAMPLES_PER_ABSENT = 100
"""Absent classes get one pseudo-sample each, together at most one per this many samples."""

Members = dict[str, tuple[str, Calibrator]]
"""Registry name and calibrator of each member, by the member's name."""


def fit_calibrated_mixture(
    val: Predictions,
    custom_members: Members | None,
    num_folds: int,
    *,
    keep_class: bool,
    left_out: list[OutOfFold] | None = None,
) -> CalibratedMixture:
    """Fit a mixture of calibrators to ``val``; with regressions on features, if there are some and they gain.

    Args:
        val: With labels.
        custom_members: Members in place of the default ones.
        num_folds: Number of folds.
        keep_class: See :class:`CalibratedMixture`.
        left_out: A list that out-of-fold predictions of the mixture are added to, one entry per fold.
    """
    split, val = _make_cross_fit(val, num_folds)
    members, dropped = _default_members(val) if custom_members is None else (custom_members, ())

    # Fit each member to all samples, expensive members to a subsample.
    maps: dict[str, nn.Module] = {RAW: nn.Identity()}
    fitted: dict[str, Calibrator | None] = {RAW: None}
    failed = []
    for name, (_, member) in members.items():
        try:
            _check_weights(member, val)
            maps[name] = fit_checked_map(
                member, split.member_samples(name in _EXPENSIVE), member.fit_map
            )
            fitted[name] = member
        except (InputError, RuntimeError) as error:
            failed.append(f"{name} ({str(error).splitlines()[0]})")
    doubt = warning_if(failed, f"members left out because their fit failed: {', '.join(failed)}.")

    # Fit weights and the last map to out-of-fold predictions.
    weights = zeros(len(fitted))
    weights[0] = 1.0
    share = Share(weights, identity_map(val.num_classes))
    side = None
    side_share = None
    note = None
    group_note = ""
    log_probs = None
    if split.held_out:
        prior = Prior([*fitted].index("temperature" if "temperature" in fitted else RAW))
        log_probs = split.log_probs(fitted, maps, _EXPENSIVE)
        share = fit_logit_share(log_probs, prior, split)
        regressions = None
        if (features := val.tensors().features) is not None:
            regressions = fit_regressions(split, features, log_probs, prior)
            side, side_share, note = weigh_regressions(split, regressions, log_probs, share)
            group_note = regressions.note if side is not None and regressions is not None else ""
        if left_out is not None:
            left_out += out_of_fold_predictions(split, log_probs, prior, regressions)
    absent, absent_note = _absent_share_with_note(split, log_probs, share)
    if left_out and absent is not None:
        logits = val.tensors().logits.double()
        left_out[:] = [
            replace(each, log_probs=absent(logits[each.rows], each.log_probs)) for each in left_out
        ]
    used = share.weights > 0
    if side_share is not None:
        used |= side_share.weights[: len(fitted)] > 0
    names = [name for name, each in zip(fitted, used.tolist(), strict=True) if each]
    mixture = CalibratedMixture(
        {name: None if name == RAW else members[name][0] for name in names},
        [maps[name] for name in names],
        share.select(used),
        side,
        side_share and side_share.select(used),
        absent,
        keep_class=keep_class,
        dropped=(*dropped, *failed),
        notes=(
            *absent_note,
            *_subsampling_notes(split, [name for name in names if name in _EXPENSIVE], side),
            *filter(None, [group_note]),
        ),
    )
    return attach_warnings(mixture, doubt, note)


def _absent_share_with_note(
    split: CrossFit, log_probs: Tensor | None, share: Share
) -> tuple[AbsentShare | None, tuple[str, ...]]:
    """Return the map for classes without a sample and a note about it; None and no note if every class has one.

    Args:
        split: The samples.
        log_probs: Out-of-fold log-probabilities of the members ``(K, n, C)``; None: nothing is held out.
        share: The mixture weights of the members.
    """
    val = split.val
    weights = sample_weights(val)
    present = torch.bincount(val.tensors().target, weights, minlength=val.num_classes) > 0
    if bool(present.all()):
        return None, ()
    temperature = nll_temperature(val).value
    # Rule of three: a class that never occurred in N samples has a share of at most 3/N, with 95 % confidence. If
    # some classes occurred once (singles), the unseen classes have a share of about singles/N in total, with variance
    # (singles + 2 doubles)/N^2 (Good and Turing); the bound is one-sided with 95 % confidence. If many classes are
    # absent: one sample for each, up to a hundredth of all samples. A lower bound costs too much when such a class
    # does occur, a higher one when it never does.
    class_counts = torch.bincount(val.tensors().target[split.first_rows])
    singles, doubles = int((class_counts == 1).sum()), int((class_counts == 2).sum())
    unseen = math.ceil(singles + _NORMAL_95 * math.sqrt(singles + 2 * doubles))
    hundredth = round(float(weights.sum())) // _SAMPLES_PER_ABSENT
    max_count = max(3, unseen, min(int((~present).sum()), hundredth))
    rows = split.rows if log_probs is not None else split.order
    logits = val.tensors().logits[rows].double()
    mixture_log_probs = (
        logits.log_softmax(1) if log_probs is None else share(log_probs.transpose(0, 1))
    )
    total = float(weights.sum())
    absent, mean = fit_absent_share(
        logits, mixture_log_probs, present, weights[rows], temperature, max_count / total
    )
    classes = format_classes((~present).nonzero().squeeze(1).tolist(), val.classes)
    note = (
        f"{classes} without a validation sample: auto assigns {100 * mean:.2g} % of the probability, at most "
        f"{max_count}/N. If such a class does occur, add samples of it."
    )
    return absent, (note,)


_EXPENSIVE = frozenset({"isotonic", "spline", "pooled spline", "matrix"})


def _subsampling_notes(
    split: CrossFit, expensive: list[str], side: SideInformation | None
) -> tuple[str, ...]:
    """Return a note on each component that was fitted on a random sample of the rows."""
    rows = {" and ".join(expensive): int(split.thinned.sum()) if expensive else 0}
    if side is not None and (features := split.val.tensors().features) is not None:
        rows[FEATURES] = regression_plan(split, features).rows
    total = split.val.num_samples
    return tuple(
        f"{name} of auto: fitted on a random sample of {count:,} of {total:,} rows."
        for name, count in rows.items()
        if 0 < count < total
    )


def _default_members(val: Predictions) -> tuple[Members, tuple[str, ...]]:
    """Return the default members by name, and the names of those dropped because they are too expensive."""
    members: Members = {
        "temperature": ("temperature", TemperatureScaling()),
        "vector": ("structured", StructuredScaling("vector")),
        "matrix": ("structured", StructuredScaling("matrix")),
        "isotonic": ("isotonic", IsotonicCalibration()),
        "spline": ("spline", SplineCalibration()),
    }
    if val.num_classes >= MANY_CLASSES:
        # The mixture weights decide, so no penalty is searched for.
        members |= {
            "vector": ("vector", VectorScaling(freedom=1.0)),
            "offsets": ("bcts", BiasCorrectedTemperature(prior=1.0)),
            "confusion": ("confusion", ConfusionCalibration(1.0, "none")),
            "held confusion": ("confusion", ConfusionCalibration(10.0, "none")),
            "pooled spline": ("pooled-spline", PooledSplineCalibration()),
        }
    max_rows = _MAX_FLEXIBLE_LOGITS // val.num_classes
    dropped: tuple[str, ...] = ()
    if max_rows < min(val.num_samples, _MIN_ROWS_PER_CLASS * val.num_classes):
        dropped = tuple(name for name in members if name in _EXPENSIVE)
    elif val.num_classes > _MAX_MATRIX_CLASSES:
        dropped = ("matrix",)
    return {name: member for name, member in members.items() if name not in dropped}, dropped


def _check_weights(member: Calibrator, val: Predictions) -> None:
    """Raise InputError if the member does not support weights and the weights are unequal."""
    weights = sample_weights(val)
    if not member.takes_weights and bool((weights != weights[0]).any()):
        fix = "Choose members that support sample weights."
        raise InputError("members must support sample weights", "unequal weights", fix)


def _make_cross_fit(val: Predictions, num_folds: int) -> tuple[CrossFit, Predictions]:
    """Return the folds for cross-fitting, and the samples with weights that sum to the effective sample count."""
    sample_ids = validation_sample_ids(val)
    if is_clustered(val.clusters):
        # Clusters that only group duplicates of a sample add nothing to the sample ids.
        cluster_codes = merge_overlapping_groups(sample_ids, val.clusters)
        val = val if cluster_codes.max() < sample_ids.max() else val._replace_fields(clusters=None)
    folds = make_folds(
        val, num_folds, weights=val.tensors().weights, features=val.tensors().features
    )

    # Scale the weights to the effective sample count: duplicates, weights and clusters add counts, not information.
    weights = sample_weights(val)
    samples = effective_count(sample_ids, weights)
    if is_clustered(val.clusters):
        samples /= design_effect(val, torch.from_numpy(sample_ids))
    weights = weights * (samples / weights.sum())
    if val.weights is not None or bool((weights != 1).any()):
        val = val._replace_fields(weights=None if bool((weights == 1).all()) else weights)

    # Hold out all folds unless there are too many logits: with one fold, the weights depend on the rows in it.
    order = canonical_order(val.tensors().logits, val.tensors().target, val.tensors().features)
    sizes = torch.bincount(folds.number[folds.held_out_mask]).cumsum(0) * val.num_classes
    count = min(folds.count, int((sizes < _MAX_HELD_OUT_LOGITS).sum()) + 1)
    if val.num_classes == 1:
        count = 0
    max_rows = max(MANY_SAMPLES, _MAX_HELD_OUT_LOGITS // val.num_classes) // max(1, count)
    held_out = [
        systematic_sample(order[folds.test(fold)[order]], max_rows).sort().values
        for fold in range(count)
    ]
    thinned = torch.zeros(val.num_samples, dtype=torch.bool, device="cpu")
    thinned[systematic_sample(order, _MAX_FLEXIBLE_LOGITS // val.num_classes)] = True
    first_rows = torch.from_numpy(np.unique(sample_ids, return_index=True)[1])
    return CrossFit(val, folds, tuple(held_out), thinned, order, first_rows), val
