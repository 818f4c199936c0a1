"""Fits a mixture of calibrators: members on all samples, their weights on samples that are held out in turn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fedlas._core.check import InputError
from fedlas.calibrators._fit.absent_share import AbsentShare, fitted_absent_share
from fedlas.calibrators._fit.doubts import some, when, with_doubts
from fedlas.calibrators._fit.folds import (
    canonical_order,
    evenly,
    sample_numbers,
    stratified_folds,
    worth,
)
from fedlas.calibrators._fit.minimize import mixture_weights
from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators._fit.side_maps import SideInformation
from fedlas.calibrators._fit.softmax_regression import AffineMap, bias_corrected_temperature
from fedlas.calibrators._fit.state import doubles, ones, zeros
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators._fit.top_map import TopLabelMap, fitted_top_map
from fedlas.calibrators.affine import VectorScaling
from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.bcts import BiasCorrectedTemperature
from fedlas.calibrators.confusion import ConfusionCalibration
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.mixture import FEATURES, CalibratedMixture, CrossFit, Share, label_log_probs
from fedlas.calibrators.side_information import Plan, Samples, affordable, fit_side_information
from fedlas.calibrators.spline import SplineCalibration
from fedlas.calibrators.structured import StructuredScaling
from fedlas.calibrators.temperature import TemperatureScaling
from fedlas.predictions import Predictions
from fedlas.predictions.probabilities import log_softmax
from fedlas.resample.clusters import mean_and_error, several

RAW = "as predicted"
PRIOR = {RAW: 1.0, "temperature": 3.0}
"""Samples that members count in addition: those that hardly over-fit. Two each left far too sure predictions so."""
MANY_CLASSES = 20
"""With at least so many classes other members join, and a map of the top label follows."""
_PRIOR_OF_MANY = 5.0
"""Samples that raw predictions and temperature scaling count in addition there: more members have parameters."""
_PRIOR_BESIDE_FEATURES = 1.0
"""Samples that these count in addition where there are regressions on features."""
_STEPS = 500
"""Most steps from equal weights. They often end before the maximum, where few other samples gain no more."""
_MANY = 2000
"""With more samples held out the weights are those at the maximum."""
_SMALLEST = 1e-3
"""Members of a smaller weight are left out."""
_LEAST_OF_FEATURES = 0.01
"""With a smaller weight of all regressions on features, these are left out."""
_NEVER = 1e-9
"""Least probability of a held-out label, so that one member cannot lose everything on one sample."""
_FLEXIBLE = 2**19
"""Most logits (N x C) of the rows that members with a curve or a row of numbers for each class are fitted on: about a
second each."""
_FEWEST_ROWS = 10
"""Rows a class that these members must have."""
_MOST_HELD_OUT = 2**22
"""Folds are held out until they have this many logits together; no more are predicted."""
_MATRIX_CLASSES = 32
_FEWEST_TO_SHARPEN = 200
"""Held-out samples from which on the last map is fitted; with fewer it does more harm than good."""
_FOLDS_OF_TOP = 5
"""Folds in which the map of the top label is judged, where one fold alone is held out."""
_FEW = 100
"""With fewer held-out samples, or with clusters, features count as far as their gain exceeds its standard error."""
_TOO_GOOD = 0.5
"""Share of the held-out NLL that features may leave without a warning."""

Members = dict[str, tuple[str, Calibrator]]
"""Registry name and calibrator of members, by name."""


def fitted_mixture(
    val: Predictions, own: Members | None, num_folds: int, *, keep_class: bool
) -> CalibratedMixture:
    """Return the mixture of ``val``; with side information if it has features and they carry weight.

    Args:
        val: With labels.
        own: Members in place of the usual ones.
        num_folds: Folds.
        keep_class: See :class:`CalibratedMixture`.
    """
    split, val = _split(val, num_folds)
    members, dropped = _usual(val) if own is None else (own, ())

    # Every member on all samples, dear ones on as many as they may have.
    maps: dict[str, nn.Module] = {RAW: nn.Identity()}
    fitted: dict[str, Calibrator | None] = {RAW: None}
    failed = []
    for name, (_, member) in members.items():
        try:
            _check(member, val)
            maps[name] = member.fit_map(split.whole(name in _DEAR))
            fitted[name] = member
        except (InputError, RuntimeError) as error:
            failed.append(f"{name} ({str(error).splitlines()[0]})")
    doubt = when(failed, f"without {', '.join(failed)}, whose fit failed.")

    # Weights and the last map from samples left out; those of little weight go.
    weights = zeros(len(fitted))
    weights[0] = 1.0
    share = Share(weights, _identity(val.num_classes))
    side = None
    side_share = None
    note = None
    if split.held_out:
        prior = [_prior(name, val.num_classes) for name in fitted]
        log_probs = split.log_probs(fitted, maps, _DEAR)
        share = _share(log_probs, prior, split)
        if several(val.clusters) and "temperature" in fitted:
            share = _drawn_back(share, log_probs, [*fitted].index("temperature"), split)
        if val.features is not None:
            side, side_share, note = _with_features(split, val.features, log_probs, prior, share)
    absent, absent_note = _absent(val)
    used = share.weights > 0
    if side_share is not None:
        used |= side_share.weights[: len(fitted)] > 0
    names = [name for name, each in zip(fitted, used.tolist(), strict=True) if each]
    mixture = CalibratedMixture(
        {name: None if name == RAW else members[name][0] for name in names},
        [maps[name] for name in names],
        share.only(used),
        side,
        side_share and side_share.only(used),
        absent,
        keep_class=keep_class,
        dropped=(*dropped, *failed),
        notes=(*absent_note, *_notes(split, [name for name in names if name in _DEAR], side)),
    )
    return with_doubts(mixture, doubt, note)


def _prior(name: str, classes: int) -> float:
    """Return how many samples a member counts in addition."""
    prior = PRIOR.get(name, 0.0)
    return _PRIOR_OF_MANY if prior and classes >= MANY_CLASSES else prior


def _absent(val: Predictions) -> tuple[AbsentShare | None, tuple[str, ...]]:
    """Return the share of classes without a sample, and a note of it; None if every class has one."""
    weights = weights_of(val)
    present = torch.bincount(val.target.cpu(), weights, minlength=val.num_classes) > 0
    if bool(present.all()):
        return None, ()
    temperature = nll_temperature(val).value
    absent, share = fitted_absent_share(val.logits.cpu().double(), present, weights, temperature)
    classes = some((~present).nonzero().squeeze(1).tolist())
    note = (
        f"{classes} without a validation sample: auto leaves {100 * share:.2g} % of the probability "
        f"there, at most 3/N by the rule of three. Where such a class does occur, use samples of it."
    )
    return absent, (note,)


_DEAR = frozenset({"isotonic", "spline", "matrix"})


def _plan(split: CrossFit, features: Tensor) -> Plan:
    val = split.val
    parts = len(split.held_out) + 1
    return affordable(val.num_samples, val.num_classes, features.shape[1], parts)


def _notes(split: CrossFit, dear: list[str], side: SideInformation | None) -> tuple[str, ...]:
    """Return what was fitted on a sample of the rows, as sentences."""
    rows = {" and ".join(dear): int(split.thinned.sum()) if dear else 0}
    if side is not None and split.val.features is not None:
        rows[FEATURES] = _plan(split, split.val.features).rows
    total = split.val.num_samples
    return tuple(
        f"{name} of auto: fitted on a random sample of {count:,} of {total:,} rows."
        for name, count in rows.items()
        if 0 < count < total
    )


def _usual(val: Predictions) -> tuple[Members, tuple[str, ...]]:
    """Return members by name, and the names of those that cost too much."""
    members: Members = {
        "temperature": ("temperature", TemperatureScaling()),
        "vector": ("structured", StructuredScaling("vector")),
        "matrix": ("structured", StructuredScaling("matrix")),
        "isotonic": ("isotonic", IsotonicCalibration()),
        "spline": ("spline", SplineCalibration()),
    }
    if val.num_classes >= MANY_CLASSES:
        # The mixture weighs them, so no penalty is searched for.
        members |= {
            "vector": ("vector", VectorScaling(freedom=1.0)),
            "offsets": ("bcts", BiasCorrectedTemperature(prior=1.0)),
            "confusion": ("confusion", ConfusionCalibration(1.0, "none")),
            "held confusion": ("confusion", ConfusionCalibration(10.0, "none")),
        }
    most = _FLEXIBLE // val.num_classes
    dropped: tuple[str, ...] = ()
    if most < min(val.num_samples, _FEWEST_ROWS * val.num_classes):
        dropped = ("isotonic", "spline", "matrix")
    elif val.num_classes > _MATRIX_CLASSES:
        dropped = ("matrix",)
    return {name: member for name, member in members.items() if name not in dropped}, dropped


def _check(member: Calibrator, val: Predictions) -> None:
    weights = weights_of(val)
    if not member.takes_weights and bool((weights != weights[0]).any()):
        fix = "Choose members that take weights."
        raise InputError("members must take weights", "weights of several sizes", fix)


def _split(val: Predictions, num_folds: int) -> tuple[CrossFit, Predictions]:
    """Return what is held out, and the samples with weights that sum to the number of samples that they are worth."""
    folds = stratified_folds(
        val.logits, val.target, num_folds, val.weights, val.features, val.clusters
    )

    # Weights and copies say how often a sample counts, not how much is known; and samples of a cluster are alike.
    number = sample_numbers(val.logits, val.target, val.features)
    weights = weights_of(val)
    samples = worth(number, weights)
    if several(val.clusters):
        samples /= _design_effect(val, val.clusters)
    weights = weights * (samples / weights.sum())
    if val.weights is not None or bool((weights != 1).any()):
        val = val._replaced(weights=None if bool((weights == 1).all()) else weights)

    # Every fold is held out unless logits are many: of one alone the weights depend on which rows are in it.
    order = canonical_order(val.logits, val.target, val.features)
    sizes = torch.bincount(folds).cumsum(0) * val.num_classes
    count = min(len(sizes), int((sizes < _MOST_HELD_OUT).sum()) + 1)
    if len(sizes) == 1 or val.num_classes == 1:
        count = 0
    most = max(_MANY, _MOST_HELD_OUT // val.num_classes) // max(1, count)
    held_out = [evenly(order[folds[order] == fold], most).sort().values for fold in range(count)]
    thinned = torch.zeros(val.num_samples, dtype=torch.bool, device="cpu")
    thinned[evenly(order, _FLEXIBLE // val.num_classes)] = True
    copies = torch.from_numpy(np.unique(number, return_index=True)[1])
    return CrossFit(val, folds, tuple(held_out), thinned, order, copies), val


def _design_effect(val: Predictions, clusters: Tensor) -> float:
    """Return by how much more sums of residuals over clusters vary than those of independent samples, at least 1.

    Kish's design effect, of what the labels leave of the probabilities after temperature scaling.
    """
    temperature = nll_temperature(val).value
    residuals = torch.zeros(val.num_samples, val.num_classes, dtype=torch.float64)
    for part, rows in double_rows(val.logits):
        residuals[part] = -(rows / temperature).softmax(dim=1)
    residuals[torch.arange(val.num_samples), val.target.cpu()] += 1
    residuals *= weights_of(val).unsqueeze(1)
    number = torch.unique(clusters, return_inverse=True)[1]
    count = int(number.max()) + 1
    sums = residuals.new_zeros(count, val.num_classes).index_add_(0, number, residuals)
    within = float(residuals.square().sum())
    return max(1.0, float(sums.square().sum()) / within) if within else 1.0


def _share(log_probs: Tensor, prior: list[float], split: CrossFit) -> Share:
    """Return weights and last map, from the members' log-probabilities ``(K, n, C)`` and what each counts more."""
    target = split.val.target.cpu()[split.rows]
    weights = weights_of(split.val)[split.rows]
    counts = doubles(prior)
    parts = label_log_probs(log_probs, target).exp().clamp(min=_NEVER)
    few = float(weights.sum()) <= _MANY
    start = torch.full_like(counts, 1 / len(counts)) if few else None
    shares, _ = mixture_weights(parts, weights, counts, start=start, most_steps=_STEPS)

    # The map of the mixture, where samples are enough.
    mixture = (log_probs + shares.log().view(-1, 1, 1)).logsumexp(dim=0)
    last = _identity(log_probs.shape[2])
    if float(weights.sum()) >= _FEWEST_TO_SHARPEN:
        scale = 1 / nll_temperature(Predictions(mixture, target, weights=weights)).value
        prior_c = float(log_probs.shape[2])
        last = bias_corrected_temperature(
            mixture, target, weights, scale=scale, width=scale, prior=prior_c
        )
    top = None
    if log_probs.shape[2] >= MANY_CLASSES and float(weights.sum()) >= _FEWEST_TO_SHARPEN:
        top = _top_map(log_softmax(last(mixture)), split)
    shares = torch.where(shares < _SMALLEST, 0.0, shares)
    return Share(shares / shares.sum(), last, top)


def _top_map(log_probs: Tensor, split: CrossFit) -> TopLabelMap | None:
    """Return the map of the top label of held-out log-probabilities ``(n, C)``; None if folds show no gain."""
    folds = split.folds[split.rows]
    clusters = None if split.val.clusters is None else split.val.clusters.cpu()[split.rows]
    if len(split.held_out) == 1:
        rank = torch.empty_like(split.order)
        rank[split.order] = torch.arange(len(rank), device="cpu")
        number = rank[split.rows].argsort().argsort()
        if clusters is not None and several(clusters):
            number = torch.unique(clusters, return_inverse=True)[1]
        folds = number % _FOLDS_OF_TOP
    samples = (split.val.target.cpu()[split.rows], weights_of(split.val)[split.rows])
    return fitted_top_map(log_probs, *samples, folds, clusters)


def _drawn_back(share: Share, log_probs: Tensor, base: int, split: CrossFit) -> Share:
    """Return a mixture between these weights and the member ``base``, the nearer the less sure its gain is.

    Few clusters say little, and many samples in each hide it: the gain counts as far as it exceeds its standard error
    over clusters.
    """
    target = split.val.target.cpu()[split.rows].unsqueeze(1)
    before = log_probs[base].gather(1, target).squeeze(1)
    gain = _of_labels(share, log_probs, split) - before
    trust = _trust(gain, split)
    weights = trust * share.weights
    weights[base] += 1 - trust
    same = _identity(log_probs.shape[2])
    last = AffineMap(
        trust * share.last.weight + (1 - trust) * same.weight,
        trust * share.last.bias + (1 - trust) * same.bias,
    )
    top = share.top
    if top is not None:
        top = TopLabelMap(knots=top.knots, coefficients=trust * top.coefficients)
    return Share(weights, last, top)


def _with_features(
    split: CrossFit, features: Tensor, log_probs: Tensor, prior: list[float], alone: Share
) -> tuple[SideInformation | None, Share | None, str | None]:
    """Return the regressions on features, the weights of members and regressions, and what to warn about."""
    val = split.val
    plan = _plan(split, features)
    rows = evenly(split.order, plan.rows).sort().values
    weights = weights_of(val)[rows]
    inside = [split.folds[rows] != fold for fold in range(-1, len(split.held_out))]
    samples = Samples(
        val.logits.cpu()[rows].double(),
        features.cpu()[rows].double(),
        val.target.cpu()[rows],
        torch.stack([weights * each for each in inside]),
        evenly(split.distinct, plan.rows)
        if len(rows) == val.num_samples
        else torch.arange(len(rows), device="cpu"),
        None if val.covariates is None else torch.tensor(val.covariates.levels, device="cpu"),
    )
    fits = fit_side_information(samples, nll_temperature(val).value, plan)
    if fits is None:
        return None, None, None
    side, *parts = fits
    others = [
        part(val.logits.cpu()[rows].double(), features.cpu()[rows].double())[0].transpose(0, 1)
        for part, rows in zip(parts, split.held_out, strict=True)
    ]
    everything = torch.cat([log_probs, torch.cat(others, dim=1)])
    count = len(prior)
    prior = [each + _PRIOR_BESIDE_FEATURES * (each > 0) for each in prior]
    share = _share(everything, [*prior, *[0.0] * sum(side.counts)], split)
    chosen = share.weights[count:] > 0

    # What features gain on samples held out.
    weights = weights_of(val)[split.rows]
    before = _of_labels(alone, log_probs, split)
    after = _of_labels(share, everything, split)
    trust = _trust(after - before, split)
    if float(share.weights[count:].sum()) < _LEAST_OF_FEATURES or trust <= 0:
        return None, None, None
    side = side.only(chosen.nonzero().squeeze(1).tolist())
    side.gate.trust = side.gate.trust * trust
    total = weights.sum()
    doubt = _too_good(-float(weights @ before / total), -float(weights @ after / total))
    return side, share.only(pad(chosen, (count, 0), value=True)), doubt


def _of_labels(share: Share, log_probs: Tensor, split: CrossFit) -> Tensor:
    """Return what a mixture gives the labels held out ``(n,)``, from log-probabilities of its parts ``(K, n, C)``."""
    target = split.val.target.cpu()[split.rows].unsqueeze(1)
    result: Tensor = share(log_probs.transpose(0, 1)).gather(1, target).squeeze(1)
    return result


def _trust(gain: Tensor, split: CrossFit) -> float:
    """Return 1, or less where few samples or clusters are held out and the gain is not many standard errors."""
    clusters = split.val.clusters
    weights = weights_of(split.val)[split.rows]
    if not several(clusters) and float(weights.sum()) >= _FEW:
        return 1.0
    mean, error = mean_and_error(gain, weights, None if clusters is None else clusters[split.rows])
    return max(0.0, 1 - (error / mean) ** 2) if mean > 0 else 0.0


LABEL_IN_FEATURES = "Check that the features do not hold the label, or what is known only after it."
"""Advice where features lower the loss too much to be true."""


def _too_good(before: float, after: float) -> str | None:
    """Return a doubt if features lower the held-out NLL by more than half."""
    return when(
        after < _TOO_GOOD * before,
        f"features lower the held-out NLL from {before:.3g} to {after:.3g}, by more than half. {LABEL_IN_FEATURES}",
    )


def _identity(classes: int) -> AffineMap:
    one = ones(classes)
    return AffineMap(one, 0 * one)
