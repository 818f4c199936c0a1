"""A simpler ``auto`` in numpy, a prototype that is not in the package: results/auto/design.md has its formulas.

Members are fitted with all folds at once; curves on a grid of log-odds, so that a fold costs as much as a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
QUANTILES = (0.15, 0.5, 0.85)
"""Quantiles of the labels' log-odds where curves bend."""
WIDTH = 0.25
"""Width of a bend, in standard deviations of the labels' log-odds."""
STEP, REACH = 0.125, 12.0
"""Spacing of the grid of log-odds, and how far it is even; it widens by a tenth a point beyond."""
ROUNDS = 8


def softplus(x: Array) -> Array:
    """Return ``log(1 + e^x)``."""
    result: Array = np.logaddexp(0.0, x)
    return result


def log_softmax(z: Array) -> Array:
    """Return log-probabilities of rows."""
    z = z - z.max(axis=1, keepdims=True)
    result: Array = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return result


def log_odds(log_p: Array) -> Array:
    """Return ``log p - log(1 - p)`` of each class, by the other classes' sum where ``p`` is near 1."""
    p = np.exp(log_p)
    rest = -np.expm1(np.minimum(log_p, -1e-16))
    top = p.argmax(axis=1)
    rows = np.arange(len(p))
    others = p.sum(axis=1) - p[rows, top]
    rest[rows, top] = np.where(p[rows, top] > 0.5, np.maximum(others, 1e-300), rest[rows, top])
    result: Array = log_p - np.log(np.maximum(rest, 1e-300))
    return result


# Curves.


@dataclass(frozen=True)
class Curves:
    """Values of each class's curve on a grid of log-odds.

    Attributes:
        grid: Log-odds ``(G,)``.
        values: Calibrated log-odds ``(C, G)``.
    """

    grid: Array
    values: Array

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)``: sigmoids of the curves, divided by their sum."""
        odds = log_odds(log_p)
        left, part = place(self.grid, odds)
        column = np.arange(odds.shape[1])
        curve = self.values[column, left] * (1 - part) + self.values[column, left + 1] * part
        # Beyond the ends the curve goes on straight.
        return log_softmax(-softplus(-curve))


def place(grid: Array, odds: Array) -> tuple[Array, Array]:
    """Return the index of the grid point to the left, and the share of the one to the right."""
    left = np.clip(np.searchsorted(grid, odds) - 1, 0, len(grid) - 2)
    part = (odds - grid[left]) / (grid[left + 1] - grid[left])
    return left, part


def make_grid(low: float, high: float) -> Array:
    """Return grid points that are even up to ``REACH`` and wider beyond."""
    even = np.arange(-REACH, REACH + STEP / 2, STEP)
    wide = REACH + np.cumsum(STEP * 1.1 ** np.arange(1, 80))
    grid = np.concatenate([-wide[::-1], even, wide])
    first, last = np.searchsorted(grid, low) - 1, np.searchsorted(grid, high) + 1
    return np.asarray(grid[max(first, 0) : last + 1])


def weighted_quantiles(values: Array, weights: Array, at: Array) -> Array:
    """Return quantiles of weighted values."""
    order = values.argsort()
    share = weights[order].cumsum() / weights.sum()
    index = np.searchsorted(share, at).clip(max=len(values) - 1)
    return np.asarray(values[order][index])


def fit_curves(
    log_p: Array,
    target: Array,
    weights: Array,
    folds: Array,
    count: int,
    quantiles: tuple[float, ...] = QUANTILES,
) -> list[Curves]:
    """Return pooled curves of all rows, then of the rows outside each fold.

    The log-odds of class k become ``B(s) theta_k``, ``theta_k ~ N(mu, S)``, with mu and S estimated.

    Args:
        log_p: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``.
        folds: Fold of each row ``(N,)``; -1: in no fold.
        count: Number of folds.
        quantiles: Of the labels' log-odds, where curves bend.
    """
    classes = log_p.shape[1]
    odds = log_odds(log_p)
    grid = make_grid(float(odds.min()), float(odds.max()))
    negative, positive = _counts(grid, odds, target, weights, folds, count)
    labels = odds[np.arange(len(odds)), target]
    knots = np.unique(weighted_quantiles(labels, weights, np.array(quantiles)))
    mean = weights @ labels / weights.sum()
    width = WIDTH * max(1e-3, float(np.sqrt(weights @ (labels - mean) ** 2 / weights.sum())))
    basis = np.stack(
        [-softplus(-grid), softplus(grid), np.ones_like(grid)]
        + [width * softplus((grid - knot) / width) for knot in knots]
    )
    identity = np.zeros(len(basis))
    identity[:2] = 1.0
    prior = _pool(basis, positive, negative, identity)
    curves = prior[0].reshape(count + 1, classes, -1) @ basis
    return [Curves(grid, each) for each in curves]


def _counts(
    grid: Array, odds: Array, target: Array, weights: Array, folds: Array, count: int
) -> tuple[Array, Array]:
    """Return weights of negatives and positives at grid points outside each fold, ``(F + 1, C, G)`` each."""
    rows, classes = odds.shape
    size = len(grid)
    left, part = place(grid, odds)
    part = part.clip(0, 1)
    cell = ((folds + 1)[:, None] * classes + np.arange(classes)) * size + left
    total = (count + 1) * classes * size
    flat = cell.ravel()
    here = np.repeat(weights, classes)
    right = np.bincount(flat, here * part.ravel(), total)
    both = np.bincount(flat, here, total) - right
    both[1:] += right[:-1]
    label = cell[np.arange(rows), target]
    share = part[np.arange(rows), target]
    up = np.bincount(label, weights * share, total)
    positive = np.bincount(label, weights, total) - up
    positive[1:] += up[:-1]
    shape = (count + 1, classes, size)
    both, positive = both.reshape(shape), positive.reshape(shape)
    everything = both.sum(axis=0), positive.sum(axis=0)
    both, positive = (
        np.concatenate([whole[None], whole - each[1:]])
        for whole, each in zip(everything, (both, positive), strict=True)
    )
    return (both - positive).clip(min=0), positive.clip(min=0)


def _pool(
    basis: Array, positive: Array, negative: Array, identity: Array
) -> tuple[Array, Array, Array]:
    """Return curves ``(F C, P)`` of all folds at once, with mean ``(F, P)`` and covariance ``(F, P, P)``."""
    folds, classes, size = positive.shape
    terms = len(basis)
    pairs = (basis[:, None] * basis[None]).reshape(terms * terms, size)

    def newton(theta: Array, center: Array, precision: Array, pos: Array, neg: Array) -> Any:
        """Return the next point and the Hessian ``(..., P, P)``."""
        eta = theta @ basis
        p = 1 / (1 + np.exp(-eta))
        total = pos + neg
        slope = (total * p - pos) @ basis.T + np.einsum(
            "...ij,...j->...i", precision, theta - center
        )
        hessian = ((total * p * (1 - p)) @ pairs.T).reshape(*theta.shape, terms) + precision
        step = np.linalg.solve(hessian, slope[..., None])[..., 0]
        # A step that moves any calibrated log-odds that matter by more than 4 is shortened.
        seen = total > 0
        move = np.abs(np.where(seen, step @ basis, 0)).max(axis=-1, keepdims=True)
        return theta - step * np.minimum(1.0, 4.0 / np.maximum(move, 1e-12)), hessian

    start = np.broadcast_to(identity, (folds, terms)).copy()
    ridge = 0.01 * np.eye(terms)
    whole = positive.sum(axis=1), negative.sum(axis=1)
    for _ in range(12):
        start, _ = newton(start, identity, ridge, *whole)
    mean, covariance = start, np.broadcast_to(0.25 * np.eye(terms), (folds, terms, terms))
    theta = np.repeat(start[:, None], classes, axis=1)
    for _ in range(ROUNDS):
        precision = np.linalg.inv(covariance)[:, None]
        for _ in range(2):
            theta, hessian = newton(theta, mean[:, None], precision, positive, negative)
        mean = theta.mean(axis=1)
        away = theta - mean[:, None]
        covariance = (
            np.einsum("fci,fcj->fij", away, away) / classes
            + np.linalg.inv(hessian).mean(axis=1)
            + 1e-6 * np.eye(terms)
        )
    return theta.reshape(folds * classes, terms), mean, covariance


# Confusion.


def fit_confusion(
    log_p: Array,
    target: Array,
    weights: Array,
    folds: Array,
    count: int,
    strength: float = 1.0,
    steps: tuple[int, int] = (20, 10),
) -> list[Array]:
    """Return confusion matrices ``(C, C)`` of all rows, then of the rows outside each fold.

    Args:
        log_p: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``.
        folds: ``(N,)``.
        count: Number of folds.
        strength: Pseudo-samples in which each class is right.
        steps: Steps of expectation and maximization for all rows, and for the folds.
    """
    classes = log_p.shape[1]
    order = target.argsort(kind="stable")
    p, target, weights, folds = np.exp(log_p)[order], target[order], weights[order], folds[order]
    result = []
    for fold in range(-1, count):
        here = slice(None) if fold < 0 else np.flatnonzero(folds != fold)
        part, label, size = p[here], target[here], weights[here]
        share = np.bincount(label, size, classes) + 0.01
        prior = strength * np.eye(classes) + share / share.sum()
        edges = np.searchsorted(label, np.arange(classes + 1))
        filled = np.flatnonzero(np.diff(edges))
        matrix = prior / prior.sum(axis=1, keepdims=True)
        for _ in range(steps[fold >= 0]):
            expected = prior.copy()
            joint = part * matrix.T[label]
            joint *= (size / joint.sum(axis=1).clip(min=1e-300))[:, None]
            expected[:, filled] += np.add.reduceat(joint, edges[filled], axis=0).T
            matrix = expected / expected.sum(axis=1, keepdims=True)
        result.append(matrix)
    return result


# The last map.


@dataclass(frozen=True)
class LastMap:
    """``(1 + a) m_k + b_k + 1[k is the top] h(s)``, with ``h`` bends of the top label's log-odds.

    Attributes:
        factor: ``a``.
        offsets: ``b (C,)``.
        knots: Of ``h``.
        bends: Coefficients of ``h``, of ``1`` and a bend at each knot.
    """

    factor: float
    offsets: Array
    knots: Array
    bends: Array

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities for log-probabilities of the mixture ``(n, C)``."""
        scores = (1 + self.factor) * log_p + self.offsets
        if len(self.bends):
            top, terms = top_terms(log_p, self.knots)
            scores[np.arange(len(scores)), top] += terms @ self.bends
        return log_softmax(scores)


def top_terms(log_p: Array, knots: Array) -> tuple[Array, Array]:
    """Return the top label and terms of its log-odds, ``1`` and a bend a knot, ``(n, 1 + K)``."""
    top = log_p.argmax(axis=1)
    odds = np.clip(log_odds_of(log_p, top), -30, 30)
    terms = [np.ones_like(odds), *(softplus(odds - knot) for knot in knots)]
    return top, np.stack(terms, axis=1)


def log_odds_of(log_p: Array, which: Array) -> Array:
    """Return the log-odds of one class in each row."""
    rows = np.arange(len(log_p))
    others = log_p.copy()
    others[rows, which] = -np.inf
    highest = others.max(axis=1, keepdims=True)
    rest = highest[:, 0] + np.log(np.exp(others - highest).sum(axis=1).clip(min=1e-300))
    return np.asarray(log_p[rows, which] - rest)


def fit_last_map(
    log_p: Array,
    target: Array,
    weights: Array,
    *,
    offsets: bool = True,
    bends: bool = True,
    hyper: tuple[float, float] = (0.5, 0.01),
    rounds: int = 6,
) -> LastMap:
    """Fit the last map to held-out log-probabilities of the mixture ``(n, C)``.

    Factor, offsets and bends are normal around 0, each of the three with a variance of its own that is estimated
    (evidence), with ``hyper`` prior: so many values of that variance are taken to have been seen.
    """
    rows, classes = log_p.shape
    probs = np.exp(log_p)
    center = (probs * log_p).sum(axis=1, keepdims=True)
    knots = np.zeros(0)
    terms, top = np.zeros((rows, 0)), log_p.argmax(axis=1)
    scale = np.zeros(0)
    if bends:
        odds = log_odds_of(log_p, top).clip(-30, 30)
        knots = np.unique(weighted_quantiles(odds, weights, np.array([0.25, 0.5, 0.75])))
        top, terms = top_terms(log_p, knots)
        scale = np.ones(terms.shape[1])
        # Bends in units of their standard deviation.
        deviation = np.sqrt(weights @ (terms - weights @ terms / weights.sum()) ** 2 / weights.sum())
        scale[1:] = deviation[1:].clip(min=1e-6)
        terms = terms / scale
    del center
    number = 1 + classes * offsets + terms.shape[1]
    group = np.concatenate(
        [[0], np.full(classes * offsets, 1), np.full(terms.shape[1], 2)]
    ).astype(int)
    sizes = np.bincount(group, minlength=3)
    alpha = np.full(3, hyper[0] / hyper[1] if hyper[1] else 1.0)
    theta = np.zeros(number)
    at = slice(1, 1 + classes * offsets)
    last = slice(1 + classes * offsets, number)
    index = np.arange(rows)
    onehot_top = top

    def scores(theta: Array) -> Array:
        z = (1 + theta[0]) * log_p
        if offsets:
            z = z + theta[at]
        if bends:
            z[index, onehot_top] += terms @ theta[last]
        return log_softmax(z)

    for _ in range(rounds):
        for _ in range(3):
            q = np.exp(scores(theta))
            error = q.copy()
            error[index, target] -= 1
            error *= weights[:, None]
            gradient = np.concatenate(
                [
                    [np.sum(error * log_p)],
                    error.sum(axis=0) if offsets else [],
                    error[index, top] @ terms if bends else [],
                ]
            )
            hessian = _hessian(q, log_p, weights, top, terms, offsets)
            penalty = alpha[group]
            step = np.linalg.solve(hessian + np.diag(penalty), gradient + penalty * theta)
            theta = theta - step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
            if np.abs(step).max() < 1e-4:
                break
        spread = np.linalg.inv(hessian + np.diag(penalty)).diagonal()
        for each in range(3):
            if not sizes[each]:
                continue
            chosen = group == each
            free = sizes[each] - alpha[each] * spread[chosen].sum()
            alpha[each] = (free + 2 * hyper[0]) / ((theta[chosen] ** 2).sum() + 2 * hyper[1])
    moved = theta[at] if offsets else np.zeros(classes)
    return LastMap(float(theta[0]), moved, knots, theta[last] / scale if bends else np.zeros(0))


def _hessian(
    q: Array, log_p: Array, weights: Array, top: Array, terms: Array, offsets: bool
) -> Array:
    """Return the Hessian of the negative log-likelihood in factor, offsets and bends."""
    rows = np.arange(len(q))
    weighted = weights[:, None] * q
    mean = (q * log_p).sum(axis=1, keepdims=True)
    centered = q * (log_p - mean)
    high = q[rows, top]
    corner = np.array([[weights @ (centered * log_p).sum(axis=1)]])
    blocks = [[corner]]
    of_bends = ((weights * centered[rows, top]) @ terms)[None]
    if offsets:
        of_offsets = (weights @ centered)[None]
        inner = np.diag(weighted.sum(axis=0)) - weighted.T @ q
        both = -(weighted * high[:, None]).T @ terms
        np.add.at(both, top, (weights * high)[:, None] * terms)
        blocks = [
            [corner, of_offsets, of_bends],
            [of_offsets.T, inner, both],
            [of_bends.T, both.T, (terms.T * (weights * high * (1 - high))) @ terms],
        ]
    else:
        blocks = [
            [corner, of_bends],
            [of_bends.T, (terms.T * (weights * high * (1 - high))) @ terms],
        ]
    return np.block(blocks)


# Weights.


def fit_weights(parts: Array, weights: Array, prior: Array, steps: int = 200) -> Array:
    """Return mixture weights ``(K,)``: maximum of ``sum_i w_i log(parts_i v) + prior log v``, by EM."""
    parts = parts.clip(min=1e-9)
    total = weights.sum() + prior.sum()
    v = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(steps):
        after = (v * ((weights / (parts @ v)) @ parts) + prior) / total
        done = (after / v.clip(min=1e-300)).max() - 1 <= 0.01 / total
        v = after / after.sum()
        if done:
            break
    return np.asarray(v)
