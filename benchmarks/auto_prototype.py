"""A simpler ``auto`` in numpy: a prototype that is not in the package. ``results/auto/design.md`` has its formulas.

    python benchmarks/auto_prototype.py seconds [--rivals]  # of a processor, beside auto and probmetrics

Curves are fitted on a grid of log-odds, so that a fold costs no more than a class. Matrix, isotonic regression, folds
and effective counts are those of the package.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import numpy as np
import torch
from auto_last_map import AbsentClasses, fit_absent, fit_last_map, log_softmax, softplus
from numpy.typing import NDArray

import fedlas.calibrators.fit_mixture as fm
from fedlas import Predictions
from fedlas.calibrators._fit.custom_calibrators import fit_checked_map
from fedlas.calibrators._fit.rowwise import floor_log_probs, prepare_samples, sample_weights
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import Calibrator
from fedlas.calibrators.isotonic import IsotonicCalibration
from fedlas.calibrators.structured import StructuredScaling

Array = NDArray[Any]
Apply = Callable[[Array], Array]
QUANTILES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Quantiles of the labels' log-odds where curves bend."""
WIDTH = 0.25
"""Width of a bend, in standard deviations of the labels' log-odds."""
UNIT, STEP = 4.0, 0.03
"""The grid is even in ``asinh(s / UNIT)``, with this spacing."""
ROUNDS = 8
MANY_CLASSES = 20
MOST_MATRIX_CLASSES = 32
FEWEST_FOR_ISOTONIC = 100
CANDIDATES = 64
"""Classes of a row that confusion counts."""
PRIOR = {"as predicted": 1.0, "temperature": 2.0}
"""Pseudo-samples of members."""


def log_odds(log_p: Array) -> Array:
    """Return ``log p - log(1 - p)`` of each class; of the top class by the sum of the others."""
    p = np.exp(log_p)
    top = p.argmax(axis=1)
    rows = np.arange(len(p))
    high = p[rows, top].copy()
    p[rows, top] = 0
    others = p.sum(axis=1)
    p[rows, top] = high
    np.subtract(1, p, out=p)
    p[rows, top] = np.where(high > 0.5, others, p[rows, top])
    result: Array = log_p - np.log(np.maximum(p, 1e-30))
    return result


# Curves: one for each class, drawn from a common distribution.


@dataclass(frozen=True)
class Curves:
    """Calibrated log-odds of each class at grid points.

    Attributes:
        first: Index of the first grid point, in steps.
        values: ``(C, G)``.
    """

    first: int
    values: Array

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)``: sigmoids of the curves, divided by their sum."""
        left, part = place(log_odds(log_p), self.first, self.values.shape[1])
        column = np.arange(log_p.shape[1])
        curve = self.values[column, left] * (1 - part) + self.values[column, left + 1] * part
        return log_softmax(-softplus(-curve))


def place(odds: Array, first: int, size: int) -> tuple[Array, Array]:
    """Return the grid point to the left of log-odds, and the share of the one to the right."""
    at = np.arcsinh(odds / UNIT)
    at /= STEP
    at -= first
    left = at.astype(np.int32)
    np.clip(left, 0, size - 2, out=left)
    at -= left
    return left, at


def fit_curves(
    log_p: Array, target: Array, weights: Array, folds: Array, count: int
) -> list[Curves]:
    """Return curves of all rows, then of the rows outside each fold.

    The log-odds of class k become ``B(s) theta_k``, ``theta_k ~ N(mu, S)``, with mu and S estimated.

    Args:
        log_p: ``(N, C)``.
        target: ``(N,)``.
        weights: ``(N,)``.
        folds: Fold of each row ``(N,)``; rows of fold -1 are in every fit.
        count: Number of folds that are held out.
    """
    odds = log_odds(log_p)
    ends = np.arcsinh(np.array([odds.min(), odds.max()], dtype=float) / UNIT) / STEP
    first = int(np.floor(ends[0]))
    size = int(np.ceil(ends[1])) - first + 2
    grid = UNIT * np.sinh((first + np.arange(size)) * STEP)
    labels = odds[np.arange(len(odds)), target].astype(float)
    negative, positive = _count(odds, first, size, target, weights, folds, count)
    order = labels.argsort()
    share = weights[order].cumsum() / weights.sum()
    knots = np.unique(labels[order][np.searchsorted(share, QUANTILES).clip(max=len(labels) - 1)])
    mean = weights @ labels / weights.sum()
    width = WIDTH * max(1e-3, float(np.sqrt(weights @ (labels - mean) ** 2 / weights.sum())))
    basis = np.stack(
        [-softplus(-grid), softplus(grid), np.ones_like(grid)]
        + [width * softplus((grid - knot) / width) for knot in knots]
    )
    theta = _pool(basis, positive, negative)
    return [Curves(first, each @ basis) for each in theta]


def _count(
    odds: Array,
    first: int,
    size: int,
    target: Array,
    weights: Array,
    folds: Array,
    count: int,
) -> tuple[Array, Array]:
    """Return weights of negatives and positives at grid points, ``(F + 1, C, G)``: of all rows, then without a fold."""
    rows, classes = odds.shape
    left, part = place(odds, first, size)
    cell = left + np.arange(classes, dtype=np.int32) * size
    index = np.arange(rows)
    of_label, share = cell[index, target], part[index, target].astype(float)
    shape = (classes, size)
    everything, positive = [], []
    for fold in range(-1, count):
        here = slice(None) if fold < 0 else np.flatnonzero(folds == fold)
        size_of = np.repeat(weights[here], classes)
        flat, right = cell[here].ravel(), part[here].ravel() * size_of
        total = np.bincount(flat, size_of - right, classes * size)
        total[1:] += np.bincount(flat, right, classes * size)[:-1]
        labels = np.bincount(of_label[here], weights[here] * (1 - share[here]), classes * size)
        labels[1:] += np.bincount(of_label[here], weights[here] * share[here], classes * size)[:-1]
        everything.append(total.reshape(shape))
        positive.append(labels.reshape(shape))
    both, events = (
        np.stack([whole, *(whole - part for part in parts)])
        for whole, *parts in (everything, positive)
    )
    return (both - events).clip(min=0), events.clip(min=0)


def _pool(basis: Array, positive: Array, negative: Array) -> Array:
    """Return coefficients ``(F, C, P)``: posterior modes, with the distribution estimated by EM."""
    folds, classes, size = positive.shape
    terms = len(basis)
    pairs = (basis[:, None] * basis[None]).reshape(terms * terms, size).T.copy()
    identity = np.zeros(terms)
    identity[:2] = 1.0

    def newton(
        theta: Array, center: Array, precision: Array, events: Array, total: Array
    ) -> tuple[Array, Array]:
        p = 1 / (1 + np.exp(-(theta @ basis)))
        pull = ((theta - center)[..., None, :] @ precision)[..., 0, :]
        slope = (total * p - events) @ basis.T + pull
        hessian = ((total * p * (1 - p)) @ pairs).reshape(*theta.shape, terms) + precision
        step = np.linalg.solve(hessian, slope[..., None])[..., 0]
        # A step that moves a log-odds where rows are by more than 4 is shortened.
        move = np.abs((total > 0) * (step @ basis)).max(axis=-1, keepdims=True)
        return theta - step * np.minimum(1.0, 4.0 / np.maximum(move, 1e-12)), hessian

    total = positive + negative
    start = np.tile(identity, (folds, 1))
    for _ in range(12):
        start, _ = newton(
            start, identity, 0.01 * np.eye(terms), positive.sum(axis=1), total.sum(axis=1)
        )
    mean, covariance = start, np.tile(0.25 * np.eye(terms), (folds, 1, 1))
    theta = np.repeat(start[:, None], classes, axis=1)
    for number in range(ROUNDS):
        precision = np.linalg.inv(covariance)[:, None]
        for _ in range(2 if number < 2 else 1):
            theta, hessian = newton(theta, mean[:, None], precision, positive, total)
        mean = theta.mean(axis=1)
        away = theta - mean[:, None]
        spread = np.linalg.inv(hessian).mean(axis=1)
        covariance = away.swapaxes(1, 2) @ away / classes + spread + 1e-6 * np.eye(terms)
    return theta


# Confusion.


@dataclass(frozen=True)
class Confusion:
    """``p'(y) = sum_k p(k) T[k, y]``."""

    matrix: Array

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)``."""
        result: Array = np.log(np.maximum(np.exp(log_p) @ self.matrix, 1e-30))
        return result


def fit_confusion(
    log_p: Array, target: Array, weights: Array, folds: Array, count: int
) -> list[Confusion]:
    """Return confusions of all rows, then of the rows outside each fold, by EM; prior ``I + share of the labels``."""
    classes = log_p.shape[1]
    most = min(CANDIDATES, classes)
    which = np.argpartition(log_p, classes - most, axis=1)[:, -most:]
    p = np.exp(np.take_along_axis(log_p, which, axis=1)).astype(float)
    rest = (1 - p.sum(axis=1)).clip(min=0)
    cell = which * classes + target[:, None]
    result = []
    for fold in range(-1, count):
        here = slice(None) if fold < 0 else np.flatnonzero(folds != fold)
        part, at, size, label = p[here], cell[here], weights[here], target[here]
        share = np.bincount(label, size, classes) + 0.01
        share /= share.sum()
        prior = np.eye(classes) + share
        matrix = prior / 2
        unknown = rest[here] * share[label]
        flat = at.ravel()
        for _ in range(20 if fold < 0 else 10):
            joint = part * matrix.ravel()[at]
            joint *= (size / (joint.sum(axis=1) + unknown).clip(min=1e-300))[:, None]
            expected = np.bincount(flat, joint.ravel(), classes * classes)
            matrix = expected.reshape(classes, classes) + prior
            matrix /= matrix.sum(axis=1, keepdims=True)
        result.append(Confusion(matrix))
    return result


# Temperature, and members of the package.


def fit_temperature(
    val: Predictions, log_p: Array, target: Array, weights: Array, folds: Array, count: int
) -> list[Apply]:
    """Return temperature scaling of all rows, then outside each fold, one Newton step from that of all rows."""
    most = max(1000, 2**20 // log_p.shape[1])
    some = val if len(log_p) <= most else val.rows(torch.arange(0, len(log_p), len(log_p) // most))
    best = nll_temperature(some)
    scale = 1 / best.value
    slopes, bends = np.zeros(count + 1), np.zeros(count + 1)
    for rows in np.array_split(np.arange(len(log_p)), max(1, log_p.size // 2**20)):
        q = np.exp(log_softmax(scale * log_p[rows]))
        mean = (q * log_p[rows]).sum(axis=1)
        square = (q * (log_p[rows] - mean[:, None]) ** 2).sum(axis=1)
        label = log_p[rows, target[rows]]
        slopes += np.bincount(folds[rows] + 1, weights[rows] * (mean - label), count + 1)
        bends += np.bincount(folds[rows] + 1, weights[rows] * square, count + 1)
    # One step from the scale of all rows, or of a sample where they are many.
    scales = [scale] if some is val else []
    for fold in range(-1 + len(scales), count):
        here = fold + 1 if fold >= 0 else len(slopes)
        slope = np.delete(slopes, here).sum() if fold >= 0 else slopes.sum()
        bend = np.delete(bends, here).sum() if fold >= 0 else bends.sum()
        step = 0.0 if best.warning else slope / max(bend, 1e-300)
        scales.append(float(np.clip(scale - step, scale / 2, scale * 2)))
    return [lambda rows, scale=each: log_softmax(scale * rows) for each in scales]


def fit_member(member: Calibrator, split: Any) -> list[Apply]:
    """Return a calibrator of the package fitted to all rows, then outside each fold."""
    samples = split.member_samples(True)
    whole = fit_checked_map(member, samples, member.fit_map)
    masks = torch.stack([split.folds.train(fold) for fold in range(len(split.held_out))])
    parts = masks * sample_weights(split.val)
    fits = member.fit_subsets(samples, parts[:, split.thinned], whole)

    def apply(row_map: Any) -> Apply:
        def run(rows: Array) -> Array:
            with torch.no_grad():
                return np.asarray(row_map(torch.from_numpy(rows).double()).log_softmax(1).numpy())

        return run

    return [apply(each) for each in (whole, *fits)]


# The whole.


def fit_weights(parts: Array, weights: Array, prior: Array, steps: int = 300) -> Array:
    """Return weights ``(K,)`` that maximize ``sum_i w_i log(parts_i v) + prior log v``, by EM."""
    parts = parts.clip(min=1e-9)
    total = weights.sum() + prior.sum()
    v = np.full(parts.shape[1], 1 / parts.shape[1])
    for _ in range(steps):
        after = (v * ((weights / (parts @ v)) @ parts) + prior) / total
        done = (after / v.clip(min=1e-300)).max() - 1 <= 0.01 / total
        v = after / after.sum()
        if done:
            break
    return np.asarray(np.where(v < 1e-3, 0, v) / v[v >= 1e-3].sum())


@dataclass(frozen=True, eq=False)
class Auto:
    """Members, their weights and the last map; the share of absent classes, and processor seconds of each part."""

    members: dict[str, Apply]
    weights: dict[str, float]
    last: Apply
    absent: AbsentClasses | None
    least: float | None
    seconds: dict[str, float]

    def __call__(self, log_p: Array) -> Array:
        """Return log-probabilities ``(n, C)``."""
        rows = floor_log_probs(Predictions(torch.from_numpy(log_p)), self.least).logits
        inputs = log_softmax(rows.double().numpy())
        mixture = _mix([self.members[name](inputs) for name in self.weights], self.weights)
        result = self.last(mixture)
        return result if self.absent is None else self.absent(inputs, result)


def _mix(parts: list[Array], weights: dict[str, float]) -> Array:
    total = np.zeros_like(parts[0])
    for part, weight in zip(parts, weights.values(), strict=True):
        total += weight * np.exp(part)
    result: Array = np.log(np.maximum(total, 1e-30))
    return result


def _distinct(ids: Array, weights: Any) -> float:
    """Return how many samples there are: copies count once."""
    return len(np.unique(ids)) * float(weights.mean())


def fit_auto(val: Predictions, *, without: tuple[str, ...] = (), last: str = "full") -> Auto:
    """Fit the prototype; members in ``without`` and parts of the last map are left out."""
    clock = {"start": time.process_time()}

    def mark(name: str) -> None:
        clock[name] = time.process_time()

    val, least, _ = prepare_samples(val, repeat_rows=False, raise_zeros=True)
    with mock.patch.object(fm, "effective_count", _distinct):
        split, val = fm._make_cross_fit(val, 5)
    mark("folds")
    number = np.float64 if val.logits.size <= 2**22 else np.float32
    log_p = log_softmax(val.logits.astype(number))
    target, weights = val.target, sample_weights(val).numpy()
    count, classes = len(split.held_out), val.num_classes
    folds = np.where(split.folds.number.numpy() < count, split.folds.number.numpy(), -1)
    shared = (log_p, target, weights, folds, count)
    fits: dict[str, Any] = {"as predicted": [log_softmax] * (count + 1)}
    wanted: dict[str, Callable[[], Any]] = {
        "temperature": lambda: fit_temperature(val, *shared),
        "curves": lambda: fit_curves(*shared),
        "matrix": lambda: fit_member(StructuredScaling("matrix"), split),
        "isotonic": lambda: fit_member(IsotonicCalibration(), split),
        "confusion": lambda: fit_confusion(*shared),
    }
    if classes > MOST_MATRIX_CLASSES:
        del wanted["matrix"]
    if classes >= MANY_CLASSES or weights.sum() < FEWEST_FOR_ISOTONIC:
        del wanted["isotonic"]
    if classes < MANY_CLASSES:
        del wanted["confusion"]
    for name, fit in wanted.items():
        if name not in without:
            fits[name] = fit()
            mark(name)
    rows = split.rows.numpy()
    held_out = [
        np.concatenate(
            [each[fold + 1](log_p[at.numpy()]) for fold, at in enumerate(split.held_out)]
        )
        for each in fits.values()
    ]
    labels = np.stack([np.exp(each[np.arange(len(rows)), target[rows]]) for each in held_out], 1)
    prior = np.array([PRIOR.get(name, 0.0) for name in fits])
    v = fit_weights(labels.astype(float), weights[rows], prior)
    chosen = {name: float(each) for name, each in zip(fits, v, strict=True) if each > 0}
    mixture = _mix([each for each, used in zip(held_out, v > 0, strict=True) if used], chosen)
    mark("weights")
    last_map: Apply = log_softmax
    if last != "none":
        slopes = classes >= MANY_CLASSES and last != "no slopes"
        last_map = fit_last_map(
            log_softmax(mixture),
            target[rows],
            weights[rows],
            slopes=slopes,
            offsets=last != "no offsets",
            bends=last != "no bends",
        )
    mark("last map")
    absent = None
    if "absent" not in without:
        held = (log_p[rows], last_map(mixture)) if len(np.unique(target)) < classes else ()
        if held:
            scale = 1 / nll_temperature(val).value
            absent = fit_absent(*held, target, weights[rows], scale, weights)
    members = {name: fits[name][0] for name in chosen}
    names = list(clock)
    seconds = {b: clock[b] - clock[a] for a, b in pairwise(names)}
    return Auto(members, chosen, last_map, absent, least, seconds)


# Seconds.


def made(rows: int, classes: int) -> Predictions:
    """Return predictions that are 2.5 times too sure, of classes that differ in skill."""
    random = torch.Generator().manual_seed(0)
    target = torch.randint(classes, (rows,), generator=random)
    logits = torch.randn(rows, classes, generator=random)
    logits[torch.arange(rows), target] += 2.5
    skill = 0.5 + torch.rand(classes, generator=random)
    return Predictions((2.5 * logits * skill).log_softmax(1), target)


def main() -> None:
    """Print seconds of a fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("seconds",))
    parser.add_argument("--rivals", action="store_true", help="auto of the package and probmetrics")
    parser.add_argument("--sizes", nargs="+", default=["1000x2", "5000x100", "10000x1000"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for text in args.sizes:
        rows, classes = map(int, text.split("x"))
        val = made(rows, classes)
        fit_auto(made(200, min(classes, 30)))
        began = time.process_time()
        found = fit_auto(val)
        spent = time.process_time() - began
        parts = {name: round(each, 2) for name, each in found.seconds.items()}
        weights = {name: round(each, 2) for name, each in found.weights.items()}
        print(f"{text}: prototype {spent:.2f} s {parts} {weights}", flush=True)
        if args.rivals:
            _time_rivals(text, val)


def _time_rivals(text: str, val: Predictions) -> None:
    import calibrators

    from fedlas.calibrators import AutoCalibration

    began = time.process_time()
    AutoCalibration().fit(val)
    print(f"{text}: auto {time.process_time() - began:.2f} s", flush=True)
    probs = val.tensors().logits.double().softmax(1).numpy()
    fits = calibrators.peers()
    names = ("svs (probmetrics)", "sms (probmetrics)", "TemperatureScaling (netcal)")
    for name in names if val.logits.size <= 10**7 else names[:1]:
        if name in fits:
            began = time.process_time()
            fits[name](probs, val.target)
            print(f"{text}: {name} {time.process_time() - began:.2f} s", flush=True)


if __name__ == "__main__":
    main()
