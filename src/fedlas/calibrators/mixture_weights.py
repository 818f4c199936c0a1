"""Fitting mixture weights, and the final maps of a mixture, to out-of-fold predictions of its members."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedlas.calibrators._fit.buffers import ones, zeros
from fedlas.calibrators._fit.minimize import fit_mixture_weights
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.calibrators._fit.softmax_regression import AffineMap, fit_bias_corrected_temperature
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators._fit.top_map import TopLabelMap, fit_top_label_map
from fedlas.calibrators.mixture import (
    CrossFit,
    Share,
    label_log_probs,
)
from fedlas.predictions import Predictions
from fedlas.predictions.tensors import log_softmax
from fedlas.resample.clusters import is_clustered, mean_and_standard_error

MANY_CLASSES = 20
"""From this many classes on, further members join and a top-label map follows."""
_MAX_STEPS = 500
"""Most steps from equal weights; with few samples, reaching the maximum gains nothing on new samples."""
MANY_SAMPLES = 2000
"""With more held-out samples, the search runs to the maximum."""
_MIN_WEIGHT = 1e-3
"""Smallest weight of a member; below it the member is left out."""
_MIN_PROB = 1e-9
"""Floor of label probabilities, so that a single sample cannot exclude a member."""
_LAST_MAP_SAMPLES = (100.0, 400.0)
"""Held-out sample counts at which the last map starts to count and at which it counts in full, linear in between. With
fewer samples it does more harm than good."""
_MIN_TOP_MAP_SAMPLES = 100
"""Fewest held-out samples for the top-label map, which cross-validation then accepts or rejects."""
_NUM_TOP_MAP_FOLDS = 5
"""Folds of the cross-validation of the top-label map, if a single fold is held out."""
_FEW_SAMPLES = 100
"""With fewer held-out samples, or with clusters, the gain of features is shrunk by its standard error."""


@dataclass(frozen=True)
class Prior:
    """Pseudo-samples that one member gets beyond the held-out ones: a member that hardly over-fits.

    Attributes:
        base: Index of the member.
        count: Its pseudo-samples. The predictions as they are get none: two would cost a model that is far too unsure
            31 % with 20 samples (``results/calibrators.md``, "One prior").
    """

    base: int
    count: float = 2.0

    def with_features(self) -> Prior:
        """Return the prior for mixtures with regressions on features: one more pseudo-sample."""
        return replace(self, count=self.count + 1.0)

    def pseudo_counts(self, num_members: int) -> Tensor:
        """Return the pseudo-samples of each member ``(K,)``."""
        counts = zeros(num_members)
        counts[self.base] = self.count
        return counts


def fit_share(log_probs: Tensor, prior: Prior, split: CrossFit) -> Share:
    """Fit mixture weights and the final map to log-probabilities ``(K, n, C)``, with the pseudo-samples of a prior."""
    target = split.val.tensors().target[split.rows]
    weights = sample_weights(split.val)[split.rows]
    labels = label_log_probs(log_probs, target)
    counts = prior.pseudo_counts(len(log_probs))
    parts = labels.exp().clamp(min=_MIN_PROB)
    samples = float(weights.sum())
    few = samples <= MANY_SAMPLES
    start = torch.full_like(counts, 1 / len(counts)) if few else None
    shares, _ = fit_mixture_weights(parts, weights, counts, start=start, most_steps=_MAX_STEPS)

    # The final map, if there are enough samples. With many classes a top-label map: offsets per class would over-fit.
    mixture = (log_probs + shares.log().view(-1, 1, 1)).logsumexp(dim=0)
    last_map = identity_map(log_probs.shape[2])
    top_map = None
    if log_probs.shape[2] >= MANY_CLASSES:
        if samples >= _MIN_TOP_MAP_SAMPLES:
            top_map = _fit_top_map(log_softmax(mixture), split)
    elif samples > _LAST_MAP_SAMPLES[0]:
        sizes = None if split.val.weights is None else weights
        scale = 1 / nll_temperature(Predictions(mixture, target, weights=sizes)).value
        ridge = float(log_probs.shape[2])
        fit = fit_bias_corrected_temperature(
            mixture, target, weights, scale=scale, width=scale, prior=ridge
        )
        none, full = _LAST_MAP_SAMPLES
        last_map = _shrink_to_identity(fit, min(1.0, (samples - none) / (full - none)))
    shares = torch.where(shares < _MIN_WEIGHT, 0.0, shares)
    return Share(shares / shares.sum(), last_map, top_map)


def _fit_top_map(log_probs: Tensor, split: CrossFit) -> TopLabelMap | None:
    """Fit the top-label map to held-out log-probabilities ``(n, C)``; None if cross-validation shows no gain."""
    if split.folds.in_time:  # cross-validation would evaluate earlier samples by later ones
        return None
    folds = split.folds.number[split.rows]
    clusters = None if split.val.clusters is None else split.val.clusters[split.rows]
    if len(split.held_out) == 1:
        rank = torch.empty_like(split.order)
        rank[split.order] = torch.arange(len(rank), device="cpu")
        number = rank[split.rows].argsort().argsort()
        if is_clustered(clusters):
            number = torch.from_numpy(np.unique(clusters, return_inverse=True)[1])
        folds = number % _NUM_TOP_MAP_FOLDS
    samples = (split.val.tensors().target[split.rows], sample_weights(split.val)[split.rows])
    return fit_top_label_map(log_probs, *samples, folds, clusters)


def _shrink_to_base(share: Share, log_probs: Tensor, base_index: int, split: CrossFit) -> Share:
    """Return the mixture shrunk toward member ``base_index``, the more the larger the standard error of its gain.

    The standard error is over clusters: few clusters are little evidence, however many samples they hold.
    """
    target = split.val.tensors().target[split.rows].unsqueeze(1)
    before = log_probs[base_index].gather(1, target).squeeze(1)
    gain = mixture_label_log_probs(share, log_probs, split) - before
    trust = gain_trust(gain, split)
    weights = trust * share.weights
    weights[base_index] += 1 - trust
    last = _shrink_to_identity(share.last, trust)
    top = share.top
    if top is not None:
        top = TopLabelMap(knots=top.knots, coefficients=trust * top.coefficients)
    return Share(weights, last, top)


def _shrink_to_identity(row_map: AffineMap, trust: float) -> AffineMap:
    """Return the interpolation between the identity map (``trust`` 0) and ``row_map`` (``trust`` 1)."""
    same = identity_map(len(row_map.bias))
    return AffineMap(
        trust * row_map.weight + (1 - trust) * same.weight,
        trust * row_map.bias + (1 - trust) * same.bias,
    )


def fit_logit_share(log_probs: Tensor, prior: Prior, split: CrossFit) -> Share:
    """Fit the weights of the members that use logits alone."""
    share = fit_share(log_probs, prior, split)
    if is_clustered(split.val.clusters):
        share = _shrink_to_base(share, log_probs, prior.base, split)
    return share


def mixture_label_log_probs(share: Share, log_probs: Tensor, split: CrossFit) -> Tensor:
    """Return the mixture's log-probability of each held-out label ``(n,)``, from components ``(K, n, C)``."""
    target = split.val.tensors().target[split.rows].unsqueeze(1)
    result: Tensor = share(log_probs.transpose(0, 1)).gather(1, target).squeeze(1)
    return result


def gain_trust(gain: Tensor, split: CrossFit) -> float:
    """Return the trust in a gain: 1, or less if few samples or clusters are held out and the gain is uncertain."""
    clusters = split.val.clusters
    weights = sample_weights(split.val)[split.rows]
    if not is_clustered(clusters) and float(weights.sum()) >= _FEW_SAMPLES:
        return 1.0
    return shrinkage_factor(gain, weights, None if clusters is None else clusters[split.rows])


def shrinkage_factor(gain: Tensor, weights: Tensor, clusters: object = None) -> float:
    """Return the shrinkage factor in [0, 1] of a gain ``(n,)``, by its standard error over clusters."""
    mean, error = mean_and_standard_error(gain, weights, clusters)
    return max(0.0, 1 - (error / mean) ** 2) if mean > 0 else 0.0


def identity_map(classes: int) -> AffineMap:
    """Return the identity as an affine map."""
    one = ones(classes)
    return AffineMap(one, 0 * one)
