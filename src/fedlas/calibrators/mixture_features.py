"""Regressions on features as members of a mixture, and what it predicts for the folds that it holds out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlas.calibrators._fit.doubts import when
from fedlas.calibrators._fit.folds import LeftOut
from fedlas.calibrators._fit.rowwise import weights_of
from fedlas.calibrators._fit.side_maps import SideInformation
from fedlas.calibrators._fit.temperature_search import nll_temperature, temperatures_of_parts
from fedlas.calibrators.mixture import (
    CrossFit,
    Share,
)
from fedlas.calibrators.mixture_weights import (
    Prior,
    fitted_share,
    of_labels,
    share_of_logits,
    trust_in,
)
from fedlas.calibrators.side_information import Samples, fit_side_information
from fedlas.calibrators.side_plan import Plan, affordable
from fedlas.calibrators.temperature import Divided
from fedlas.predictions import Predictions
from fedlas.resample.folds import evenly

_LEAST_OF_FEATURES = 0.01
"""With a smaller weight of all regressions on features, these are left out."""
_TOO_GOOD = 0.5
"""Share of the held-out NLL that features may leave without a warning."""


def plan_of(split: CrossFit, features: Tensor) -> Plan:
    """Return how many rows and directions regressions on features can afford."""
    val = split.val
    parts = len(split.held_out) + 1
    return affordable(val.num_samples, val.num_classes, features.shape[1], parts)


@dataclass(frozen=True, eq=False)
class Regressions:
    """Regressions on features, and their predictions for the rows that are held out.

    Attributes:
        side: They, of all samples.
        log_probs: Log-probabilities of members and regressions ``(K, n, C)``.
        gates: How far the features are like those of the other folds ``(n, 1)``.
        prior: Samples that members count in addition.
        note: What was guessed of the features, as a sentence; empty if they were described.
    """

    side: SideInformation
    log_probs: Tensor
    gates: Tensor
    prior: Prior
    note: str = ""


def fitted_regressions(
    split: CrossFit, features: Tensor, log_probs: Tensor, prior: Prior
) -> Regressions | None:
    """Return the regressions on features; None if they vary too little for one."""
    val = split.val
    plan = plan_of(split, features)
    rows = evenly(split.order, plan.rows).sort().values
    weights = weights_of(val)[rows]
    folds = split.folds.rows(rows)
    inside = [weights >= 0, *(folds.train(fold) for fold in range(len(split.held_out)))]
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
    fits = fit_side_information(samples, _temperatures(val, rows, samples.parts), plan)
    if fits is None:
        return None
    side, *parts = fits
    others = [
        part(val.logits.cpu()[rows].double(), features.cpu()[rows].double())
        for part, rows in zip(parts, split.held_out, strict=True)
    ]
    beside = torch.cat([each.transpose(0, 1) for each, _ in others], dim=1)
    return Regressions(
        side,
        torch.cat([log_probs, beside]),
        torch.cat([gate for _, gate in others]),
        prior.beside_features(),
        _guess(samples.guessed()),
    )


def _temperatures(val: Predictions, rows: Tensor, parts: Tensor) -> Tensor:
    """Return the temperature of all samples, then those of each part of ``rows (n,)``, ``(F,)``."""
    best = nll_temperature(val)
    whole = Divided.at(best.value, best.doubt)
    inside = val if len(rows) == val.num_samples else val._replaced(features=None).rows(rows)
    others = temperatures_of_parts(inside, parts[1:], whole)
    return torch.cat([whole.temperature.view(1), others])


def with_features(
    split: CrossFit, regressions: Regressions | None, log_probs: Tensor, alone: Share
) -> tuple[SideInformation | None, Share | None, str | None]:
    """Return the regressions on features, the weights of members and regressions, and what to warn about."""
    if regressions is None:
        return None, None, None
    share, trust = _share_with_features(split, regressions, log_probs, alone)
    if trust <= 0:
        return None, None, None
    count = len(log_probs)
    chosen = share.weights[count:] > 0
    side = regressions.side.only(chosen.nonzero().squeeze(1).tolist())
    side.gate.trust = side.gate.trust * trust
    weights = weights_of(split.val)[split.rows]
    before, after = (
        -float(weights @ of_labels(each, parts, split) / weights.sum())
        for each, parts in ((alone, log_probs), (share, regressions.log_probs))
    )
    return side, share.only(pad(chosen, (count, 0), value=True)), _too_good(before, after)


def _share_with_features(
    split: CrossFit, regressions: Regressions, log_probs: Tensor, alone: Share
) -> tuple[Share, float]:
    """Return the weights of members and regressions, and how far to trust them: 0 where they carry no weight."""
    share = fitted_share(regressions.log_probs, regressions.prior, split)
    if float(share.weights[len(log_probs) :].sum()) < _LEAST_OF_FEATURES:
        return share, 0.0
    # What features gain on samples held out.
    gain = of_labels(share, regressions.log_probs, split) - of_labels(alone, log_probs, split)
    return share, trust_in(gain, split)


def predicted_left_out(
    split: CrossFit,
    log_probs: Tensor,
    prior: Prior,
    regressions: Regressions | None,
) -> list[LeftOut]:
    """Return what a mixture predicts for each fold, by members and weights that were fitted on the other folds."""
    if len(split.held_out) < 2:
        return []
    places = torch.arange(len(split.rows), device="cpu").split([*map(len, split.held_out)])
    results = []
    for fold, here in enumerate(places):
        # In order of time, weights are those of earlier folds.
        earlier = [*range(fold)]
        others = earlier if split.folds.in_time else [*earlier, *range(fold + 1, len(places))]
        if not others:
            continue
        there = torch.cat([places[other] for other in others])
        without = replace(split, held_out=tuple(split.held_out[other] for other in others))
        share = share_of_logits(log_probs[:, there], prior, without)
        result = share(log_probs[:, here].transpose(0, 1))
        if regressions is not None:
            of_others = replace(regressions, log_probs=regressions.log_probs[:, there])
            inside, trust = _share_with_features(without, of_others, log_probs[:, there], share)
            if trust > 0:
                gate = regressions.gates[here] * trust
                parts = regressions.log_probs[:, here].transpose(0, 1)
                result = torch.logaddexp(inside(parts) + gate.log(), result + torch.log1p(-gate))
        results.append(LeftOut(split.held_out[fold], result))
    return results


def _guess(count: int) -> str:
    """Return the sentence that says how many columns of bare features are taken for groups."""
    if not count:
        return ""
    return (
        f"{count} columns of features hold zeros and ones, of which neighbors have at most one in a row: they are "
        "taken for groups. Covariates of a table, or a data frame, say what a column holds."
    )


LABEL_IN_FEATURES = "Check that the features do not hold the label, or what is known only after it."
"""Advice where features lower the loss too much to be true."""


def _too_good(before: float, after: float) -> str | None:
    """Return a doubt if features lower the held-out NLL by more than half."""
    return when(
        after < _TOO_GOOD * before,
        f"features lower the held-out NLL from {before:.3g} to {after:.3g}, by more than half. {LABEL_IN_FEATURES}",
    )
