"""Regressions on features as members of a mixture, and out-of-fold predictions of the mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlas.calibrators._fit.doubts import when
from fedlas.calibrators._fit.folds import LeftOut
from fedlas.calibrators._fit.minimize import mixture_weights
from fedlas.calibrators._fit.rowwise import weights_of
from fedlas.calibrators._fit.side_maps import SideInformation, Unseen
from fedlas.calibrators._fit.state import ones
from fedlas.calibrators._fit.temperature_search import nll_temperature, temperatures_of_parts
from fedlas.calibrators.mixture import (
    CrossFit,
    Share,
)
from fedlas.calibrators.mixture_weights import (
    Prior,
    beyond_error,
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
"""Smallest total weight of the regressions; below it they are left out."""
_TOO_GOOD = 0.5
"""A ratio of held-out NLL with and without features below this gives a warning."""
_FOLDS_OF_VALUES = 5
"""Number of folds of the values of a category."""
_MOST_CATEGORIES = 2
"""Most categories whose values are held out, largest first; each costs as much as the sample folds."""
_MOST_LOGITS = 2**18
"""Most logits of the rows that are predicted with their value held out."""


def plan_of(split: CrossFit, features: Tensor) -> Plan:
    """Return the plan of the regressions on features: size and row count that the fit can afford."""
    val = split.val
    parts = len(split.held_out) + 1
    return affordable(val.num_samples, val.num_classes, features.shape[1], parts)


def _categories(val: Predictions) -> list[int]:
    """Return the indices of the categorical features with at least one value per fold, at most two."""
    levels = () if val.covariates is None else val.covariates.levels
    columns = [column for column, count in enumerate(levels) if count >= _FOLDS_OF_VALUES]
    return sorted(columns, key=lambda column: -levels[column])[:_MOST_CATEGORIES]


@dataclass(frozen=True, eq=False)
class WithoutValue:
    """Predictions of regressions for rows whose value of one category was held out of their fit.

    Attributes:
        column: Index of the categorical feature.
        places: Indices into the held-out rows ``(m,)``.
        values: Value of each row ``(m,)``.
        log_probs: Log-probabilities of the regressions ``(K, m, C)``.
    """

    column: int
    places: Tensor
    values: Tensor
    log_probs: Tensor


@dataclass(frozen=True, eq=False)
class Regressions:
    """Regressions on features, with out-of-fold predictions.

    Attributes:
        side: The regressions, fitted to all samples.
        log_probs: Out-of-fold log-probabilities of members and regressions ``(K, n, C)``.
        gates: Gate values: similarity of the features to those of the other folds ``(n, 1)``.
        prior: Pseudo-counts of the members.
        without: Returns predictions for held-out rows with unseen values, for some categories.
        note: Note on columns guessed to be group indicators; empty if the columns are described.
    """

    side: SideInformation
    log_probs: Tensor
    gates: Tensor
    prior: Prior
    without: Callable[[], list[WithoutValue]]
    note: str = ""


def fitted_regressions(
    split: CrossFit, features: Tensor, log_probs: Tensor, prior: Prior
) -> Regressions | None:
    """Fit the regressions on features; None if no feature varies."""
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
        partial(_without_values, split, features, samples, rows, plan),
        _guess(samples.guessed()),
    )


def _without_values(
    split: CrossFit, features: Tensor, samples: Samples, rows: Tensor, plan: Plan
) -> list[WithoutValue]:
    """Return predictions for held-out rows by regressions that were fitted without the value of the row.

    Args:
        split: The samples and folds.
        features: ``(N, D)``.
        samples: Samples that the regressions were fitted to.
        rows: Row indices of these samples ``(n,)``.
        plan: The plan of the regressions.
    """
    val = split.val
    numbers = {column: _folds_of_values(val, features, column) for column in _categories(val)}
    if not numbers:
        return []
    whole = samples.parts[0]
    inside = [
        whole * (number[rows] != fold)
        for number in numbers.values()
        for fold in range(_FOLDS_OF_VALUES)
    ]
    samples = replace(samples, parts=torch.stack([whole, *inside]))
    fits = fit_side_information(samples, _temperatures(val, rows, samples.parts), plan)
    if fits is None:
        return []
    parts = iter(fits[1:])
    return [
        _left_out_by_value(split, features, column, number, [*islice(parts, _FOLDS_OF_VALUES)])
        for column, number in numbers.items()
    ]


def _folds_of_values(val: Predictions, features: Tensor, column: int) -> Tensor:
    """Return the fold of each row ``(N,)``; rows with the same value share a fold, rows without a value get -1."""
    levels = val.covariates.levels[column] if val.covariates is not None else 0
    value = features.cpu()[:, column].long()
    is_known = (value >= 0) & (value < levels)
    value = torch.where(is_known, value, levels)
    size = torch.bincount(value, weights_of(val), minlength=levels + 1)[:levels]
    fold = torch.full((levels + 1,), -1, device="cpu")
    fold[size.argsort(descending=True, stable=True)] = (
        torch.arange(levels, device="cpu") % _FOLDS_OF_VALUES
    )
    return fold[value]


def _left_out_by_value(
    split: CrossFit, features: Tensor, column: int, number: Tensor, parts: list[SideInformation]
) -> WithoutValue:
    """Return predictions for the held-out rows of one category, by regressions fitted to the other values.

    Args:
        split: The samples and folds.
        features: ``(N, D)``.
        column: Index of the categorical feature.
        number: Fold of each row ``(N,)``.
        parts: The regressions fitted without each fold.
    """
    rows = split.rows
    places = evenly(torch.arange(len(rows), device="cpu"), _MOST_LOGITS // split.val.num_classes)
    folds = number[rows[places]]
    chosen = [places[folds == fold] for fold in range(len(parts))]
    log_probs = []
    for part, here in zip(parts, chosen, strict=True):
        each = rows[here]
        inputs = features.cpu()[each].double()
        log_probs.append(part(split.val.logits.cpu()[each].double(), inputs)[0].transpose(0, 1))
    together = torch.cat(chosen)
    values = features.cpu()[rows[together], column].long()
    return WithoutValue(column, together, values, torch.cat(log_probs, dim=1))


def _temperatures(val: Predictions, rows: Tensor, parts: Tensor) -> Tensor:
    """Return the temperature of all samples, followed by the temperatures of the subsets of ``rows (n,)``; ``(F,)``."""
    best = nll_temperature(val)
    whole = Divided.at(best.value, best.doubt)
    inside = val if len(rows) == val.num_samples else val._replaced(features=None).rows(rows)
    others = temperatures_of_parts(inside, parts[1:], whole)
    return torch.cat([whole.temperature.view(1), others])


def with_features(
    split: CrossFit, regressions: Regressions | None, log_probs: Tensor, alone: Share
) -> tuple[SideInformation | None, Share | None, str | None]:
    """Return the regressions kept in the mixture, the weights of all components, and a warning; None where unused."""
    if regressions is None:
        return None, None, None
    share, trust = _share_with_features(split, regressions, log_probs, alone)
    if trust <= 0:
        return None, None, None
    count = len(log_probs)
    chosen = share.weights[count:] > 0
    side = regressions.side.only(chosen.nonzero().squeeze(1).tolist())
    side.gate.trust = side.gate.trust * trust
    if side.codes is not None:
        side.unseen = _unseen(split, regressions, side.codes.columns, log_probs, share, alone)
    weights = weights_of(split.val)[split.rows]
    before, after = (
        -float(weights @ of_labels(each, parts, split) / weights.sum())
        for each, parts in ((alone, log_probs), (share, regressions.log_probs))
    )
    return side, share.only(pad(chosen, (count, 0), value=True)), _too_good(before, after)


def _share_with_features(
    split: CrossFit, regressions: Regressions, log_probs: Tensor, alone: Share
) -> tuple[Share, float]:
    """Return the weights of members and regressions, and the trust in the regressions; 0: leave them out."""
    share = fitted_share(regressions.log_probs, regressions.prior, split)
    if float(share.weights[len(log_probs) :].sum()) < _LEAST_OF_FEATURES:
        return share, 0.0
    # The gain of the features on held-out samples.
    gain = of_labels(share, regressions.log_probs, split) - of_labels(alone, log_probs, split)
    return share, trust_in(gain, split)


def _unseen(
    split: CrossFit,
    regressions: Regressions,
    columns: Tensor,
    log_probs: Tensor,
    share: Share,
    alone: Share,
) -> Unseen:
    """Return the trust in the regressions for rows with unseen values, per category.

    Trust is 1, as for other rows, minus the weight that the mixture of logits alone gets next to the regressions on
    held-out values, shrunk by the standard error of that gain over values. Categories with few values keep trust 1.
    """
    trust = ones(len(columns))
    target = split.val.target.cpu()[split.rows]
    weights = weights_of(split.val)[split.rows]
    for each in regressions.without():
        rows = each.places
        labels = target[rows].unsqueeze(1)
        members = log_probs[:, rows]
        inside = share(torch.cat([members, each.log_probs]).transpose(0, 1)).gather(1, labels)
        outside = alone(members.transpose(0, 1)).gather(1, labels)
        both = torch.cat([inside, outside], dim=1)
        shares, _ = mixture_weights(both.exp(), weights[rows], ones(2), start=ones(2) / 2)
        gain = (both + shares.log()).logsumexp(dim=1) - inside.squeeze(1)
        place = columns.tolist().index(each.column)
        trust[place] -= shares[1] * beyond_error(gain, weights[rows], each.values)
    return Unseen(trust=trust)


def predicted_left_out(
    split: CrossFit,
    log_probs: Tensor,
    prior: Prior,
    regressions: Regressions | None,
) -> list[LeftOut]:
    """Return out-of-fold predictions of the mixture; its weights are fitted to the other folds as well."""
    if len(split.held_out) < 2:
        return []
    places = torch.arange(len(split.rows), device="cpu").split([*map(len, split.held_out)])
    results = []
    for fold, here in enumerate(places):
        # With folds in order of time, the weights are fitted to earlier folds only.
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
    """Return a note on the number of feature columns that are treated as group indicators, or an empty string."""
    if not count:
        return ""
    return (
        f"{count} adjacent feature columns of zeros and ones, with at most one 1 per row, are treated as indicators of "
        "groups. Pass covariates of a table or a data frame to set the type of each column."
    )


LABEL_IN_FEATURES = (
    "Check that the features contain neither the label nor anything known only after it."
)
"""Advice for a suspiciously large gain of the features."""


def _too_good(before: float, after: float) -> str | None:
    """Return a warning if features lower the held-out NLL by more than half, or None."""
    return when(
        after < _TOO_GOOD * before,
        f"features lower the held-out NLL from {before:.3g} to {after:.3g}, by more than half. {LABEL_IN_FEATURES}",
    )
