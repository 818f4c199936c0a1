"""One-vs-rest calibration: log-odds of classes, step functions that can be exported, and logistic regression."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fedlas.calibrators._fit.buffers import ones, zeros
from fedlas.calibrators._fit.minimize import minimize
from fedlas.calibrators._fit.rowwise import column_moments, iter_float64_rows
from fedlas.predictions.tensors import log_softmax, softmax

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

RIDGE = 0.01
"""Weight of the penalty on every parameter, divided by the number of samples: see :class:`OneVsRestLogistic`."""

_MAX_CACHED = 2**23
"""Most features that are kept between passes: 64 MiB."""

# Stands for log 0 if there is a single class, and thus no rest.
_LOG_ZERO = -1e30


def class_rest_log_probs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log p_k`` and ``log(1 - p_k)`` for ``p = softmax(z)``, both finite.

    The rest of the predicted class is summed from the others, because ``1 - p_k`` cancels where ``p_k`` is near 1.

    Args:
        logits: Float64 ``(n, C)``.

    Returns:
        Two float64 tensors ``(n, C)``, finite.

    Example:
        >>> log_p, rest = class_rest_log_probs(torch.tensor([[50.0, 0.0]], dtype=torch.float64))
        >>> log_p[0].tolist(), [f"{float(value):.3g}" for value in rest[0]]
        ([0.0, -50.0], ['-50', '-1.93e-22'])
    """
    log_probs = log_softmax(logits)
    top = logits.argmax(dim=1, keepdim=True)
    rest = torch.log1p(-log_probs.exp().scatter(1, top, 0.0))
    others = log_probs.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    return log_probs, rest.scatter(1, top, others.clamp(min=_LOG_ZERO))


def log_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of each class against the rest, ``log p_k - log(1 - p_k)``, float64 ``(n, C)``."""
    log_p, rest = class_rest_log_probs(logits)
    return log_p - rest


def class_prob_columns(logits: Tensor) -> Tensor:
    """Return the probabilities of each class as rows, float64 ``(C, N)`` on the CPU, from ``logits (N, C)``."""
    columns = zeros(logits.shape[1], logits.shape[0])
    for part, rows in iter_float64_rows(logits):
        columns[:, part] = softmax(rows).T
    return columns


def find_separated_classes(val: Predictions) -> list[int]:
    """Return the classes whose samples all have a higher probability of the class than any other sample."""
    lowest = torch.full((val.num_classes,), torch.inf, dtype=torch.float64, device="cpu")
    highest = -lowest
    target = val.tensors().target
    classes = torch.arange(val.num_classes, device="cpu")
    for part, rows in iter_float64_rows(val.tensors().logits):
        of_class = target[part].unsqueeze(1) == classes
        scores = log_odds(rows)
        lowest = torch.minimum(lowest, scores.masked_fill(~of_class, torch.inf).amin(dim=0))
        highest = torch.maximum(highest, scores.masked_fill(of_class, -torch.inf).amax(dim=0))
    return (
        ((lowest > highest) & lowest.isfinite() & highest.isfinite()).nonzero().squeeze(1).tolist()
    )


def log_with_floor(probs: Tensor, floor: Tensor | float) -> Tensor:
    """Return ``log max(probs, floor)``, finite logits whose softmax is the normalized probabilities."""
    return probs.clamp(min=floor).log()


def pad_columns(numbers: Tensor, sizes: Tensor, fill: float | None = None) -> Tensor:
    """Return the numbers of each class as a column, padded with ``fill`` or the last number of the class."""
    place = torch.arange(int(sizes.max()), device=sizes.device).unsqueeze(1)
    columns = numbers[sizes.cumsum(0) - sizes + torch.minimum(place, sizes - 1)]
    return columns if fill is None else columns.where(place < sizes, fill)


def pad_edges(edges: Tensor) -> Tensor:
    """Return ascending edges ``(B, C)`` padded with infinity to ``(2^k - 1, C)``, for :func:`count_edges_below`."""
    count = 2 ** len(edges).bit_length() - 1
    return torch.cat([edges, edges.new_full((count - len(edges), edges.shape[1]), torch.inf)])


def count_edges_below(edges: Tensor, values: Tensor) -> Tensor:
    """Return the number of edges of the column below each value, int64 ``(n, C)``, by binary search.

    In operations that every exporter knows; ``searchsorted`` is not among those of ONNX.

    Args:
        edges: What :func:`pad_edges` returned.
        values: ``(n, C)``.

    Example:
        >>> edges = pad_edges(torch.tensor([[0.2], [0.5]]))
        >>> count_edges_below(edges, torch.tensor([[0.1], [0.2], [0.3], [0.9]])).flatten().tolist()
        [0, 0, 1, 2]
    """
    below = torch.zeros_like(values, dtype=torch.int64)
    step = (len(edges) + 1) // 2
    while step:
        below = below + step * (edges.gather(0, below + (step - 1)) < values).to(torch.int64)
        step //= 2
    return below


class OneVsRestLogistic:
    """Ridge-penalized logistic regressions, one per class, as a convex problem: ``sum_f a_kf x_ikf + c_k``.

    The objective is the logistic loss, averaged over samples and summed over classes. Features are standardized, and
    the squared parameters have a penalty of ``0.005/N``: a prior with the weight of one observation and a standard
    deviation of ten. Without a penalty there is no minimum if a class is separable from the rest or has no sample.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``; None: 1 each; or of several problems ``(..., N)``.
        features: Maps float64 logits ``(n, C)`` to features ``(n, C, F)``.
        classes: Indices of the classes to fit ``(K,)``.
        positive: Target of samples of the class ``(K,)``: 1, or a little less.
        negative: Target of other samples ``(K,)``: 0, or a little more.
        is_free: Mask of the factors that are fitted ``(F,)``; the others are 0.
        ridge: Ridge of each parameter ``(F + 1,)``, divided by ``N``; None: :data:`RIDGE`.
        anchor: Parameters of unscaled features ``(F + 1,)`` that the ridge shrinks to; None: 0.
    """

    def __init__(
        self,
        logits: Tensor,
        target: Tensor,
        weights: Tensor | None = None,
        *,
        features: Callable[[Tensor], Tensor],
        classes: Tensor,
        positive: Tensor,
        negative: Tensor,
        is_free: Tensor,
        ridge: Tensor | None = None,
        anchor: Tensor | None = None,
    ) -> None:
        self._logits = logits
        self._target = target.cpu()
        self._features = lambda rows: features(rows)[:, classes].flatten(1)
        self._classes = classes
        self._positive = positive
        self._negative = negative
        self._weights = ones(len(logits)) if weights is None else weights
        self._samples = self._weights.sum(dim=-1)[..., None, None]
        shape = (len(classes), len(is_free))
        self._shape = (len(classes), len(is_free) + 1)
        is_small = self._weights.numel() * self._shape[0] * self._shape[1] <= _MAX_CACHED
        rows = (
            torch.cat([self._features(each) for _, each in iter_float64_rows(logits)])
            if is_small
            else None
        )
        moments = (
            column_moments(logits, self._weights, self._features)
            if rows is None
            else column_moments(rows, self._weights)
        )
        self._mean, self._deviation = (each.unflatten(-1, shape) for each in moments)
        self._free = is_free.double()
        zero = zeros(self._shape)
        self._hold = zero[0] + RIDGE if ridge is None else ridge
        self.start = self.to_standard(zero if anchor is None else anchor.expand(self._shape))
        self._hessian = self._factor = torch.empty(0)  # until the first evaluation
        self._kept = None if rows is None else list(self._iter_columns(iter_float64_rows(rows)))

    def to_parameters(self, point: Tensor) -> Tensor:
        """Return factors and offsets of unscaled features ``(..., K, F + 1)``, from standardized parameters."""
        standard = point.unflatten(-1, self._shape)
        factors = standard[..., :-1] * self._free / self._deviation
        offset = standard[..., -1:] - (factors * self._mean).sum(dim=-1, keepdim=True)
        return torch.cat([factors, offset], dim=-1)

    def to_standard(self, parameters: Tensor) -> Tensor:
        """Return the point (parameters of standardized features) for parameters of unscaled features ``(K, F + 1)``."""
        factors = parameters[..., :-1]
        offset = parameters[..., -1:] + (factors * self._mean).sum(dim=-1, keepdim=True)
        return torch.cat([factors * self._deviation, offset], dim=-1).flatten(-2)

    def class_objectives(self, point: Tensor) -> Tensor:
        """Return the objective of each class at ``point``, ``(K,)``."""
        self.evaluate(point)
        # A factor fixed at 0 pays the ridge for its distance to the anchor; its entry in the point holds the anchor.
        fixed = self.start.view(self._shape)[:, :-1] * (1 - self._free)
        fixed_penalty = (
            0.5 * (self._hold[:-1] * fixed.square()).sum(dim=1) / self._samples.flatten()
        )
        return self._values + fixed_penalty

    def evaluate(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value and gradient at ``point``; also compute the Hessian."""
        parameters = point.unflatten(-1, self._shape)
        values = zeros(parameters.shape[:-1])
        slope = torch.zeros_like(parameters)
        hessian = parameters.new_zeros(*parameters.shape, self._shape[1])
        for design, label, weights in self._kept or self._iter_columns(self._iter_features()):
            scores = (parameters.unsqueeze(-2) @ design).squeeze(-2)
            # softplus does not overflow for large scores, and keeps the digits of small losses.
            values += ((softplus(scores) - label * scores) * weights).sum(dim=-1)
            probs = scores.sigmoid()
            error = (probs - label) * weights
            slope += (design @ error.unsqueeze(-1)).squeeze(-1)
            weighted = design * (probs * (1 - probs) * weights).unsqueeze(-2)
            hessian += weighted @ design.mT
        ridge = self._hold / self._samples
        away = (point - self.start).unflatten(-1, self._shape)
        self._hessian = hessian / self._samples.unsqueeze(-1) + ridge.diag_embed()
        self._factor = torch.linalg.cholesky(self._hessian)
        self._values = values / self._samples[..., 0] + 0.5 * (ridge * away.square()).sum(dim=-1)
        return self._values.sum(dim=-1), (slope / self._samples + ridge * away).flatten(-2)

    def curvature(self, direction: Tensor) -> Tensor:
        """Return the Hessian times ``direction``."""
        return (self._hessian @ direction.unflatten(-1, (*self._shape, 1))).flatten(-3)

    def precondition(self, vector: Tensor) -> Tensor:
        """Return the inverse Hessian times ``vector``; exact, since the Hessian has one small block per class."""
        blocks = vector.unflatten(-1, (*self._shape, 1))
        return torch.cholesky_solve(blocks, self._factor).flatten(-3)

    def _iter_features(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield chunks of rows and their features ``(n, K F)``."""
        for part, rows in iter_float64_rows(self._logits):
            yield part, self._features(rows)

    def _iter_columns(
        self, rows: Iterable[tuple[slice, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield standardized features and ones ``(..., K, F + 1, n)``, labels ``(K, n)``, weights ``(..., 1, n)``."""
        for part, features in rows:
            columns = features.unflatten(1, self._mean.shape[-2:]).movedim(0, -1)
            standard = (columns - self._mean.unsqueeze(-1)) / self._deviation.unsqueeze(-1)
            standard = standard * self._free.unsqueeze(-1)
            of_class = self._target[part] == self._classes.unsqueeze(1)
            yield (
                torch.cat([standard, torch.ones_like(standard[..., :1, :])], dim=-2).contiguous(),
                torch.where(of_class, self._positive.unsqueeze(1), self._negative.unsqueeze(1)),
                self._weights[..., None, part],
            )


def fit_one_vs_rest(
    logits: Tensor,
    target: Tensor,
    features: Callable[[Tensor], Tensor],
    weights: Tensor | None = None,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    nonnegative: bool = False,
    ridge: Tensor | None = None,
    anchor: Tensor | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, bool]:
    """Fit a logistic regression per class; return factors and offsets, and whether the fit converged.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        features: From float64 logits ``(n, C)`` to ``(n, C, F)``.
        weights: ``(N,)``; None: 1 each; or ``(M, N)`` of several fits.
        labels: Targets of samples of the class and of other samples, both ``(C,)``; None: 1 and 0.
        nonnegative: Whether factors below 0 are excluded. The minimum under that constraint is the lowest of the minima
            with some factors fixed at 0 that satisfy it, since the problem is convex; for two features there are three.
        ridge: See :class:`OneVsRestLogistic`.
        anchor: See :class:`OneVsRestLogistic`.
        start: Parameters ``(C, F + 1)`` of a fit to more samples, as a warm start; the tolerance is then looser.

    Returns:
        Float64 ``(C, F + 1)``, or of each fit, and a bool.
    """
    classes = torch.arange(logits.shape[1], device="cpu")
    one = ones(len(classes))
    positive, negative = labels or (one, 0 * one)
    count = features(logits[:1].cpu().double()).shape[2]

    def fit(which: Tensor, free: tuple[bool, ...]) -> tuple[Tensor, Tensor, bool]:
        problem = OneVsRestLogistic(
            logits,
            target,
            weights,
            features=features,
            classes=which,
            positive=positive[which],
            negative=negative[which],
            is_free=torch.tensor(free, device="cpu"),
            ridge=ridge,
            anchor=anchor,
        )
        first = problem.start if start is None else problem.to_standard(start[which])
        minimum = minimize(problem, first, tolerance=1e-8 if start is None else 1e-3)
        values = problem.class_objectives(minimum.point) if nonnegative else minimum.point
        return problem.to_parameters(minimum.point), values, bool(minimum.converged.all())

    # The first fit is unconstrained; only classes that violate the constraint are fitted again.
    parameters, _, converged = fit(classes, (True,) * count)
    if not nonnegative:
        return parameters, converged
    violating = classes[(parameters[:, :-1] < 0).any(dim=1)]
    if len(violating) == 0:
        return parameters, converged

    # Constrained minimum of the violating classes: the best of the fits with some factors fixed at 0.
    best = torch.full_like(one[violating], torch.inf)
    for free in itertools.product((True, False), repeat=count):
        if all(free):
            continue
        candidate, objective, done = fit(violating, free)
        converged = converged and done
        better = (candidate[:, :-1] >= 0).all(dim=1) & (objective < best)
        best[better] = objective[better]
        parameters[violating[better]] = candidate[better]
    return parameters, converged
