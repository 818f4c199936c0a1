"""Regressions on features as members of a mixture, and out-of-fold predictions of the mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlas.calibrators._fit.buffers import ones
from fedlas.calibrators._fit.fit_warnings import warning_if
from fedlas.calibrators._fit.folds import OutOfFold
from fedlas.calibrators._fit.minimize import fit_mixture_weights
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.calibrators._fit.side_maps import SideInformation, Unseen
from fedlas.calibrators._fit.temperature_search import nll_temperature, subset_temperatures
from fedlas.calibrators.mixture_weights import (
    Prior,
    fit_logit_share,
    fit_share,
    gain_trust,
    mixture_label_log_probs,
    shrinkage_factor,
)
from fedlas.calibrators.side_information import Samples, fit_side_information
from fedlas.calibrators.side_plan import RegressionPlan, choose_plan
from fedlas.calibrators.temperature import Divided
from fedlas.resample.folds import systematic_sample

if TYPE_CHECKING:
    from fedlas.calibrators.mixture import (
        CrossFit,
        Share,
    )
    from fedlas.predictions import Predictions

_MIN_FEATURE_WEIGHT = 0.01
"""Smallest total weight of the regressions; below it they are left out."""
_LEAK_RATIO = 0.5
"""A ratio of held-out NLL with and without features below this gives a warning."""
_NUM_VALUE_FOLDS = 5
"""Number of folds of the values of a category."""
_MAX_CATEGORIES = 2
"""Most categories whose values are held out, largest first; each costs as much as the sample folds."""
_MAX_LOGITS = 2**18
"""Most logits of the rows that are predicted with their value held out."""


def regression_plan(split: CrossFit, features: Tensor) -> RegressionPlan:
    """Return the plan of the regressions on features: size and row count that the fit can afford."""
    val = split.val
    parts = len(split.held_out) + 1
    return choose_plan(val.num_samples, val.num_classes, features.shape[1], parts)


def _held_out_categories(val: Predictions) -> list[int]:
    """Return the indices of the categorical features with at least one value per fold, at most two."""
    levels = () if val.covariates is None else val.covariates.levels
    columns = [column for column, count in enumerate(levels) if count >= _NUM_VALUE_FOLDS]
    return sorted(columns, key=lambda column: -levels[column])[:_MAX_CATEGORIES]


@dataclass(frozen=True, eq=False)
class UnseenValuePredictions:
    """Predictions of regressions for rows whose value of one category was held out of their fit.

    Attributes:
        column: Index of the categorical feature.
        indices: Indices into the held-out rows ``(m,)``.
        values: Value of each row ``(m,)``.
        log_probs: Log-probabilities of the regressions ``(K, m, C)``.
    """

    column: int
    indices: Tensor
    values: Tensor
    log_probs: Tensor


@dataclass(frozen=True, eq=False)
class FeatureRegressions:
    """Regressions on features, with out-of-fold predictions.

    Attributes:
        side: The regressions, fitted to all samples.
        log_probs: Out-of-fold log-probabilities of members and regressions ``(K, n, C)``.
        gates: Gate values: similarity of the features to those of the other folds ``(n, 1)``.
        prior: Pseudo-counts of the members.
        predict_unseen_values: Returns predictions for held-out rows with unseen values, for some categories.
        note: Note on columns guessed to be group indicators; empty if the columns are described.
    """

    side: SideInformation
    log_probs: Tensor
    gates: Tensor
    prior: Prior
    predict_unseen_values: Callable[[], list[UnseenValuePredictions]]
    note: str = ""


def fit_regressions(
    split: CrossFit, features: Tensor, log_probs: Tensor, prior: Prior
) -> FeatureRegressions | None:
    """Fit the regressions on features; None if no feature varies."""
    val = split.val
    plan = regression_plan(split, features)
    rows = systematic_sample(split.order, plan.rows).sort().values
    weights = sample_weights(val)[rows]
    folds = split.folds.rows(rows)
    subset_masks = [weights >= 0, *(folds.train(fold) for fold in range(len(split.held_out)))]
    samples = Samples(
        val.tensors().logits[rows].double(),
        features.cpu()[rows].double(),
        val.tensors().target[rows],
        torch.stack([weights * each for each in subset_masks]),
        systematic_sample(split.first_rows, plan.rows)
        if len(rows) == val.num_samples
        else torch.arange(len(rows), device="cpu"),
        None if val.covariates is None else torch.tensor(val.covariates.levels, device="cpu"),
    )
    fits = fit_side_information(samples, _start_temperatures(val, rows, samples.parts), plan)
    if fits is None:
        return None
    side, *parts = fits
    others = [
        part(val.tensors().logits[rows].double(), features.cpu()[rows].double())
        for part, rows in zip(parts, split.held_out, strict=True)
    ]
    regression_log_probs = torch.cat([each.transpose(0, 1) for each, _ in others], dim=1)
    return FeatureRegressions(
        side,
        torch.cat([log_probs, regression_log_probs]),
        torch.cat([gate for _, gate in others]),
        prior.with_features(),
        partial(_predict_unseen_values, split, features, samples, rows, plan),
        _guessed_groups_note(samples.count_guessed_groups()),
    )


def _predict_unseen_values(
    split: CrossFit, features: Tensor, samples: Samples, rows: Tensor, plan: RegressionPlan
) -> list[UnseenValuePredictions]:
    """Return predictions for held-out rows by regressions that were fitted without the value of the row.

    Args:
        split: The samples and folds.
        features: ``(N, D)``.
        samples: Samples that the regressions were fitted to.
        rows: Row indices of these samples ``(n,)``.
        plan: The plan of the regressions.
    """
    val = split.val
    value_folds = {
        column: _value_folds(val, features, column) for column in _held_out_categories(val)
    }
    if not value_folds:
        return []
    weights = samples.parts[0]
    subset_weights = [
        weights * (number[rows] != fold)
        for number in value_folds.values()
        for fold in range(_NUM_VALUE_FOLDS)
    ]
    samples = replace(samples, parts=torch.stack([weights, *subset_weights]))
    fits = fit_side_information(samples, _start_temperatures(val, rows, samples.parts), plan)
    if fits is None:
        return []
    parts = iter(fits[1:])
    return [
        _predict_held_out_values(
            split, features, column, number, [*islice(parts, _NUM_VALUE_FOLDS)]
        )
        for column, number in value_folds.items()
    ]


def _value_folds(val: Predictions, features: Tensor, column: int) -> Tensor:
    """Return the fold of each row ``(N,)``; rows with the same value share a fold, rows without a value get -1."""
    levels = val.covariates.levels[column] if val.covariates is not None else 0
    value = features.cpu()[:, column].long()
    is_known = (value >= 0) & (value < levels)
    value = torch.where(is_known, value, levels)
    size = torch.bincount(value, sample_weights(val), minlength=levels + 1)[:levels]
    fold = torch.full((levels + 1,), -1, device="cpu")
    fold[size.argsort(descending=True, stable=True)] = (
        torch.arange(levels, device="cpu") % _NUM_VALUE_FOLDS
    )
    return fold[value]


def _predict_held_out_values(
    split: CrossFit,
    features: Tensor,
    column: int,
    fold_of_row: Tensor,
    parts: list[SideInformation],
) -> UnseenValuePredictions:
    """Return predictions for the held-out rows of one category, by regressions fitted to the other values.

    Args:
        split: The samples and folds.
        features: ``(N, D)``.
        column: Index of the categorical feature.
        fold_of_row: Fold of each row ``(N,)``.
        parts: The regressions fitted without each fold.
    """
    rows = split.rows
    indices = systematic_sample(
        torch.arange(len(rows), device="cpu"), _MAX_LOGITS // split.val.num_classes
    )
    folds = fold_of_row[rows[indices]]
    chosen = [indices[folds == fold] for fold in range(len(parts))]
    log_probs = []
    for part, here in zip(parts, chosen, strict=True):
        each = rows[here]
        inputs = features.cpu()[each].double()
        log_probs.append(part(split.val.tensors().logits[each].double(), inputs)[0].transpose(0, 1))
    held_out = torch.cat(chosen)
    values = features.cpu()[rows[held_out], column].long()
    return UnseenValuePredictions(column, held_out, values, torch.cat(log_probs, dim=1))


def _start_temperatures(val: Predictions, rows: Tensor, subset_weights: Tensor) -> Tensor:
    """Return the temperature of all samples, followed by the temperatures of the subsets of ``rows (n,)``; ``(F,)``."""
    best = nll_temperature(val)
    whole = Divided.from_temperature(best.value, best.warning)
    inside = val if len(rows) == val.num_samples else val._replace_fields(features=None).rows(rows)
    others = subset_temperatures(inside, subset_weights[1:], whole)
    return torch.cat([whole.temperature.view(1), others])


def weigh_regressions(
    split: CrossFit, regressions: FeatureRegressions | None, log_probs: Tensor, logit_share: Share
) -> tuple[SideInformation | None, Share | None, str | None]:
    """Return the regressions kept in the mixture, the weights of all components, and a warning; None where unused."""
    if regressions is None:
        return None, None, None
    share, trust = _fit_feature_share(split, regressions, log_probs, logit_share)
    if trust <= 0:
        return None, None, None
    count = len(log_probs)
    chosen = share.weights[count:] > 0
    side = regressions.side.select(chosen.nonzero().squeeze(1).tolist())
    side.gate.trust = side.gate.trust * trust
    if side.codes is not None:
        side.unseen = _fit_unseen_trust(
            split, regressions, side.codes.columns, log_probs, share, logit_share
        )
    weights = sample_weights(split.val)[split.rows]
    before, after = (
        -float(weights @ mixture_label_log_probs(each, parts, split) / weights.sum())
        for each, parts in ((logit_share, log_probs), (share, regressions.log_probs))
    )
    return side, share.select(pad(chosen, (count, 0), value=True)), _leak_warning(before, after)


def _fit_feature_share(
    split: CrossFit, regressions: FeatureRegressions, log_probs: Tensor, logit_share: Share
) -> tuple[Share, float]:
    """Return the weights of members and regressions, and the trust in the regressions; 0: leave them out."""
    share = fit_share(regressions.log_probs, regressions.prior, split)
    if float(share.weights[len(log_probs) :].sum()) < _MIN_FEATURE_WEIGHT:
        return share, 0.0
    # The gain of the features on held-out samples.
    gain = mixture_label_log_probs(share, regressions.log_probs, split) - mixture_label_log_probs(
        logit_share, log_probs, split
    )
    return share, gain_trust(gain, split)


def _fit_unseen_trust(
    split: CrossFit,
    regressions: FeatureRegressions,
    columns: Tensor,
    log_probs: Tensor,
    share: Share,
    logit_share: Share,
) -> Unseen:
    """Return the trust in the regressions for rows with unseen values, per category.

    Trust is 1, as for other rows, minus the weight that the mixture of logits alone gets next to the regressions on
    held-out values, shrunk by the standard error of that gain over values. Categories with few values keep trust 1.
    """
    trust = ones(len(columns))
    target = split.val.tensors().target[split.rows]
    weights = sample_weights(split.val)[split.rows]
    for each in regressions.predict_unseen_values():
        rows = each.indices
        labels = target[rows].unsqueeze(1)
        members = log_probs[:, rows]
        inside = share(torch.cat([members, each.log_probs]).transpose(0, 1)).gather(1, labels)
        outside = logit_share(members.transpose(0, 1)).gather(1, labels)
        both = torch.cat([inside, outside], dim=1)
        shares, _ = fit_mixture_weights(both.exp(), weights[rows], ones(2), start=ones(2) / 2)
        gain = (both + shares.log()).logsumexp(dim=1) - inside.squeeze(1)
        place = columns.tolist().index(each.column)
        trust[place] -= shares[1] * shrinkage_factor(gain, weights[rows], each.values)
    return Unseen(trust=trust)


def out_of_fold_predictions(
    split: CrossFit,
    log_probs: Tensor,
    prior: Prior,
    regressions: FeatureRegressions | None,
) -> list[OutOfFold]:
    """Return out-of-fold predictions of the mixture; its weights are fitted to the other folds as well."""
    if len(split.held_out) < 2:
        return []
    fold_indices = torch.arange(len(split.rows), device="cpu").split([*map(len, split.held_out)])
    results = []
    for fold, held_out in enumerate(fold_indices):
        # With folds in order of time, the weights are fitted to earlier folds only.
        earlier = [*range(fold)]
        others = earlier if split.folds.in_time else [*earlier, *range(fold + 1, len(fold_indices))]
        if not others:
            continue
        fit_rows = torch.cat([fold_indices[other] for other in others])
        other_folds = replace(split, held_out=tuple(split.held_out[other] for other in others))
        share = fit_logit_share(log_probs[:, fit_rows], prior, other_folds)
        result = share(log_probs[:, held_out].transpose(0, 1))
        if regressions is not None:
            of_others = replace(regressions, log_probs=regressions.log_probs[:, fit_rows])
            inside, trust = _fit_feature_share(
                other_folds, of_others, log_probs[:, fit_rows], share
            )
            if trust > 0:
                gate = regressions.gates[held_out] * trust
                parts = regressions.log_probs[:, held_out].transpose(0, 1)
                result = torch.logaddexp(inside(parts) + gate.log(), result + torch.log1p(-gate))
        results.append(OutOfFold(split.held_out[fold], result))
    return results


def _guessed_groups_note(count: int) -> str:
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


def _leak_warning(nll_before: float, nll_after: float) -> str | None:
    """Return a warning if features lower the held-out NLL by more than half, or None."""
    return warning_if(
        nll_after < _LEAK_RATIO * nll_before,
        f"features lower the held-out NLL from {nll_before:.3g} to {nll_after:.3g}, by more than half. "
        + LABEL_IN_FEATURES,
    )
