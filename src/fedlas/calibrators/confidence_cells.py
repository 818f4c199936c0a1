"""Confidences corrected cell by cell until they are right on average in every cell: the loop of multicalibration.

Confidences are log-odds here, ``log(p / (1 - p))``, float64: they can be near 1 and shifted without leaving (0, 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

_HALVINGS = 60
# Shifts beyond this take a confidence to 0 or 1.
_MOST_SHIFT = 60.0


@dataclass(frozen=True)
class Update:
    """What one step adds, and where: the log-odds of a group's samples whose confidence lies in a level.

    Attributes:
        group: Number of the group.
        level: Number ``l`` of the level: confidences in ``[l, l + 1) / num_levels``, the last one with 1.
        shift: What is added to the log-odds.
    """

    group: int
    level: int
    shift: float


@dataclass(frozen=True)
class Cells:
    """How confidences are cut up, and which cells are corrected.

    Attributes:
        num_levels: Levels of equal width on [0, 1].
        alpha: Largest error of a cell's mean that is left alone.
        min_size: Least number of samples of a cell that is looked at.
    """

    num_levels: int
    alpha: float
    min_size: int

    def worst(self, log_odds: Tensor, correct: Tensor, members: Tensor) -> Update | None:
        """The correction of the cell that is most surely wrong; None if no cell is off by more than ``alpha``.

        Args:
            log_odds: ``(N,)``.
            correct: ``(N,)`` float64, 0 or 1.
            members: ``(E, 2)``: sample and group of each membership.

        Note:
            Most surely: by squared error over the variance it would have by chance. A share of 0 or 1 counts as half a
            sample away from it, which no number of samples can tell from it.
        """
        sample, group = members.T
        confidence = log_odds.sigmoid()
        cell = group * self.num_levels + self._level(confidence)[sample]
        count = torch.bincount(cell).double()
        size = count.clamp(min=1)
        right = torch.bincount(cell, weights=correct[sample]) / size
        share = torch.maximum(torch.minimum(right, 1 - 0.5 / size), 0.5 / size)
        error = share - torch.bincount(cell, weights=confidence[sample]) / size
        variance = torch.bincount(cell, weights=(confidence * (1 - confidence))[sample]) / size
        surprise = size * error.square() / variance.clamp(min=torch.finfo(torch.float64).tiny)
        surprise[(count < self.min_size) | (error.abs() <= self.alpha)] = 0
        if not bool((surprise > 0).any()):
            return None
        best = int(surprise.argmax())
        update = Update(best // self.num_levels, best % self.num_levels, 0.0)
        inside = self._inside(log_odds, members, update)
        return Update(update.group, update.level, _shift_to(log_odds[inside], float(share[best])))

    def apply(self, log_odds: Tensor, members: Tensor, update: Update) -> Tensor:
        """Log-odds after ``update``."""
        changed = log_odds.clone()
        changed[self._inside(log_odds, members, update)] += update.shift
        return changed

    def path(self, log_odds: Tensor, correct: Tensor, members: Tensor, most: int) -> Iterator[Update]:
        """Corrections, each of the worst cell after those before it, until no cell needs one; at most ``most``.

        Each is the likeliest shift of its cell, so the likelihood of ``correct`` rises with every one.
        """
        for _ in range(most):
            update = self.worst(log_odds, correct, members)
            if update is None:
                return
            log_odds = self.apply(log_odds, members, update)
            yield update

    def _inside(self, log_odds: Tensor, members: Tensor, update: Update) -> Tensor:
        inside = members[members[:, 1] == update.group, 0]
        return inside[self._level(log_odds[inside].sigmoid()) == update.level]

    def _level(self, confidence: Tensor) -> Tensor:
        return (confidence * self.num_levels).long().clamp(0, self.num_levels - 1)


def held_out_length(cells: Cells, log_odds: Tensor, correct: Tensor, groups: Tensor, folds: Tensor, most: int) -> int:
    """How many corrections make samples likelier that they were not learned from; 0 if that may be chance.

    Args:
        cells: What is corrected.
        log_odds: ``(N,)``.
        correct: ``(N,)`` float64, 0 or 1.
        groups: ``(N, G)`` bool.
        folds: Fold of each sample ``(N,)``.
        most: Most corrections.

    Returns:
        The number with the lowest held-out log-loss, the least among equals; 0 unless the gain over none exceeds its
        standard error.
    """
    paths, losses = [], []
    for fold in range(int(folds.max()) + 1):
        held, kept = folds == fold, folds != fold
        paths.append(list(cells.path(log_odds[kept], correct[kept], groups[kept].nonzero(), most)))
        steps = _replay(cells, log_odds[held], groups[held].nonzero(), paths[-1])
        losses.append([float(_log_loss(step, correct[held]).sum()) for step in steps])
    longest = max(len(loss) for loss in losses)
    total = torch.tensor([loss + [loss[-1]] * (longest - len(loss)) for loss in losses], dtype=torch.float64).sum(dim=0)
    best = int(total.argmin())
    gains = []
    for fold, path in enumerate(paths):
        held = folds == fold
        *_, last = _replay(cells, log_odds[held], groups[held].nonzero(), path[:best])
        gains.append(_log_loss(log_odds[held], correct[held]) - _log_loss(last, correct[held]))
    gain = torch.cat(gains)
    certain = float(gain.mean()) > float(gain.std(correction=0)) / len(gain) ** 0.5
    return best if certain else 0


def _replay(cells: Cells, log_odds: Tensor, members: Tensor, path: list[Update]) -> Iterator[Tensor]:
    """Log-odds before the first correction and after each."""
    yield log_odds
    for update in path:
        log_odds = cells.apply(log_odds, members, update)
        yield log_odds


def _log_loss(log_odds: Tensor, correct: Tensor) -> Tensor:
    return softplus(torch.where(correct > 0, -log_odds, log_odds))


def _shift_to(log_odds: Tensor, share: float) -> float:
    """What to add so that the mean confidence is ``share``, in (0, 1); by bisection."""
    low, high = -_MOST_SHIFT - float(log_odds.max()), _MOST_SHIFT - float(log_odds.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float((log_odds + middle).sigmoid().mean()) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2
