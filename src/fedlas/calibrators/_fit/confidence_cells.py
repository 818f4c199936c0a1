"""Boosting loop of multicalibration: corrects confidences until each cell is calibrated on average.

Confidences are represented by log-odds, ``log(p / (1 - p))``, float64: a shift cannot leave (0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fedlas.calibrators._fit.buffers import float64_tensor, zeros
from fedlas.calibrators._fit.rowwise import iter_float64_rows
from fedlas.resample.clusters import mean_and_standard_error

if TYPE_CHECKING:
    from fedlas.resample.folds import Folds

_MAX_HALVINGS = 60
# Larger shifts give a confidence of exactly 0 or 1 in float64.
_MAX_SHIFT = 60.0
_TOLERANCE = 1e-12
_MAX_STEPS = 100
# Smallest scale of logits: below it, rounding would change their order.
_MIN_SCALE = 1e-6


@dataclass(frozen=True)
class Update:
    """One correction: a shift of the log-odds of samples in one group with confidences in one level.

    Attributes:
        group: Index of the group.
        level: Index ``l`` of the level: confidences in ``[l, l + 1) / num_levels``; the last level includes 1.
        shift: Number added to the log-odds.
    """

    group: int
    level: int
    shift: float


@dataclass(frozen=True)
class Cells:
    """Cells of multicalibration, a group and a confidence level each, with the limits for corrections.

    Attributes:
        num_levels: Levels of equal width on [0, 1].
        alpha: Largest tolerated difference between mean confidence and accuracy in a cell.
        min_size: Fewest samples of a cell that is corrected.
    """

    num_levels: int
    alpha: float = 0.0
    min_size: int = 1

    def worst(self, log_odds: Tensor, correct: Tensor, memberships: Tensor) -> Update | None:
        """Return the correction of the cell with the most significant error; None if no error exceeds ``alpha``.

        Args:
            log_odds: ``(N,)``.
            correct: ``(N,)`` float64, 0 or 1.
            memberships: Sample index and group index of each membership ``(E, 2)``.

        Note:
            Significance is the squared error over its variance by chance. A share of 0 or 1 is moved by half a sample,
            a change that no test on the cell's samples could detect.
        """
        sample, group = memberships.T
        confidence = log_odds.sigmoid()
        cell = group * self.num_levels + self._level_index(confidence)[sample]
        count = torch.bincount(cell).double()
        size = count.clamp(min=1)
        accuracy = torch.bincount(cell, weights=correct[sample]) / size
        share = torch.maximum(torch.minimum(accuracy, 1 - 0.5 / size), 0.5 / size)
        error = share - torch.bincount(cell, weights=confidence[sample]) / size
        variance = torch.bincount(cell, weights=(confidence * (1 - confidence))[sample]) / size
        # Confidences that round to 0 or 1 have no variance; the smallest normal float keeps 0 / 0 from being NaN.
        significance = size * error.square() / variance.clamp(min=torch.finfo(torch.float64).tiny)
        significance[(count < self.min_size) | (error.abs() <= self.alpha)] = 0
        if not bool((significance > 0).any()):
            return None
        best = int(significance.argmax())
        update = Update(best // self.num_levels, best % self.num_levels, 0.0)
        samples = self._samples_in_cell(log_odds, memberships, update)
        return Update(
            update.group, update.level, _shift_to_mean(log_odds[samples], float(share[best]))
        )

    def apply(self, log_odds: Tensor, memberships: Tensor, update: Update) -> Tensor:
        """Return the log-odds after a correction."""
        changed = log_odds.clone()
        changed[self._samples_in_cell(log_odds, memberships, update)] += update.shift
        return changed

    def path(
        self, log_odds: Tensor, correct: Tensor, memberships: Tensor, max_updates: int
    ) -> Iterator[Update]:
        """Yield at most ``max_updates`` corrections, each of the worst cell, until none is needed.

        Each is the maximum likelihood shift of its cell, so the likelihood of ``correct`` rises with every one.
        """
        for _ in range(max_updates):
            update = self.worst(log_odds, correct, memberships)
            if update is None:
                return
            log_odds = self.apply(log_odds, memberships, update)
            yield update

    def _samples_in_cell(self, log_odds: Tensor, memberships: Tensor, update: Update) -> Tensor:
        """Return the indices of the samples in the cell of a correction."""
        inside = memberships[memberships[:, 1] == update.group, 0]
        return inside[self._level_index(log_odds[inside].sigmoid()) == update.level]

    def _level_index(self, confidence: Tensor) -> Tensor:
        """Return the level index of each confidence."""
        return (confidence * self.num_levels).long().clamp(0, self.num_levels - 1)


def select_update_count(
    cells: Cells,
    log_odds: Tensor,
    correct: Tensor,
    groups: Tensor,
    folds: Folds,
    max_updates: int,
    clusters: Tensor | None = None,
) -> int:
    """Return the number of corrections that minimizes the held-out log-loss; 0 if the gain is not significant.

    Args:
        cells: The cells and their limits.
        log_odds: ``(N,)``.
        correct: ``(N,)`` float64, 0 or 1.
        groups: ``(N, G)`` bool.
        folds: Fold of each sample.
        max_updates: Most corrections.
        clusters: Cluster of each sample ``(N,)``; None if they are independent.

    Returns:
        The count with the lowest held-out log-loss, the smallest if several tie; 0 unless the gain over no correction
        exceeds its standard error.
    """
    # The log-loss of each held-out fold after each correction learned on the other folds.
    fold_updates = []
    losses = []
    for fold in range(folds.count):
        test = folds.test(fold)
        train = folds.train(fold)
        fold_updates.append(
            list(cells.path(log_odds[train], correct[train], groups[train].nonzero(), max_updates))
        )
        steps = _iter_log_odds(cells, log_odds[test], groups[test].nonzero(), fold_updates[-1])
        losses.append([float(_log_loss(step, correct[test]).sum()) for step in steps])
    longest = max(len(loss) for loss in losses)
    total = float64_tensor([loss + [loss[-1]] * (longest - len(loss)) for loss in losses]).sum(
        dim=0
    )
    best = int(total.argmin())

    # Accept the gain only if it exceeds its standard error over samples or clusters.
    gain = torch.zeros_like(log_odds)
    for fold, path in enumerate(fold_updates):
        test = folds.test(fold)
        *_, last = _iter_log_odds(cells, log_odds[test], groups[test].nonzero(), path[:best])
        gain[test] = _log_loss(log_odds[test], correct[test]) - _log_loss(last, correct[test])
    held_out = folds.held_out_mask
    clusters = None if clusters is None else clusters[held_out]
    mean, error = mean_and_standard_error(gain[held_out], torch.ones_like(gain[held_out]), clusters)
    return best if mean > error else 0


def _iter_log_odds(
    cells: Cells, log_odds: Tensor, memberships: Tensor, updates: list[Update]
) -> Iterator[Tensor]:
    """Yield the log-odds before the first correction and after each one."""
    yield log_odds
    for update in updates:
        log_odds = cells.apply(log_odds, memberships, update)
        yield log_odds


def _log_loss(log_odds: Tensor, correct: Tensor) -> Tensor:
    # Equal to -log of the probability of the outcome, but precise where the sigmoid rounds to 1.
    return softplus(torch.where(correct > 0, -log_odds, log_odds))


def _shift_to_mean(log_odds: Tensor, goal: float) -> float:
    """Return the shift of the log-odds that makes the mean confidence equal ``goal`` in (0, 1), by bisection."""
    # At these ends all confidences are within 1e-26 of 0 or 1, so the root lies between them.
    low = -_MAX_SHIFT - float(log_odds.max())
    high = _MAX_SHIFT - float(log_odds.min())
    for _ in range(_MAX_HALVINGS):
        middle = (low + high) / 2
        if float((log_odds + middle).sigmoid().mean()) < goal:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def top_class_log_odds(logits: Tensor, temperature: float) -> Tensor:
    """Return the log-odds ``(N,)`` of the predicted class after temperature scaling; infinite with one class."""
    result = zeros(len(logits))
    for part, rows in iter_float64_rows(logits):
        top = rows.argmax(dim=1, keepdim=True)
        behind = (rows - rows.gather(1, top)) / temperature
        result[part] = -behind.scatter(1, top, -torch.inf).logsumexp(dim=1)
    return result


def set_top_class_log_odds(rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return logits whose predicted class has log-odds ``after``: it is raised, or all logits are scaled down."""
    rises = (after > before).unsqueeze(1)
    top = rows.argmax(dim=1, keepdim=True)
    raised = rows.scatter_add(1, top, (after - before).unsqueeze(1))
    return torch.where(rises, raised, _flattening_scale(rows, top, after).unsqueeze(1) * rows)


def _flattening_scale(rows: Tensor, top: Tensor, goal: Tensor) -> Tensor:
    """Return the factor in (0, 1] of the logits at which the predicted class has log-odds ``goal``."""
    # Newton's method from 0. The log-odds are a concave, rising function of s, so steps never pass the root.
    behind = rows - rows.gather(1, top)
    goal = goal.clamp(min=-math.log(rows.shape[1] - 1))
    scale = torch.full_like(goal, _MIN_SCALE)
    for _ in range(_MAX_STEPS):
        others = (scale.unsqueeze(1) * behind).scatter(1, top, -torch.inf)
        slope = -(others.softmax(dim=1) * behind).sum(dim=1)
        step = (
            (goal + others.logsumexp(dim=1)) / slope.clamp(min=torch.finfo(torch.float64).tiny)
        ).clamp(min=0)
        scale = (scale + step).clamp(max=1)
        if bool((step <= _TOLERANCE * scale).all()):
            break
    return scale
