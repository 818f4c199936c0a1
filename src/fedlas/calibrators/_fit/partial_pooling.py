"""Empirical Bayes fit of calibration curves of many labels with a common distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from fedlas.calibrators._fit.buffers import float64_tensor, ones, zeros

_ROUNDS = 12
"""Rounds of expectation and maximization; a hundred change the NLL of fixed-out samples by less than .2 %."""
_MAX_STEPS = 30
"""Most Newton steps of the curves at the end."""
_MIN_DECREMENT = 1e-9
"""Newton's decrement, as a share of the objective, at which a curve has converged."""
_SLOPE_RIDGE = 1.0
"""Ridge of the common slope toward 1."""
_COMMON_RIDGE = (1.0, 1.0, 0.01)
"""Ridge of the common curve toward the common slope."""
_COVARIATE_RIDGE = 1.0
"""Ridge of the coefficients of the labels' covariates, in labels."""
_SPREAD = 0.5
"""Standard deviation of a coefficient to start from, where an unchanged slope is 1."""
_PRIOR_SPREAD = 0.14
"""Spread of one pseudo-label, so that two labels have a covariance."""
_MEAN_SPREAD = (0.5, 0.5, 2.0)
"""Standard deviations of the mean of the distribution around one temperature for all labels."""
_JITTER = 1e-6
_MAX_FALLING_SHARE = 0.01
"""Largest share of rows where a curve is made constant instead of falling; above it, a, b >= 0 is enforced."""
_MAX_LABEL_ROWS = 2**20
"""Most label rows on which the distribution is estimated; of more labels a systematic sample of at least 100."""
_MIN_SAMPLED_LABELS = 100
_BLOCK_ROWS = 2**15
"""Label rows per block; the arrays fit the cache."""

Rows = tuple[Tensor, Tensor, Tensor]
"""Features ``(l, F, n)``, labels ``(l, n)`` and weights ``(l, n)`` of some labels, float64."""

Derivatives = tuple[Tensor, Tensor, Tensor]
"""Value ``(l,)``, gradient ``(l, F)`` and Hessian ``(l, F, F)`` of each label."""


def curve_features(scores: Tensor) -> Tensor:
    """Return curve features ``log p``, ``-log(1 - p)`` and 1, ``(..., 3, n)``, for log-odds ``(..., n)``."""
    return torch.stack([logsigmoid(scores), -logsigmoid(-scores), torch.ones_like(scores)], dim=-2)


@dataclass(frozen=True)
class PooledCurves:
    """Fitted curves of labels, and their common normal distribution.

    Attributes:
        numbers: ``a``, ``b`` and ``c`` of each label ``(L, 3)``.
        mean: Mean of the distribution at the average mean score, and its slope in the mean score ``(2, 3)``.
        covariance: Covariance of the distribution ``(3, 3)``.
        design_effect: Samples per independent sample; 1 without clusters.
        converged: Whether the fits of all curves converged.
    """

    numbers: Tensor
    mean: Tensor
    covariance: Tensor
    design_effect: float
    converged: bool


class LabelRows:
    """Log-odds, targets and weights of labels, in blocks that fit the cache.

    Args:
        scores: Log-odds ``(L, n)``.
        target: 1 where a label is present, else 0 ``(L, n)``.
        weights: Weight of each row of each label ``(L, n)``, or of each row ``(1, n)``.
    """

    def __init__(self, scores: Tensor, target: Tensor, weights: Tensor) -> None:
        self.scores = scores
        self.target = target
        self.weights = weights
        self.num_labels, self.num_rows = scores.shape

    def select_labels(self, labels: Tensor) -> Rows:
        """Return features, targets and weights of the labels with the given indices ``(l,)``."""
        scores = self.scores[labels].double()
        return curve_features(scores), self.target[labels].double(), self.label_weights(labels)

    def label_weights(self, labels: Tensor) -> Tensor:
        """Return the weights ``(l, n)`` of the labels with the given indices."""
        each = self.weights if len(self.weights) == 1 else self.weights[labels]
        return each.expand(len(labels), -1)

    def scale_weights(self, factor: float) -> LabelRows:
        """Return the same rows with all weights multiplied by ``factor``."""
        return LabelRows(self.scores, self.target, self.weights * factor)

    def label_blocks(self) -> tuple[Tensor, ...]:
        """Return the indices of all labels, in blocks whose arrays fit the cache."""
        return torch.arange(self.num_labels, device="cpu").split(
            max(1, _BLOCK_ROWS // self.num_rows)
        )


def fit_pooled_curves(rows: LabelRows, clusters: Tensor | None = None) -> PooledCurves:
    """Fit curves ``a log p - b log(1 - p) + c`` by empirical Bayes: the posterior mode of each label.

    Coefficients ``theta_l ~ N(M' v_l, S)``, where ``v_l`` is 1 and the standardized mean score of the label. ``M`` and
    ``S`` are estimated by expectation and maximization, with the normal approximation of each label's posterior.

    Args:
        rows: Scores, labels and weights.
        clusters: Cluster of each row ``(n,)``; None: rows are independent.
    """
    covariates = _label_covariates(rows)
    labels = _sample_labels(covariates[:, 1], rows.num_rows)
    data = rows.select_labels(labels)
    identity = torch.eye(3, dtype=torch.float64, device="cpu")

    unit, common = _common_curve(rows, labels)
    design_effect = 1.0 if clusters is None else _design_effect(data, common, clusters)
    if design_effect > 1:
        # All priors are relative to independent samples, that of the common curve too.
        rows = rows.scale_weights(1 / design_effect)
        data = rows.select_labels(labels)
        unit, common = _common_curve(rows, labels)
    anchor = float64_tensor([[unit, unit, 0.0]])
    scale = float64_tensor([unit, unit, 1.0])

    # EM rounds, each from the curves of the previous round.
    sampled = covariates[labels]
    mean = torch.cat([common, zeros(1, 3)])
    prior_scatter = (_PRIOR_SPREAD * scale).square().diag()
    covariance = (_SPREAD * scale).square().diag()
    numbers = sampled @ mean
    point = None
    for _ in range(_ROUNDS):
        precision = _inverse_by_cholesky(covariance)
        prior = (sampled @ mean, precision.expand(len(labels), -1, -1))
        numbers, hessian, point, _ = maximize_posteriors(
            data, numbers, *prior, max_steps=1, point=point
        )
        mean = _pooled_mean(sampled, numbers, precision, anchor[0], scale)
        away = numbers - sampled @ mean
        total = away.T @ away + _inverse_by_cholesky(hessian).sum(dim=0) + prior_scatter
        covariance = total / (len(labels) + 1) + _JITTER * identity

    # The curves of all labels.
    curves = []
    converged = True
    is_all = len(labels) == rows.num_labels
    for block in rows.label_blocks():
        middle = covariates[block] @ mean
        start = numbers[block] if is_all else middle
        modes, done = _posterior_modes(rows.select_labels(block), start, middle, covariance)
        curves.append(modes)
        converged = converged and done
    return PooledCurves(torch.cat(curves), mean, covariance, design_effect, converged)


def _common_curve(rows: LabelRows, labels: Tensor) -> tuple[float, Tensor]:
    """Return one slope for all labels, the unit of the scores, and one curve for all labels ``(1, 3)``."""
    unit = _common_slope(rows, labels)
    anchor = float64_tensor([[unit, unit, 0.0]])
    ridge = (float64_tensor(_COMMON_RIDGE) / float64_tensor([unit, unit, 1.0]).square()).diag()
    pooled = _merge_labels(rows.select_labels(labels))
    common, *_ = maximize_posteriors(pooled, anchor, anchor, ridge[None])
    return unit, common


def _pooled_mean(
    covariates: Tensor, numbers: Tensor, precision: Tensor, anchor: Tensor, scale: Tensor
) -> Tensor:
    """Return the mean of the distribution and its slope in the mean score, ``(2, 3)``, with weak priors."""
    inner = covariates.T @ covariates + float64_tensor([0.0, _COVARIATE_RIDGE]).diag()
    # With few labels, the prior shrinks the mean to one common temperature.
    pull = (scale * float64_tensor(_MEAN_SPREAD)).square().reciprocal().diag()
    first = float64_tensor([1.0, 0.0])
    system = torch.kron(inner, precision.contiguous()) + torch.kron(first.diag(), pull)
    right = covariates.T @ numbers @ precision + torch.outer(first, pull @ anchor)
    return torch.linalg.solve(system, right.flatten()).view(2, 3)


def _label_covariates(rows: LabelRows) -> Tensor:
    """Return covariates of the labels ``(L, 2)``: 1, and the standardized mean score (0 for labels without rows)."""
    total = rows.weights.sum(dim=1)
    sums = [
        (rows.scores[block].double() * rows.label_weights(block)).sum(dim=1)
        for block in rows.label_blocks()
    ]
    mean = torch.cat(sums) / total.clamp(min=1e-300)
    has_rows = (total > 0).expand_as(mean)
    centered = torch.where(has_rows, mean - mean[has_rows].mean(), 0.0)
    deviation = centered[has_rows].square().mean().sqrt()
    return torch.stack([torch.ones_like(mean), centered / deviation.clamp(min=1e-12)], dim=1)


def _sample_labels(covariate: Tensor, num_rows: int) -> Tensor:
    """Return the indices of the labels that the distribution is estimated on, a systematic sample if there are many."""
    count = len(covariate)
    most = max(_MIN_SAMPLED_LABELS, _MAX_LABEL_ROWS // num_rows)
    if count <= most:
        return torch.arange(count, device="cpu")
    order = covariate.argsort(stable=True)
    return order[(torch.arange(most, device="cpu") * count) // most].sort().values


def _merge_labels(data: Rows) -> Rows:
    """Return the rows of all labels merged into one label."""
    features, target, weights = data
    return features.movedim(0, 1).flatten(1)[None], target.flatten()[None], weights.flatten()[None]


def _common_slope(rows: LabelRows, labels: Tensor) -> float:
    """Return the slope of all scores with the highest likelihood, at least 1e-3: an inverse temperature."""
    _, target, weights = rows.select_labels(labels)
    scores = rows.scores[labels].double().flatten()
    one = ones(1, 1)
    data = (scores.view(1, 1, -1), target.flatten()[None], weights.flatten()[None])
    slope, *_ = maximize_posteriors(data, one, one, _SLOPE_RIDGE * one[None])
    return max(float(slope), 1e-3)


def _posterior_modes(
    data: Rows, start: Tensor, mean: Tensor, covariance: Tensor
) -> tuple[Tensor, bool]:
    """Return the posterior mode of each label, constrained to rising curves, and whether all fits converged."""
    precision = _inverse_by_cholesky(covariance).expand(len(mean), -1, -1)
    numbers, *_, converged = maximize_posteriors(data, start, mean, precision)
    decreasing = (_decreasing_share(data, numbers) > _MAX_FALLING_SHARE).nonzero().squeeze(1)
    if not len(decreasing):
        return numbers, converged
    # The problem is convex: the constrained mode is the best one with a, b or both fixed at 0 and none negative.
    features, target, weights = (each[decreasing] for each in data)
    subset = (features, target, weights)
    prior = (mean[decreasing], precision[decreasing])
    best = torch.full((len(decreasing),), torch.inf, dtype=torch.float64, device="cpu")
    for mask in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, 1.0)):
        free = float64_tensor(mask)
        candidate, *_, done = maximize_posteriors(subset, prior[0] * free, *prior, is_free=free)
        value, *_ = _negative_log_posterior(
            _negative_log_likelihood(subset, candidate), candidate, *prior
        )
        better = (candidate[:, :2] >= 0).all(dim=1) & (value < best)
        best[better] = value[better]
        numbers[decreasing[better]] = candidate[better]
        converged = converged and done
    return numbers, converged


def _decreasing_share(data: Rows, numbers: Tensor) -> Tensor:
    """Return the weighted share of each label's rows where its curve falls, ``(l,)``."""
    features, _, weights = data
    probs = features[:, 0].exp()
    a, b, _ = numbers.unsqueeze(2).unbind(dim=1)
    falling = (a * (1 - probs) + b * probs < 0).double()
    return (falling * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-300)


def maximize_posteriors(
    data: Rows,
    start: Tensor,
    mean: Tensor,
    precision: Tensor,
    max_steps: int = _MAX_STEPS,
    *,
    is_free: Tensor | None = None,
    point: Derivatives | None = None,
) -> tuple[Tensor, Tensor, Derivatives, bool]:
    """Return posterior modes ``(l, F)``, Hessians, likelihood derivatives and convergence, by damped Newton steps.

    Args:
        data: Features, labels and weights.
        start: ``(l, F)``.
        mean: Prior mean ``(l, F)``.
        precision: Prior precision ``(l, F, F)``.
        max_steps: Most steps.
        is_free: 1 for free coefficients, 0 for fixed ones ``(F,)``; None: all are free.
        point: Derivatives of the likelihood at the start, if known.
    """
    fixed = zeros(start.shape[1]) if is_free is None else 1 - is_free
    numbers = start
    point = _negative_log_likelihood(data, numbers) if point is None else point
    value, slope, hessian = _negative_log_posterior(point, numbers, mean, precision)
    size = ones(len(start))
    converged = False
    for _ in range(max_steps):
        # Fixed coefficients have gradient 0 and an identity block in the Hessian.
        free_hessian = hessian * (1 - fixed[:, None]) * (1 - fixed) + fixed.diag()
        step = torch.linalg.solve(free_hessian, (slope * (1 - fixed)).unsqueeze(-1)).squeeze(-1)
        decrement = (step * slope).sum(dim=1)
        converged = bool((decrement <= _MIN_DECREMENT * (1 + value.abs())).all())
        if converged:
            break
        candidate = numbers - size.unsqueeze(1) * step
        after = _negative_log_likelihood(data, candidate)
        # A label whose objective rises keeps its point and halves its step size.
        improved = (
            _negative_log_posterior(after, candidate, mean, precision)[0]
            <= value + 1e-12 * value.abs()
        )
        size = torch.where(improved, 1.0, size / 2)
        numbers = torch.where(improved[:, None], candidate, numbers)
        point = (
            torch.where(improved, after[0], point[0]),
            torch.where(improved[:, None], after[1], point[1]),
            torch.where(improved[:, None, None], after[2], point[2]),
        )
        value, slope, hessian = _negative_log_posterior(point, numbers, mean, precision)
    return numbers, hessian, point, converged


def _negative_log_likelihood(data: Rows, numbers: Tensor) -> Derivatives:
    """Return value, gradient and Hessian of the negative log-likelihood of each label."""
    features, target, weights = data
    scores = (numbers.unsqueeze(1) @ features).squeeze(1)
    # softplus does not overflow for large scores, and keeps the digits of small losses.
    value = ((softplus(scores) - target * scores) * weights).sum(dim=1)
    probs = scores.sigmoid_()
    error = (probs - target) * weights
    weighted = features * (probs * (1 - probs) * weights).unsqueeze(1)
    return value, (features @ error.unsqueeze(-1)).squeeze(-1), weighted @ features.mT


def _negative_log_posterior(
    derivatives: Derivatives, numbers: Tensor, mean: Tensor, precision: Tensor
) -> Derivatives:
    """Return value, gradient and Hessian of the negative log-posterior of each label."""
    value, slope, hessian = derivatives
    away = numbers - mean
    pulled = (precision @ away.unsqueeze(-1)).squeeze(-1)
    return value + 0.5 * (away * pulled).sum(dim=1), slope + pulled, hessian + precision


def _design_effect(data: Rows, common: Tensor, clusters: Tensor) -> float:
    """Return the design effect: variance of the score over clusters relative to independent rows, at least 1."""
    features, target, weights = data
    probs = (common @ features).squeeze(1).sigmoid()
    scores = features * (probs - target).unsqueeze(1)
    curvature = (features * (probs * (1 - probs) * weights).unsqueeze(1)) @ features.mT
    inverse = torch.linalg.pinv(curvature, hermitian=True)
    weighted = scores * weights.unsqueeze(1)
    code = torch.unique(clusters, return_inverse=True)[1]
    sums = zeros(*scores.shape[:2], int(code.max()) + 1).index_add_(2, code, weighted)
    of_rows = (inverse * (weighted @ scores.mT)).sum()
    of_clusters = (inverse * (sums @ sums.mT)).sum()
    return max(1.0, float(of_clusters / of_rows))


def _inverse_by_cholesky(matrix: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
