"""Fitting regressions of labels on features, with calibrated log-probabilities as offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from fedlas.calibrators._fit.buffers import float64_tensor, ones, zeros
from fedlas.calibrators._fit.minimize import minimize_batch
from fedlas.calibrators._fit.residuals import Inputs, ResidualProblem
from fedlas.calibrators._fit.side_maps import (
    INDICATOR_VALUE,
    MEAN_SQUARED_NORM,
    Codes,
    Gate,
    KernelBasis,
    LinearBasis,
    Offsets,
    Ranges,
    ResidualStack,
    SideInformation,
    gaussian_kernel,
    sample_statistics,
    squared_distances,
)
from fedlas.calibrators.side_plan import LANDMARKS, RegressionPlan
from fedlas.resample.folds import canonical_order, systematic_sample

_SHRINKAGE = 0.05
"""Share of the mean variance that whitening adds to each direction."""
_UNIT_RATIO = 10.0
"""Largest ratio of column deviations for a common unit; beyond it each column is standardized. A column whose values
are all this much below the median deviation is standardized in any case; one with rare large values is not."""
_MIN_VARIANCE = 1e-9
"""Smallest share of the variance; directions below it are left out."""
_COVARIANCE_ROWS = 8192
_INSIDE = 0.95
"""Share of the validation samples that the gate lets pass."""
_TRUST = 0.95
"""Gate value for samples inside that range."""
_SAMPLES_PER_DIRECTION = 10.0
"""Samples per direction in which the gate measures distances."""
_COEFFICIENT_RIDGE = 10.0


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that the regressions on features are fitted to.

    Attributes:
        logits: ``(N, C)`` float64.
        features: ``(N, D)`` float64.
        target: ``(N,)``.
        parts: Weights of the samples in each subset ``(F, N)``; the first subset has all samples.
        first_rows: The first row of each distinct sample ``(M,)``.
        levels: Number of values of each categorical column ``(D,)``, 0 for numeric columns; None: unknown, and group
            indicators are guessed, see :func:`find_group_columns`.
    """

    logits: Tensor
    features: Tensor
    target: Tensor
    parts: Tensor
    first_rows: Tensor
    levels: Tensor | None = None

    def count_guessed_groups(self) -> int:
        """Return the number of columns that are guessed to be group indicators, if column types are unknown."""
        return 0 if self.levels is not None else int(find_group_columns(self.features).sum())

    def codes(self) -> Codes | None:
        """Return the encoder of categorical columns, with zero coefficients; None if there are no categories."""
        if self.levels is None or not bool(self.levels.any()):
            return None
        return Codes(levels=self.levels, coefficients=zeros(int(self.levels.sum())))


def fit_side_information(
    samples: Samples, temperatures: Tensor, plan: RegressionPlan
) -> list[SideInformation] | None:
    """Return the regressions fitted to all samples, then to each subset; None if no feature varies.

    Args:
        samples: The samples and their subsets.
        temperatures: Temperature of each subset, the start of its regressions ``(F,)``.
        plan: Size of the regressions.

    Note:
        Directions do not depend on labels, so all subsets share the directions of all samples.
    """
    weights = samples.parts[0]
    linear = fit_linear_basis(samples.features, weights, plan.rank, samples.levels)
    directions = linear(samples.features)
    codes = samples.codes()
    codes_of_rows = None if codes is None else codes(samples.features)
    size = 0 if codes is None else len(codes.coefficients)
    if not directions.shape[1] + size:
        return None
    numbers = directions[:, : linear.split]
    groups = Inputs(directions[:, linear.split :], codes_of_rows, size)
    offsets, coefficients, factors = fit_offsets(samples, numbers, groups, temperatures)
    log_probs = offsets[0].scale_log_probs(samples.logits)
    kernel = fit_kernel_basis(samples, numbers) if plan.kernel and linear.split else None

    # All ridges, offsets and parts of a basis at once.
    stacks: dict[str, list[ResidualStack]] = {}
    linear_inputs = Inputs(directions, codes_of_rows, size, INDICATOR_VALUE)
    for basis, inputs, ridges in _iter_bases(linear_inputs, linear.split, kernel, weights, plan):
        problem = ResidualProblem(
            inputs,
            inputs.weighted_square_sums(weights.unsqueeze(0))[0] / weights.sum(),
            log_probs,
            factors[:, list(plan.offsets)],
            samples.target,
            samples.parts,
            torch.stack(ridges),
            float(log_probs.shape[1]),
        )
        fit = problem.solve()
        offset = torch.tensor(plan.offsets, device="cpu").repeat_interleave(len(ridges))
        parts = [each.chunk(len(samples.parts)) for each in fit]
        stacks[basis] = [
            ResidualStack(factor=a, weight=u, bias=c, offset=offset)
            for a, u, c in zip(*parts, strict=True)
        ]
    gate = fit_gate(directions, linear.split, weights)
    ranges = fit_ranges(samples, linear, directions)
    return [
        SideInformation(
            linear,
            each,
            gate,
            kernel,
            linear_stack=stacks["linear"][part] if "linear" in stacks else None,
            kernel_stack=stacks["kernel"][part] if "kernel" in stacks else None,
            ranges=ranges,
            codes=None if codes is None else Codes(levels=codes.levels, coefficients=values),
            unseen=None,
        )
        for part, (each, values) in enumerate(zip(offsets, coefficients, strict=True))
    ]


def _iter_bases(
    wide: Inputs,
    num_directions: int,
    kernel: KernelBasis | None,
    weights: Tensor,
    plan: RegressionPlan,
) -> Iterator[tuple[str, Inputs, list[Tensor]]]:
    """Yield each basis: name, inputs ``(N, R)``, and the ridges of the input columns ``(R,)``."""
    one = ones(wide.width)
    numbers = wide.numbers[:, :num_directions]
    spread = weights @ numbers.square() / weights.sum()
    penalty = spread + _SHRINKAGE * spread.mean()
    # The ridge of group indicators is one, so that small groups shrink more.
    white = torch.cat(
        [penalty * (spread / penalty).sum() / MEAN_SQUARED_NORM, one[num_directions:]]
    )
    plain = [ridge * one for ridge in plan.ridges if plan.plain]
    yield "linear", wide, [*plain, *(ridge * white for ridge in plan.ridges)]
    if kernel is not None:
        inputs = Inputs(kernel(numbers))
        one = ones(inputs.width)
        yield "kernel", inputs, [ridge * one for ridge in plan.ridges]


def find_group_columns(features: Tensor) -> Tensor:
    """Return a mask ``(D,)`` of group indicators: adjacent 0/1 columns with at most one 1 per row.

    Example:
        >>> find_group_columns(torch.tensor([[0.5, 1, 0, 1], [2.0, 0, 1, 1], [0.1, 0, 0, 0]])).tolist()
        [False, True, True, False]
    """
    is_flag = ((features == 0) | (features == 1)).all(dim=0)
    chosen = torch.zeros_like(is_flag)
    block: list[int] = []
    members = torch.zeros_like(features[:, 0])
    for column in [*is_flag.nonzero().flatten().tolist(), -1]:
        is_adjacent = block and column == block[-1] + 1
        if not is_adjacent or bool((members + features[:, column] > 1).any()):
            chosen[block] = len(block) > 1
            block = []
            members = torch.zeros_like(members)
        block.append(column)
        members = members + features[:, column]
    return chosen


def fit_linear_basis(
    features: Tensor, weights: Tensor, rank: int, levels: Tensor | None = None
) -> LinearBasis:
    """Return principal directions of the features, and group indicators, scaled to a mean squared norm of 30.

    Categorical columns, whose ``levels (D,)`` are above 0, have no direction. Without levels, groups are guessed.

    A row of an unknown group has zeros in the indicators and so gets the map that all groups share. The ridge shrinks
    each group to that map, small groups more.
    """
    total = weights.sum()
    groups = find_group_columns(features) if levels is None else levels < 0
    is_unscaled = groups if levels is None else levels > 0
    mean = torch.where(is_unscaled, 0.0, weights @ features / total)
    deviation = (weights @ (features - mean).square() / total).sqrt()
    varies = (deviation > 1e-7 * mean.abs()) & ~is_unscaled
    scale = torch.where(varies, deviation, 1.0)
    if bool(varies.any()):
        median = deviation[varies].median()
        if float(deviation[varies].max()) <= _UNIT_RATIO * float(median):
            common_scale = float(deviation[varies].square().mean().sqrt())
            reach = (features - mean).abs()[weights > 0].amax(dim=0)
            is_small = varies & (reach < median / _UNIT_RATIO)
            scale = torch.where(is_small, deviation, torch.where(is_unscaled, 1.0, common_scale))
    column_selector = varies.double().diag()[:, varies]
    count = groups.sum()
    zero = torch.zeros_like(mean[varies])
    unrotated = LinearBasis(
        mean=mean, scale=scale, rotation=column_selector, center=zero, groups=0 * count
    )

    # Principal directions, of a part of the rows where they are many.
    part = slice(None, None, max(1, len(features) // _COVARIANCE_ROWS))
    rows = unrotated(features[part])
    share = weights[part] / weights[part].sum()
    center = share @ rows
    rows = (rows - center) * share.sqrt().unsqueeze(1)
    variance, rotation = _principal_components(rows, rank)
    factor = (
        (MEAN_SQUARED_NORM / variance.sum().clamp(min=1e-300)).sqrt()
        if len(variance)
        else variance.sum()
    )
    rotation = column_selector @ rotation * factor
    flags = groups.double().diag()[:, groups] * MEAN_SQUARED_NORM**0.5
    return LinearBasis(
        mean=mean,
        scale=scale,
        rotation=torch.cat([rotation, flags], dim=1),
        center=torch.cat([column_selector @ center @ rotation, torch.zeros_like(flags[0])]),
        groups=count,
    )


def _principal_components(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the largest variances, and their directions ``(D, R)``, of centered, weighted rows."""
    small = len(rows) < rows.shape[1]
    values, vectors = torch.linalg.eigh(rows @ rows.T if small else rows.T @ rows)
    chosen = values > _MIN_VARIANCE * values.sum().clamp(min=1e-300)
    values = values[chosen].flip(0)[:rank]
    vectors = vectors[:, chosen].flip(1)[:, :rank]
    return values, (rows.T @ vectors / values.sqrt() if small else vectors)


def fit_kernel_basis(samples: Samples, directions: Tensor) -> KernelBasis:
    """Return Nystroem features of a Gaussian kernel; the bandwidth is the median distance of landmarks."""
    distinct = samples.first_rows
    weights = samples.parts[0]
    order = canonical_order(
        samples.logits[distinct], samples.target[distinct], samples.features[distinct]
    )
    landmarks = directions[distinct[systematic_sample(order, LANDMARKS)]]
    square = squared_distances(landmarks, landmarks)
    distinct_distances = square[square > 1e-9 * square.max()]
    width = 2 * distinct_distances.median() if len(distinct_distances) else ones(())
    values, vectors = torch.linalg.eigh(gaussian_kernel(landmarks, landmarks, width))
    rotation = vectors * values.clamp(min=1e-6).rsqrt()
    raw = gaussian_kernel(directions, landmarks, width) @ rotation
    share = weights / weights.sum()
    center = share @ raw
    variance, turn = _principal_components(
        (raw - center) * share.sqrt().unsqueeze(1), len(landmarks)
    )
    factor = (
        (MEAN_SQUARED_NORM / variance.sum().clamp(min=1e-300)).sqrt()
        if len(variance)
        else variance.sum()
    )
    turn = turn * factor
    rotation = rotation @ turn
    return KernelBasis(landmarks=landmarks, width=width, rotation=rotation, center=center @ turn)


def fit_offsets(
    samples: Samples, directions: Tensor, groups: Inputs, temperatures: Tensor
) -> tuple[list[Offsets], Tensor, Tensor]:
    """Return the offsets fitted to each subset, category coefficients ``(F, S)`` and factors ``(F, 2, N)``.

    Factors multiply the log-probabilities at the first of the temperatures ``(F,)``; at another temperature these are
    the same up to their ratio and a constant per row, which changes no probability.
    """
    log_probs = (samples.logits / temperatures[0]).log_softmax(dim=1)
    starts = [_initial_offsets(samples, directions, groups.numbers, each) for each in temperatures]
    standards = []
    for start in starts:
        rows = start.standardized_statistics(
            start.scale_log_probs(samples.logits), directions, groups.numbers
        )
        standards.append(replace(groups, numbers=rows))
    ratios = temperatures[0] / temperatures
    numbers = torch.arange(len(ratios), device="cpu")
    center = (log_probs.exp() * log_probs).sum(dim=1, keepdim=True)
    variance = (log_probs.exp() * (log_probs - center).square()).sum(dim=1)
    curvature = standards[0].weighted_square_sums(samples.parts * variance) + _COEFFICIENT_RIDGE

    def evaluate(left: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        values = []
        slopes = []
        for number, coefficients in zip(numbers[left].tolist(), point, strict=True):
            part = samples.parts[number]
            standard = standards[number]
            factor = ratios[number] * standard.times(coefficients.unsqueeze(1)).squeeze(1).exp()
            scores = (log_probs * factor.unsqueeze(1)).log_softmax(dim=1)
            index = samples.target.unsqueeze(1)
            value = -part @ scores.gather(1, index).squeeze(1)
            error = scores.exp().scatter_add(1, index, -torch.ones_like(index, dtype=torch.float64))
            slope = (part * factor * (error * log_probs).sum(dim=1)).unsqueeze(1)
            values.append(value + _COEFFICIENT_RIDGE / 2 * coefficients.square().sum())
            slopes.append(standard.sums(slope).squeeze(1) + _COEFFICIENT_RIDGE * coefficients)
        return torch.stack(values), torch.stack(slopes)

    point = minimize_batch(evaluate, torch.zeros_like(curvature), curvature, 1e-3)
    products = [each.times(b.unsqueeze(1)) for each, b in zip(standards, point, strict=True)]
    factors = torch.cat(products, dim=1).exp().T
    first, second = point.split([len(starts[0].mean), groups.size], dim=1)
    for start, coefficients in zip(starts, first, strict=True):
        start.coefficients = coefficients
    both = torch.stack([torch.ones_like(factors), factors], dim=1)
    return starts, second, ratios.view(-1, 1, 1) * both


def _initial_offsets(
    samples: Samples, directions: Tensor, groups: Tensor, temperature: Tensor
) -> Offsets:
    """Return the offsets at a temperature, with zero coefficients."""
    signs = sample_statistics((samples.logits / temperature).log_softmax(dim=1), directions, groups)
    share = samples.parts[0] / samples.parts[0].sum()
    mean = share @ signs
    deviation = (share @ (signs - mean).square()).sqrt()
    deviation = torch.where(deviation > 1e-9 * (mean.abs() + 1), deviation, 1.0)
    # Indicators stay 0 and 1, so that a row of no group has the temperature that all share.
    common = signs.shape[1] - groups.shape[1]
    mean[common:] = 0.0
    deviation[common:] = 1.0
    return Offsets(coefficients=0 * mean, temperature=temperature, mean=mean, deviation=deviation)


def fit_gate(directions: Tensor, num_directions: int, weights: Tensor) -> Gate:
    """Return a gate that is open for 95 % of the validation samples, by squared Mahalanobis distance."""
    spread = weights @ directions.square() / weights.sum()
    measured = torch.arange(len(spread), device="cpu") < _num_gate_directions(
        num_directions, weights
    )
    typical = spread[:num_directions].mean() if num_directions else spread.mean()
    precision = torch.where(measured, 1 / (spread + _SHRINKAGE * typical).clamp(min=1e-300), 0.0)
    edge = _distance_quantile(directions.square() @ precision, weights)
    return Gate(precision=precision, edge=edge.clamp(min=1e-12), trust=float64_tensor(_TRUST))


def fit_ranges(samples: Samples, linear: LinearBasis, directions: Tensor) -> Ranges:
    """Return the ranges of columns and directions that 95 % of the validation samples lie in.

    Each range extends to the farthest sample. All ranges are then scaled by one factor, so that 95 % of the held-out
    samples lie in the ranges of the other samples: unscaled ranges would be too narrow with many columns and far too
    wide with few.
    """
    subsample = slice(None, None, max(1, len(directions) // _COVARIANCE_ROWS))
    weights = samples.parts[:, subsample]
    count = max(1, int(_num_gate_directions(linear.split, samples.parts[0])))
    numbers = directions[subsample, : min(count, linear.split)]
    varies = (linear.rotation[:, : linear.split] != 0).any(dim=1)
    deviations = (samples.features[subsample] - linear.mean)[:, varies]
    values = torch.cat([deviations, numbers], dim=1).abs()
    if not values.shape[1]:
        return Ranges(columns=0 * linear.mean, directions=0 * linear.center)

    # Columns that hardly vary have little weight: their range is at least a share of the typical spread.
    spread = weights[0] @ directions[subsample, : linear.split].square() / weights[0].sum()
    narrow = (_SHRINKAGE * spread.mean()).sqrt().expand(numbers.shape[1])
    min_reach = torch.cat([linear.scale[varies], narrow]).clamp(min=1e-150)
    farthest = zeros(len(values))
    left_out = zeros(len(values))
    for part in weights[1:]:
        outside = (part == 0) & (weights[0] > 0)
        if bool((part > 0).any()):
            reach = values[part > 0].amax(dim=0).maximum(min_reach)
            farthest[outside] = (values[outside] / reach).amax(dim=1)
            left_out[outside] = weights[0][outside]
    edge = (
        _distance_quantile(farthest, left_out).clamp(min=1e-3) if bool(left_out.any()) else ones(())
    )
    inverse = 1 / (edge * values[weights[0] > 0].amax(dim=0).maximum(min_reach))
    columns = 0 * linear.mean
    columns[varies] = inverse[: int(varies.sum())]
    num_padding = len(linear.center) - numbers.shape[1]
    return Ranges(columns=columns, directions=pad(inverse[int(varies.sum()) :], (0, num_padding)))


def _num_gate_directions(num_directions: int, weights: Tensor) -> float:
    """Return the number of directions with enough samples to measure distances in."""
    return min(num_directions, max(1.0, float(weights.sum()) / _SAMPLES_PER_DIRECTION))


def _distance_quantile(distance: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted 95 % quantile ``()`` of the distances."""
    ordered, order = distance.sort()
    share = weights[order].cumsum(0) / weights.sum()
    return ordered[(share < _INSIDE).sum()]
