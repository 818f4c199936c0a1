"""Samples in order of confidence, equal ones together: what metrics are made of that compare ranks, not bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedlas.metrics.binning import equal_mass_ranks, nearer_end


@dataclass(frozen=True, eq=False)
class Ranking:
    """Runs of samples that are not told apart, by ascending confidence; all tensors ``(R,)`` float64 on the CPU.

    Attributes:
        right: Samples of each run that are correct.
        wrong: Samples that are not; no run is empty.
        right_confidence: Sum of the confidences of those that are correct.
        wrong_confidence: Sum of the confidences of the others.
    """

    right: Tensor
    wrong: Tensor
    right_confidence: Tensor
    wrong_confidence: Tensor

    @property
    def count(self) -> Tensor:
        """Samples of each run ``(R,)``."""
        return self.right + self.wrong

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self.count.sum())

    @property
    def gaps(self) -> Tensor:
        """Sum of ``confidence - correct`` of each run ``(R,)``."""
        return self.right_confidence + self.wrong_confidence - self.right

    def equal_mass_gaps(self, num_bins: int) -> Tensor:
        """Sum of ``confidence - correct`` in bins of as equal counts as whole runs allow ``(B,)``."""
        upto, gaps = self.count.cumsum(0), self.gaps.cumsum(0)
        cut, run = self._cuts(num_bins)
        below = torch.cat((upto.new_zeros(1), upto))
        # How many runs are below each cut: those before the one it falls into, and that one if its upper end is nearer.
        below_cut = run + (nearer_end(cut, below[run], below[run + 1]) == below[run + 1]).long()
        sums = torch.cat((gaps.new_zeros(1), gaps))[below_cut]
        return torch.diff(torch.cat((gaps.new_zeros(1), sums, gaps[-1:])))

    def equal_mass_error(self, num_bins: int) -> float:
        """How far the sum of ``|equal_mass_gaps|`` can be from that of the single samples that the runs are made of.

        Each cut is off by a part of the run it falls into, whose gap then counts in one bin instead of the next.
        """
        run = self._cuts(num_bins)[1]
        gap = torch.maximum(self.wrong_confidence, self.right - self.right_confidence)[run]
        return 2 * float(gap.sum())

    def _cuts(self, num_bins: int) -> tuple[Tensor, Tensor]:
        cut = equal_mass_ranks(self.num_samples, num_bins)
        return cut, torch.searchsorted(self.count.cumsum(0), cut.double(), right=True)


def ranking(confidence: Tensor, correct: Tensor) -> Ranking:
    """The ranking of single samples; runs are those of equal confidence.

    Args:
        confidence: ``(N,)`` on the CPU.
        correct: ``(N,)`` bool.
    """
    values, outcomes = confidence.numpy(), correct.numpy()
    order = np.argsort(values)
    values, outcomes = values[order], outcomes[order]
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    total = np.diff(np.append(starts, len(values))).astype(np.float64)
    right = np.add.reduceat(outcomes.astype(np.float64), starts)
    each = values[starts].astype(np.float64)
    return Ranking(*map(torch.from_numpy, (right, total - right, right * each, (total - right) * each)))
