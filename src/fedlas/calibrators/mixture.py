"""A fitted mixture of calibrators as one module, with or without regressions on features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.calibrators._fit.softmax_regression import AffineMap
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators._fit.top_map import TopLabelMap
from fedlas.predictions.tensors import log_softmax

if TYPE_CHECKING:
    from fedlas.calibrators._fit.absent_share import AbsentShare
    from fedlas.calibrators._fit.side_maps import SideInformation
    from fedlas.calibrators.base import Calibrator
    from fedlas.predictions import Predictions
    from fedlas.resample.folds import Folds

FEATURES = "features"
_LIFT = 1e-4
"""Margin in nats by which the predicted class is lifted above the others; large enough for half precision."""


class Share(nn.Module):
    """Mixture weights of log-probabilities, followed by a recalibration map.

    Attributes:
        weights: ``w (K,)``, float64, summing to 1.
        last: Map of the mixture's log-probabilities.
        top: Map of the top label's log-odds, applied last, or None.
    """

    weights: Tensor
    parts: ClassVar = {"last": AffineMap, "top": TopLabelMap}

    def __init__(self, weights: Tensor, last: AffineMap, top: TopLabelMap | None = None) -> None:
        super().__init__()
        self.last = last
        self.top = top
        self.register_buffer("weights", weights)

    def forward(self, log_probs: Tensor) -> Tensor:
        """Return log-probabilities ``(n, C)`` of the mixture, from those of its components ``(n, K, C)``."""
        mixture = (log_probs + self.weights.log().unsqueeze(1)).logsumexp(dim=1)
        calibrated: Tensor = self.last(mixture)
        result: Tensor = log_softmax(calibrated)
        return result if self.top is None else self.top(result)

    def select(self, is_chosen: Tensor) -> Share:
        """Return the mixture restricted to the selected members (a mask) and all components after the members."""
        rest = len(self.weights) - len(is_chosen)
        return Share(self.weights[pad(is_chosen, (0, rest), value=True)], self.last, self.top)

    def check(self, _: int) -> None:
        """Raise ValueError unless the weights are at least 0 and sum to 1."""
        weights = self.weights
        fits = weights.ndim == 1 and len(weights) > 0 and bool((weights >= 0).all())
        fits = fits and abs(float(weights.sum()) - 1) <= 1e-6
        require_valid(fits, "weights must be at least 0 and sum to 1")


class CalibratedMixture(nn.Module):
    """Weighted mixture of fitted calibrators, ``log sum_k w_k softmax(m_k(z))``, with a final factor and offsets.

    With side information there are two such mixtures: one with regressions on features, and one of logits alone, which
    takes its place where features are unlike those of the validation samples.

    Attributes:
        kinds: Registry name of the calibrator of each member, by the member's name; None: unchanged predictions.
        members: Fitted maps ``m_k`` of logits ``(n, C)``.
        share: Weights of the members, and the last map.
        side: Regressions on features, or None.
        side_share: Weights of members and regressions, and the last map; None without features.
        absent: Probability of classes without a validation sample, or None if every class has one.
        keep_class: Whether the class with the largest logit gets the largest probability.
        dropped: Names of members that were left out.
        notes: Sentences on rows that the fit left out.
    """

    def __init__(
        self,
        kinds: Mapping[str, str | None],
        members: Iterable[nn.Module],
        share: Share,
        side: SideInformation | None = None,
        side_share: Share | None = None,
        absent: AbsentShare | None = None,
        *,
        keep_class: bool,
        dropped: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.kinds = dict(kinds)
        self.dropped = dropped
        self.notes = notes
        self.members = nn.ModuleList(members)
        self.share = share
        self.side = side
        self.side_share = side_share
        self.absent = absent
        self.keep_class = keep_class
        # Kernels and steps need the digits of float64.
        self.has_steps = side is not None or any(
            getattr(member, "has_steps", False) for member in self.members
        )

    @property
    def uses_features(self) -> bool:
        """Whether the mixture has regressions on features."""
        return self.side is not None

    def check(self, _: int) -> None:
        """Raise ValueError unless each member and each regression has a weight."""
        count = len(self.members)
        require_valid(len(self.share.weights) == count, "each member must have a weight")
        require_valid(
            (self.side is None) == (self.side_share is None),
            "side and side_share must both be given",
        )
        if self.side is not None and self.side_share is not None:
            fits = len(self.side_share.weights) == count + sum(self.side.counts)
            require_valid(fits, "each member and regression must have a weight")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member by name, and the total weight of all regressions as ``"features"``."""
        share = self.share if self.side_share is None else self.side_share
        weights = share.weights.tolist()
        count = len(self.members)
        features = {} if self.side is None else {FEATURES: sum(weights[count:])}
        return {**dict(zip(self.kinds, weights[:count], strict=True)), **features}

    def forward(self, rows: Tensor, features: Tensor | None = None) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``, and for features ``(n, D)`` if the mixture uses them."""
        # (n, K, C) in memory member by member: a sum over members is then one over whole arrays.
        parts = [log_softmax(member(rows)) for member in self.members]
        log_probs = torch.stack(parts).transpose(0, 1)
        result = self.share(log_probs)
        if self.side is not None and self.side_share is not None:
            others, gate = self.side(rows, features)
            inside = self.side_share(torch.cat([log_probs, others], dim=1))
            result = torch.logaddexp(inside + gate.log(), result + torch.log1p(-gate))
        if self.absent is not None:
            result = self.absent(rows, result)
        if self.keep_class:
            top = rows.argmax(dim=1, keepdim=True)
            highest = result.amax(dim=1, keepdim=True)
            lifted = result.scatter(1, top, highest + _LIFT)
            result = torch.where(result.argmax(dim=1, keepdim=True) == top, result, lifted)
            # The top becomes 0, where half precision resolves the margin.
            result = result - result.amax(dim=1, keepdim=True)
        return result


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Samples with their folds, for out-of-fold predictions of the members.

    Attributes:
        val: With labels.
        folds: Fold of each sample.
        held_out: Held-out rows ``(n,)`` of each fold that is used.
        thinned: Mask of the rows that expensive members are fitted on ``(N,)``.
        order: All rows, by class and in random order within a class ``(N,)``.
        first_rows: The first row of each distinct sample ``(M,)``.
    """

    val: Predictions
    folds: Folds
    held_out: tuple[Tensor, ...]
    thinned: Tensor
    order: Tensor
    first_rows: Tensor

    @cached_property
    def rows(self) -> Tensor:
        """Indices of all held-out rows, fold by fold."""
        return torch.cat(self.held_out)

    def member_samples(self, is_expensive: bool) -> Predictions:
        """Return the samples that a member is fitted on, without features: a subsample if it is expensive, else all."""
        return (
            self._thinned_samples
            if is_expensive and not bool(self.thinned.all())
            else self._without_features
        )

    @cached_property
    def _without_features(self) -> Predictions:
        return self.val if self.val.features is None else self.val._replace_fields(features=None)

    @cached_property
    def _thinned_samples(self) -> Predictions:
        return self._without_features.rows(self.thinned)

    def log_probs(
        self,
        members: Mapping[str, Calibrator | None],
        maps: Mapping[str, nn.Module],
        expensive: frozenset[str],
    ) -> Tensor:
        """Return the out-of-fold log-probabilities ``(K, n, C)`` of each member.

        Args:
            members: Calibrators by name; None: unchanged predictions.
            maps: Maps fitted to all samples, by name.
            expensive: Names of the members that are fitted on a subsample.
        """
        is_train = torch.stack([self.folds.train(fold) for fold in range(len(self.held_out))])
        subset_weights = is_train * sample_weights(self.val)
        fits: list[list[nn.Module]] = []
        for name, member in members.items():
            if member is None:
                fits.append([nn.Identity()] * len(subset_weights))
                continue
            rows = subset_weights[:, self.thinned] if name in expensive else subset_weights
            fits.append(
                member.fit_subsets(self.member_samples(name in expensive), rows, maps[name])
            )
        logits = self.val.tensors().logits
        results = []
        for fold, rows in enumerate(self.held_out):
            results += [
                torch.stack([fit[fold](each) for fit in fits])
                for _, each in iter_float64_rows(logits[rows])
            ]
        return torch.cat(results, dim=1).log_softmax(dim=2)


def label_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return the log-probability of the label under each member, ``(n, K)``, from ``(K, n, C)``."""
    return log_probs.gather(2, target.expand(len(log_probs), -1).unsqueeze(2)).squeeze(2).T
