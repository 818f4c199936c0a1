"""Members of a mixture: their maps of all samples, and what they predict for samples left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.calibrators.base import Calibrator
from fedlas.predictions import Predictions


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Samples, some of which are held out in turn.

    Attributes:
        val: With labels.
        folds: Fold of each sample ``(N,)``.
        held_out: Rows ``(n,)`` that are predicted from the others of each fold, for the folds that are left out.
        thinned: Mask of the rows that dear members are fitted on ``(N,)``.
        order: All rows, by class and at random within it ``(N,)``.
        distinct: One row of each sample, of which others are copies ``(M,)``.
    """

    val: Predictions
    folds: Tensor
    held_out: tuple[Tensor, ...]
    thinned: Tensor
    order: Tensor
    distinct: Tensor

    @property
    def rows(self) -> Tensor:
        """All rows that are held out, fold by fold."""
        return torch.cat(self.held_out)

    def whole(self, dear: bool) -> Predictions:
        """Return all samples without features; for dear members a part of them."""
        val = self.val if self.val.features is None else self.val._replaced(features=None)
        return val.rows(self.thinned) if dear and not bool(self.thinned.all()) else val

    def log_probs(
        self,
        members: Mapping[str, Calibrator | None],
        maps: Mapping[str, nn.Module],
        dear: frozenset[str],
    ) -> Tensor:
        """Return log-probabilities ``(K, n, C)`` of each member for the rows that are held out.

        Args:
            members: By name; None: predictions as they are.
            maps: Their maps of all samples.
            dear: Names of the members that are fitted on a part of the rows.
        """
        inside = torch.stack([self.folds != fold for fold in range(len(self.held_out))])
        parts = inside * weights_of(self.val)
        fits: list[list[nn.Module]] = []
        for name, member in members.items():
            if member is None:
                fits.append([nn.Identity()] * len(parts))
                continue
            rows = parts[:, self.thinned] if name in dear else parts
            fits.append(member.fit_parts(self.whole(name in dear), rows, maps[name]))
        logits = self.val.logits.cpu()
        results = []
        for fold, rows in enumerate(self.held_out):
            results += [
                torch.stack([fit[fold](each) for fit in fits])
                for _, each in double_rows(logits[rows])
            ]
        return torch.cat(results, dim=1).log_softmax(dim=2)


def label_log_probs(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return what each member gives the label ``(n, K)``, from ``(K, n, C)``."""
    return log_probs.gather(2, target.expand(len(log_probs), -1).unsqueeze(2)).squeeze(2).T
