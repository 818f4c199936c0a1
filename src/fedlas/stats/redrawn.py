"""Rows with drawn labels, in the form in which metrics ask for rows."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedlas.metrics.scan import Chunk
from fedlas.stats.rows import Integers, Rows


class RedrawnLabels(Chunk):
    """Rows ``R`` times over, each time with other labels; what depends on a label is looked up, not computed again.

    The known label probabilities, where there are any, are the model's own: the labels were drawn from them.

    Args:
        rows: The rows.
        labels: Drawn labels ``(R, N)``. Row ``i`` of the chunk is row ``i % N`` of ``rows`` with ``labels.flat[i]``.
    """

    def __init__(self, rows: Rows, labels: Integers) -> None:
        # Not the base's constructor: logits and buffers (R * N, C) are made only if a metric asks for them.
        self._rows = rows
        self._row = np.tile(np.arange(rows.num_samples), len(labels))
        self._label = labels.ravel()

    def __getattr__(self, name: str) -> Tensor | bool | None:
        """What the base's constructor would set, ``(R * N, C)``: made when a metric asks for it, then kept."""
        given = self._rows.of_all_classes
        value: Tensor | None
        match name:
            case "scores":
                value = given.scores[torch.from_numpy(self._row).to(given.scores.device)]
            case "_are_probs":
                return given.are_probs
            case "label_probs":
                value = None if given.label_probs is None else self.probs.clone()
            case "_index":
                value = self.target.to(given.scores.device).unsqueeze(1)
            case "_probs_buffer" | "_scratch":
                value = torch.empty_like(self.scores)
            case _:
                raise AttributeError(f"{type(self).__name__} has no {name}")
        vars(self)[name] = value
        return value

    @cached_property
    def target(self) -> Tensor:
        """Drawn labels ``(R * N,)``."""
        return torch.from_numpy(self._label)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class ``(R * N,)``."""
        return torch.from_numpy(self._rows.confidence[self._row])

    @cached_property
    def target_probs(self) -> Tensor:
        """Probability of the drawn label ``(R * N,)``."""
        return torch.from_numpy(self._rows.probs[self._row, self._label])

    @cached_property
    def predicted(self) -> Tensor:
        """Arg-max class ``(R * N,)``."""
        predicted = self._rows.of_all_classes.predicted
        return predicted[torch.from_numpy(self._row).to(predicted.device)]

    @cached_property
    def rank(self) -> Tensor:
        """How many classes stand before the drawn label ``(R * N,)``."""
        return torch.from_numpy(self._rows.rank[self._row, self._label])

    @cached_property
    def correct(self) -> Tensor:
        """Whether the predicted class was drawn ``(R * N,)``."""
        return torch.from_numpy(self._rows.predicted[self._row] == self._label)

    @property
    def _nll_of_logits(self) -> Tensor:
        logits = self._rows.logits
        highest = logits[np.arange(len(logits)), self._rows.predicted].astype(np.float64)
        below = highest[self._row] - logits[self._row, self._label]
        return torch.from_numpy(below).clamp(max=torch.finfo(torch.float64).max) - self.confidence.double().log()

    @cached_property
    def squared_error(self) -> Tensor:
        """``sum_k (p_k - 1[k = y])**2`` for the drawn label ``(R * N,)``."""
        own = self._rows.probs[self._row, self._label].astype(np.float64)
        # float64 leaves the others their digits where p_y is near 1 and nearly all of the sum is taken off.
        others = self._rows.squared_probs[self._row] - own**2
        return torch.from_numpy(others + (1.0 - own) ** 2)
