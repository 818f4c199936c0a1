"""Regressions on features as members of a mixture, and what it predicts for the folds that it holds out."""

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
"""With a smaller weight of all regressions on features, these are left out."""
_TOO_GOOD = 0.5
"""Share of the held-out NLL that features may leave without a warning."""
_FOLDS_OF_VALUES = 5
"""Folds of whole values of a category, each left out in turn."""
_MOST_CATEGORIES = 2
"""Most categories that are left out so, those of most values: each takes as long as the folds of samples."""
_MOST_LOGITS = 2**18
"""Most logits of the rows that are predicted without their value."""


def plan_of(split: CrossFit, features: Tensor) -> Plan:
    """Return how many rows and directions regressions on features can afford."""
    val = split.val
    parts = len(split.held_out) + 1
    return affordable(val.num_samples, val.num_classes, features.shape[1], parts)


def _categories(val: Predictions) -> list[int]:
    """Return the features whose values are left out in turn, which have a value for each fold."""
    levels = () if val.covariates is None else val.covariates.levels
    columns = [column for column, count in enumerate(levels) if count >= _FOLDS_OF_VALUES]
    return sorted(columns, key=lambda column: -levels[column])[:_MOST_CATEGORIES]


@dataclass(frozen=True, eq=False)
class WithoutValue:
    """What regressions predict for rows of whose value of a category they have seen no row.

    Attributes:
        column: Number of the feature that is the category.
        places: Of the rows among those that are held out ``(m,)``.
        values: Value of each row ``(m,)``.
        log_probs: Of the regressions ``(K, m, C)``.
    """

    column: int
    places: Tensor
    values: Tensor
    log_probs: Tensor


@dataclass(frozen=True, eq=False)
class Regressions:
    """Regressions on features, and their predictions for the rows that are held out.

    Attributes:
        side: They, of all samples.
        log_probs: Log-probabilities of members and regressions ``(K, n, C)``.
        gates: How far the features are like those of the other folds ``(n, 1)``.
        prior: Samples that members count in addition.
        without: Fits them without values of categories, and returns what they predict then, for some categories.
        note: What was guessed of the features, as a sentence; empty if they were described.
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
        partial(_without_values, split, features, samples, rows, plan),
        _guess(samples.guessed()),
    )


def _without_values(
    split: CrossFit, features: Tensor, samples: Samples, rows: Tensor, plan: Plan
) -> list[WithoutValue]:
    """Return what regressions that saw no row of its value predict for each row that is held out, by category.

    Args:
        split: The samples.
        features: ``(N, D)``.
        samples: What the regressions were fitted on.
        rows: Rows of these among all ``(n,)``.
        plan: What was fitted.
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
    """Return the fold of each row ``(N,)``: rows of one value are in one; -1 for rows of no value."""
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
    """Return what the regressions of the other folds of values predict for rows that are held out.

    Args:
        split: The samples.
        features: ``(N, D)``.
        column: The category.
        number: Fold of each row ``(N,)``.
        parts: The regressions without each fold.
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
    """Return the weights of members and regressions, and how far to trust them: 0 where they carry no weight."""
    share = fitted_share(regressions.log_probs, regressions.prior, split)
    if float(share.weights[len(log_probs) :].sum()) < _LEAST_OF_FEATURES:
        return share, 0.0
    # What features gain on samples held out.
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
    """Return how far to trust regressions where a category has a value that they have not seen.

    That is in full, as for other rows, less the weight of the mixture of logits alone beside them for values that were
    left out, as far as what both gain over the regressions exceeds its standard error over values. Categories of few
    values are trusted as others are.
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
