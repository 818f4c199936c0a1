"""Logistic regression of each class against the rest, for all classes at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fedlas.calibrators._fit.newton import minimize
from fedlas.calibrators._fit.rowwise import column_moments, double_rows

HOLD = 0.01
"""Weight of the penalty on every parameter, divided by the number of samples: see :class:`OneVsRestLogistic`."""


_KEPT = 2**23
"""Most features that are kept between passes: 64 MiB."""


class OneVsRestLogistic:
    """Mean over samples and sum over classes of the logistic loss of ``sum_f a_kf x_ikf + c_k``: a convex problem.

    The features are standardized first, and the parameters of these (float64) have a ridge penalty of ``0.005/N`` times
    their square: the weight of one observation that expects them to be about ten or less. Without it there is no
    minimum where a class can be separated from the rest or has no sample.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``; None: 1 each.
        features: From float64 logits ``(n, C)`` to ``(n, C, F)``.
        classes: Numbers of the classes to fit ``(K,)``.
        positive: Label of the samples of each class ``(K,)``: 1, or a little less.
        negative: Label of the others ``(K,)``: 0, or a little more.
        free: Which factors are fitted ``(F,)`` bool; the others are 0.
        hold: Ridge of each parameter ``(F + 1,)``, divided by ``N``; None: :data:`HOLD`.
        anchor: Values of the parameters of unscaled features ``(F + 1,)`` that the ridge pulls to; None: 0.
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
        free: Tensor,
        hold: Tensor | None = None,
        anchor: Tensor | None = None,
    ) -> None:
        self._logits, self._target, self._features = logits, target.cpu(), features
        self._classes, self._positive, self._negative = classes, positive, negative
        self._weights = torch.ones(len(logits), dtype=torch.float64, device="cpu") if weights is None else weights
        self._samples = float(self._weights.sum())
        self._mean, self._deviation = column_moments(logits, lambda rows: features(rows)[:, classes], self._weights)
        self._free = free.double()
        self._shape = (len(classes), len(free) + 1)
        self._hold = torch.full((self._shape[1],), HOLD, dtype=torch.float64, device="cpu") if hold is None else hold
        self._anchor = torch.zeros(self._shape, dtype=torch.float64, device="cpu")
        if anchor is not None:
            self._anchor = self.to_standard(anchor.expand(self._shape)).view(self._shape)
        self._hessian = self._factor = torch.empty(0)  # until the first evaluation
        self._kept: list[tuple[Tensor, Tensor, Tensor]] | None = None

    @property
    def start(self) -> Tensor:
        """The anchor: all parameters 0, if nothing else was chosen."""
        return self._anchor.flatten()

    def to_parameters(self, point: Tensor) -> Tensor:
        """Factors and offset of the unscaled features, ``(K, F + 1)``, from those of the standardized ones."""
        standard = point.view(self._shape)
        factors = standard[:, :-1] * self._free / self._deviation
        offset = standard[:, -1:] - (factors * self._mean).sum(dim=1, keepdim=True)
        return torch.cat([factors, offset], dim=1)

    def to_standard(self, parameters: Tensor) -> Tensor:
        """The point of factors and offset of the unscaled features ``(K, F + 1)``."""
        factors = parameters[:, :-1]
        offset = parameters[:, -1:] + (factors * self._mean).sum(dim=1, keepdim=True)
        return torch.cat([factors * self._deviation, offset], dim=1).flatten()

    def objectives(self, point: Tensor) -> Tensor:
        """The contribution of each class to the value at ``point``, ``(K,)``."""
        parameters = point.view(self._shape)
        total = 0.5 * (self._hold * (parameters - self._anchor).square()).sum(dim=1)
        for design, label, weights in self._rows():
            scores = (design * parameters).sum(dim=2)
            total += weights @ (softplus(scores) - label * scores)
        return total / self._samples

    def evaluate(self, point: Tensor) -> tuple[float, Tensor]:
        """Value and gradient."""
        parameters = point.view(self._shape)
        samples = self._samples
        value = 0.0
        slope = torch.zeros_like(parameters)
        hessian = parameters.new_zeros(*self._shape, self._shape[1])
        for design, label, weights in self._rows():
            scores = (design * parameters).sum(dim=2)
            # softplus does not overflow for large scores, and keeps the digits of small losses.
            value += float(weights @ (softplus(scores) - label * scores).sum(dim=1))
            probs = scores.sigmoid()
            slope += ((probs - label).mul(weights.unsqueeze(1)).unsqueeze(2) * design).sum(dim=0)
            weighted = (probs * (1 - probs) * weights.unsqueeze(1)).unsqueeze(2) * design
            # A product of matrices for each class: all at once would take an array (n, K, F + 1, F + 1).
            hessian += torch.bmm(weighted.permute(1, 2, 0), design.transpose(0, 1))
        ridge, away = self._hold / samples, parameters - self._anchor
        self._hessian = hessian / samples + ridge.diag()
        self._factor = torch.linalg.cholesky(self._hessian)
        value = value / samples + 0.5 * float((ridge * away.square()).sum())
        return value, (slope / samples + ridge * away).flatten()

    def curvature(self, direction: Tensor) -> Tensor:
        """The Hessian times ``direction``."""
        return (self._hessian @ direction.view(*self._shape, 1)).flatten()

    def precondition(self, vector: Tensor) -> Tensor:
        """The inverse Hessian times ``vector``; the Hessian has a small block for each class."""
        return torch.cholesky_solve(vector.view(*self._shape, 1), self._factor).flatten()

    def _rows(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Standardized features with a column of ones ``(n, C, F + 1)``, labels ``(n, C)`` and weights ``(n,)``."""
        if self._logits.shape[0] * self._shape[0] * self._shape[1] > _KEPT:
            return self._computed()
        self._kept = self._kept or list(self._computed())
        return self._kept

    def _computed(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for part, rows in double_rows(self._logits):
            standard = (self._features(rows)[:, self._classes] - self._mean) / self._deviation * self._free
            own = self._target[part].unsqueeze(1) == self._classes
            yield (
                torch.cat([standard, torch.ones_like(standard[..., :1])], dim=2),
                torch.where(own, self._positive, self._negative),
                self._weights[part],
            )


def fit_one_vs_rest(
    logits: Tensor,
    target: Tensor,
    features: Callable[[Tensor], Tensor],
    weights: Tensor | None = None,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    nonnegative: bool = False,
    hold: Tensor | None = None,
    anchor: Tensor | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, bool]:
    """Factors and offset of each class, and whether the fit converged.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)``.
        features: From float64 logits ``(n, C)`` to ``(n, C, F)``.
        weights: ``(N,)``; None: 1 each.
        labels: Label of the samples of each class, and of the others, both ``(C,)``; None: 1 and 0.
        nonnegative: Whether factors below 0 are excluded. The minimum under that constraint is the lowest of the minima
            with some factors fixed at 0 that satisfy it, since the problem is convex; for two features there are three.
        hold: See :class:`OneVsRestLogistic`.
        anchor: See :class:`OneVsRestLogistic`.
        start: Parameters ``(C, F + 1)`` of a fit to more samples, to start from; the fit then ends at fewer digits.

    Returns:
        Float64 ``(C, F + 1)``, and a bool.
    """
    classes = torch.arange(logits.shape[1], device="cpu")
    one = torch.ones(len(classes), dtype=torch.float64, device="cpu")
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
            free=torch.tensor(free, device="cpu"),
            hold=hold,
            anchor=anchor,
        )
        first = problem.start if start is None else problem.to_standard(start[which])
        minimum = minimize(problem, first, tolerance=1e-8 if start is None else 1e-3)
        values = problem.objectives(minimum.point) if nonnegative else minimum.point
        return problem.to_parameters(minimum.point), values, minimum.converged

    # The first fit has no constraint: classes that satisfy it anyway need no other.
    parameters, _, converged = fit(classes, (True,) * count)
    violating = classes[(parameters[:, :-1] < 0).any(dim=1)]
    if not nonnegative or len(violating) == 0:
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
