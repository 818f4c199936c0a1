"""The last map of the prototype, whose ridges are estimated from held-out rows, and the share of absent classes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
HYPER = (0.5, 0.01)
"""Of a variance ``v``: as if ``2 h_0`` numbers with the sum of squares ``2 h_1`` had been seen."""
ROUNDS = 5
MOST_DENSE = 128
"""Most classes of a full Hessian; beyond, its diagonal blocks are an upper bound that is iterated."""
LEAST_LOG = -20.0
DIAGONAL_STEPS = 2


def log_softmax(z: Array) -> Array:
    """Return log-probabilities of rows."""
    z = z - z.max(axis=1, keepdims=True)
    result: Array = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return result


def softplus(x: Array) -> Array:
    """Return ``log(1 + e^x)``."""
    result: Array = np.logaddexp(0.0, x)
    return result


def top_terms(log_p: Array, knots: Array) -> tuple[Array, Array]:
    """Return the top label and terms of its log-odds: 1, and a bend at each knot, ``(n, 1 + K)``."""
    top = log_p.argmax(axis=1)
    odds = top_odds(log_p, top)
    return top, np.stack(
        [np.ones_like(odds), *(np.logaddexp(0, odds - knot) for knot in knots)], axis=1
    )


def top_odds(log_p: Array, top: Array) -> Array:
    """Return the log-odds of the top label, within 30."""
    p = np.exp(log_p)
    rows = np.arange(len(p))
    high = log_p[rows, top]
    p[rows, top] = 0
    odds = high - np.log(p.sum(axis=1).clip(min=1e-30))
    return np.asarray(odds.clip(-30, 30), dtype=float)


@dataclass(frozen=True)
class LastMap:
    """``(1 + a + a_k) m_k + b_k + 1[k is the top] h(s)`` of log-probabilities ``m``, normalized.

    Attributes:
        factor: ``a``.
        slopes: ``a_k (C,)``, of ``m_k`` minus ``center``.
        offsets: ``b (C,)``.
        bends: Coefficients of ``h``.
        knots: Where ``h`` bends.
        center: ``(C,)``.
    """

    factor: float
    slopes: Array
    offsets: Array
    bends: Array
    knots: Array
    center: Array

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)``."""
        log_p = log_softmax(log_p)
        scores = (1 + self.factor) * log_p + self.offsets.astype(log_p.dtype)
        if self.slopes.any():
            inputs = np.maximum(log_p, LEAST_LOG) - self.center.astype(log_p.dtype)
            scores += self.slopes.astype(log_p.dtype) * inputs
        if len(self.bends):
            top, terms = top_terms(log_p, self.knots)
            scores[np.arange(len(scores)), top] += terms @ self.bends
        return log_softmax(scores)


def fit_last_map(
    log_p: Array,
    target: Array,
    weights: Array,
    *,
    slopes: bool = False,
    offsets: bool = True,
    bends: bool = True,
) -> LastMap:
    """Fit the last map to held-out log-probabilities ``(n, C)``.

    Factor, slopes, offsets and bends are normal around 0, each kind with a variance of its own that maximizes the
    evidence (Laplace's approximation; MacKay's fixed point), under a weak prior of that variance.
    """
    problem = _Problem(log_p, target, weights, slopes, offsets, bends)
    theta, group = np.zeros(problem.size), problem.group
    kinds = [kind for kind in range(4) if (group == kind).any()]
    alpha = np.full(4, HYPER[0] / HYPER[1])
    for number in range(ROUNDS):
        theta, spread = problem.improve(theta, alpha[group], 3 if number == 0 else 1)
        for kind in kinds:
            of_kind = group == kind
            free = of_kind.sum() - alpha[kind] * spread[of_kind].sum()
            squares = (theta[of_kind] ** 2).sum()
            alpha[kind] = (free + 2 * HYPER[0]) / (squares + 2 * HYPER[1])
    return problem.to_map(theta)


class _Problem:
    """Penalized likelihood of the coefficients: factor, slopes, offsets, bends."""

    def __init__(
        self, log_p: Array, target: Array, weights: Array, slopes: bool, offsets: bool, bends: bool
    ) -> None:
        self.log_p, self.target, self.weights = log_p, target, weights.astype(log_p.dtype)
        self.classes = classes = log_p.shape[1]
        self.rows = np.arange(len(log_p))
        self.knots, self.scale = np.zeros(0), np.zeros(0)
        self.top, self.terms = log_p.argmax(axis=1), np.zeros((len(log_p), 0))
        if bends:
            odds = top_odds(log_p, self.top)
            order = odds.argsort()
            share = weights[order].cumsum() / weights.sum()
            at = np.searchsorted(share, [0.25, 0.5, 0.75]).clip(max=len(odds) - 1)
            self.knots = np.unique(odds[order][at])
            terms = top_terms(log_p, self.knots)[1]
            mean = weights @ terms / weights.sum()
            self.scale = np.sqrt(weights @ (terms - mean) ** 2 / weights.sum()).clip(min=1e-6)
            self.scale[0] = 1
            self.terms = terms / self.scale
        self.center = np.zeros(classes)
        self.inputs = np.zeros((0, 0))
        if slopes:
            share = np.exp(log_p) * self.weights[:, None]
            floored = np.maximum(log_p, LEAST_LOG)
            self.center = (share * floored).sum(axis=0) / share.sum(axis=0).clip(min=1e-300)
            self.inputs = floored - self.center.astype(log_p.dtype)
        sizes = [1, classes * slopes, classes * offsets, self.terms.shape[1]]
        self.group = np.repeat(np.arange(4), sizes)
        self.size = sum(sizes)
        ends = np.cumsum([0, *sizes])
        self.at = [slice(low, high) for low, high in pairwise(ends)]
        self.has = [bool(each) for each in sizes]

    def to_map(self, theta: Array) -> LastMap:
        """Return the map of coefficients."""
        zero = np.zeros(self.classes)
        slopes, offsets = (theta[self.at[k]] if self.has[k] else zero for k in (1, 2))
        bends = theta[self.at[3]] / self.scale
        return LastMap(float(theta[0]), slopes, offsets, bends, self.knots, self.center)

    def improve(self, theta: Array, penalty: Array, steps: int) -> tuple[Array, Array]:
        """Return coefficients after some steps, and the posterior variances."""
        dense = self.classes <= MOST_DENSE
        spread = penalty
        for _ in range(steps if dense else max(steps, DIAGONAL_STEPS)):
            q, gradient = self._gradient(theta)
            gradient = gradient + penalty * theta
            if dense:
                hessian = self._hessian(q)
                hessian[np.diag_indices(self.size)] += penalty
                inverse = np.linalg.inv(hessian)
                step, spread = inverse @ gradient, inverse.diagonal()
            else:
                step, spread = self._diagonal_step(q, gradient, penalty)
            theta = theta - step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
            if np.abs(step).max() < 1e-3:
                break
        return theta, spread

    def _gradient(self, theta: Array) -> tuple[Array, Array]:
        factor, slopes, offsets, bends = (theta[at] for at in self.at)
        scores = (1 + float(factor[0])) * self.log_p
        if self.has[1]:
            scores += slopes.astype(scores.dtype) * self.inputs
        if self.has[2]:
            scores += offsets.astype(scores.dtype)
        if self.has[3]:
            scores[self.rows, self.top] += self.terms @ bends
        q = np.exp(log_softmax(scores))
        error = q * self.weights[:, None]
        error[self.rows, self.target] -= self.weights
        parts = [np.array([np.vdot(error, self.log_p)])]
        parts += [(error * self.inputs).sum(axis=0)] if self.has[1] else []
        parts += [error.sum(axis=0)] if self.has[2] else []
        parts += [error[self.rows, self.top] @ self.terms]
        return q, np.concatenate(parts)

    def _hessian(self, q: Array) -> Array:
        """Return ``sum_i w_i J_i' (diag q_i - q_i q_i') J_i``, with the Jacobian ``J`` of the scores."""
        weighted = q * self.weights[:, None]
        high = q[self.rows, self.top]
        columns = [(q * self.log_p).sum(axis=1, keepdims=True)]
        columns += [q * self.inputs] if self.has[1] else []
        columns += [q] if self.has[2] else []
        columns += [high[:, None] * self.terms]
        mean = np.concatenate(columns, axis=1)
        result = -(mean * self.weights[:, None]).T @ mean
        place = np.arange(self.classes)
        of_class = {0: self.log_p, 1: self.inputs, 2: None}
        for one in range(3):
            for two in range(one, 3):
                if not (self.has[one] and self.has[two]):
                    continue
                product = weighted
                for each in (of_class[one], of_class[two]):
                    product = product if each is None else product * each
                sums = product.sum(axis=0)
                if one == two == 0:
                    result[0, 0] += sums.sum()
                elif one == 0:
                    result[0, self.at[two]] += sums
                    result[self.at[two], 0] += sums
                else:
                    at = self.at[one].start + place, self.at[two].start + place
                    result[at] += sums
                    if one != two:
                        result[at[::-1]] += sums
        if self.has[3]:
            size = self.weights * high
            bends = self.at[3]
            result[bends, bends] += (self.terms.T * size) @ self.terms
            at_top = [self.log_p[self.rows, self.top]]
            at_top += [
                self.inputs[self.rows, self.top] if self.has[1] else size,
                np.ones_like(size),
            ]
            across = (size * at_top[0]) @ self.terms
            result[0, bends] += across
            result[bends, 0] += across
            for kind in (1, 2):
                if self.has[kind]:
                    block = np.zeros((self.classes, self.terms.shape[1]))
                    np.add.at(block, self.top, (size * at_top[kind])[:, None] * self.terms)
                    result[self.at[kind], bends] += block
                    result[bends, self.at[kind]] += block.T
        return result

    def _diagonal_step(self, q: Array, gradient: Array, penalty: Array) -> tuple[Array, Array]:
        """Return a step by ``diag q``, which bounds the Hessian: each class alone, factor and bends together."""
        weighted = q * self.weights[:, None]
        step, spread = np.zeros(self.size), np.zeros(self.size)
        if self.has[2]:
            total = weighted.sum(axis=0) + penalty[self.at[2]]
            if self.has[1]:
                first = (weighted * self.inputs).sum(axis=0)
                second = (weighted * self.inputs * self.inputs).sum(axis=0) + penalty[self.at[1]]
                both = total * second - first**2
                g1, g2 = gradient[self.at[1]], gradient[self.at[2]]
                step[self.at[1]] = (total * g1 - first * g2) / both
                step[self.at[2]] = (second * g2 - first * g1) / both
                spread[self.at[1]], spread[self.at[2]] = total / both, second / both
            else:
                step[self.at[2]] = gradient[self.at[2]] / total
                spread[self.at[2]] = 1 / total
        # Factor and bends are few: their Hessian is exact.
        high = q[self.rows, self.top]
        mean = (q * self.log_p).sum(axis=1)
        columns = np.concatenate([mean[:, None], high[:, None] * self.terms], axis=1)
        few = np.r_[0, np.arange(self.at[3].start, self.at[3].stop)]
        inner = -(columns * self.weights[:, None]).T @ columns
        inner[0, 0] += np.vdot(weighted * self.log_p, self.log_p)
        size = self.weights * high
        across = (size * self.log_p[self.rows, self.top]) @ self.terms
        inner[0, 1:] += across
        inner[1:, 0] += across
        inner[1:, 1:] += (self.terms.T * size) @ self.terms
        inverse = np.linalg.inv(inner + np.diag(penalty[few]))
        step[few], spread[few] = inverse @ gradient[few], inverse.diagonal()
        # Both blocks move at once, so each goes half way.
        return step / 2, spread


# Classes without a sample.


@dataclass(frozen=True)
class AbsentClasses:
    """Share of classes without a sample: odds of half temperature scaling, half the mixture, times one factor.

    Attributes:
        absent: Mask ``(C,)``.
        scale: Inverse temperature.
        log_factor: At most 0.
    """

    absent: Array
    scale: float
    log_factor: float

    def __call__(self, rows: Array, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)`` for those before any member, and those of the mixture."""
        both, odds = self.odds(rows, log_p)
        total = -softplus(-odds - self.log_factor)
        result = log_softmax(np.where(self.absent, -np.inf, log_p))
        result += np.log1p(-np.exp(total)).clip(min=-50)[:, None]
        result[:, self.absent] = log_softmax(both[:, self.absent]) + total[:, None]
        return result

    def odds(self, rows: Array, log_p: Array) -> tuple[Array, Array]:
        """Return the mean's log-probabilities and the log-odds of all absent classes."""
        both = np.logaddexp(log_softmax(self.scale * rows), log_p) - np.log(2)
        sums = [np.exp(both[:, at]).sum(axis=1).clip(1e-300) for at in (self.absent, ~self.absent)]
        return both, np.log(sums[0]) - np.log(sums[1])


def fit_absent(
    rows: Array, log_p: Array, target: Array, weights: Array, scale: float, size: Array
) -> AbsentClasses | None:
    """Bound the mean share of absent classes by ``max(3 + 2 n_1, min(A, N/100)) / N``; None if none is absent.

    Args:
        rows: Log-probabilities of held-out rows before any member ``(n, C)``.
        log_p: Those of the mixture ``(n, C)``.
        target: Labels of all rows ``(N,)``.
        weights: Of the held-out rows ``(n,)``.
        scale: Inverse temperature.
        size: Weights of all rows ``(N,)``.
    """
    counts = np.bincount(target, minlength=log_p.shape[1])
    absent = counts == 0
    if not absent.any():
        return None
    total = size.sum()
    bound = max(3 + 2 * (counts == 1).sum(), min(absent.sum(), total / 100)) / total
    odds = AbsentClasses(absent, scale, 0.0).odds(rows, log_p)[1]
    low, high = -60.0, 0.0
    share = weights / weights.sum()
    if share @ np.exp(-softplus(-odds)) <= bound:
        low = high
    for _ in range(40):
        middle = (low + high) / 2
        fits = share @ np.exp(-softplus(-odds - middle)) <= bound
        low, high = (middle, high) if fits else (low, middle)
    return AbsentClasses(absent, scale, low)
