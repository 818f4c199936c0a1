"""One pass over the logits in chunks that fit the cache; every metric takes what it needs from each chunk.

A softmax of the whole array costs as much memory as the logits and, being written to fresh memory, about as much time
as all the default metrics together. Here the two work buffers are as large as one chunk and are used for every chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fedlas.metrics.exact import FLOAT_DIGITS, POINT_BITS
from fedlas.metrics.weighted import WeightedSum, counts_for, sums_for, times
from fedlas.predictions.predictions import AnyPredictions
from fedlas.predictions.probabilities import logarithm
from fedlas.predictions.top_label import TopLabel, needs_all_classes

# Elements of logits per chunk. On a CPU, 4 MiB of float32 beside two buffers of that size stay in a shared cache, and
# are enough that the hundred small calls for each chunk do not count; an accelerator wants fewer and larger kernels.
CHUNK_ELEMENTS = 2**20
# Few classes make many rows of a chunk, and what is kept of each row must stay in the cache too.
CHUNK_ROWS = 2**15
ACCELERATOR_CHUNK_ELEMENTS = 2**24
PROB_BITS = 40
"""Where every probability of every row is summed, it is rounded to a multiple of ``2**-PROB_BITS``, 1e-12."""


class Chunk:
    """Some rows of the logits, with what metrics ask of them; each quantity is computed when first asked for.

    ``scores`` (logits, or probabilities that were passed) and ``probs`` ``(n, C)`` stay on their device. Quantities per
    row ``(n,)`` are on the CPU,
    where they are summed in float64 (which not every accelerator has) in a fixed order. So are ``weights (n,)``, None
    if every sample counts once.

    Note:
        ``probs`` may live in a buffer that the next chunk overwrites. Keep sums of it, not views.
    """

    def __init__(
        self,
        scores: Tensor,
        target: Tensor,
        label_probs: Tensor | None,
        buffers: tuple[Tensor, Tensor],
        weights: Tensor | None = None,
        *,
        are_probs: bool = False,
    ) -> None:
        self.scores = scores
        self.label_probs = label_probs
        self.weights = weights
        self._index, self._are_probs = target.unsqueeze(1), are_probs
        self._probs_buffer, self._scratch = (buffer[: scores.shape[0]] for buffer in buffers)

    @cached_property
    def target(self) -> Tensor:
        """Labels ``(n,)``."""
        return self._index.squeeze(1).cpu()

    @cached_property
    def logits(self) -> Tensor:
        """Logits ``(n, C)``."""
        return logarithm(self.scores) if self._are_probs else self.scores

    @cached_property
    def probs(self) -> Tensor:
        """Softmax of the logits ``(n, C)``, or the probabilities that were passed."""
        return self.scores if self._are_probs else torch.softmax(self.scores, 1, out=self._probs_buffer)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class ``(n,)``, in ``[1/C, 1]``; equal to ``Predictions.confidence``."""
        return self.probs.amax(dim=1).cpu()

    @cached_property
    def class_sums(self) -> Tensor:
        """Sum of each class's probabilities ``(C,)``, int64 in units of ``2**-PROB_BITS`` that each is rounded to."""
        if self.probs.device.type != "cpu":
            return torch.mul(self.probs, 2.0**PROB_BITS, out=self._scratch).round_().long().sum(dim=0).cpu()
        sums = torch.zeros(self.probs.shape[1], dtype=torch.int64, device="cpu")
        # So few integers below 2**PROB_BITS that float64 adds them without rounding, in any order, and twice as fast.
        rows = 2 ** (53 - PROB_BITS - 1)
        for probs, scratch in zip(self.probs.split(rows), self._scratch.split(rows), strict=True):
            sums += torch.mul(probs, 2.0**PROB_BITS, out=scratch).round_().sum(dim=0, dtype=torch.float64).long()
        return sums

    @cached_property
    def target_probs(self) -> Tensor:
        """Probability of the label ``(n,)``."""
        return self.probs.gather(1, self._index).squeeze(1).cpu()

    @cached_property
    def predicted(self) -> Tensor:
        """Arg-max class ``(n,)``, on the device of the scores; the first one among equals."""
        return self.scores.argmax(dim=1)

    @cached_property
    def rank(self) -> Tensor:
        """How many classes stand before the label ``(n,)``, 0 if it is predicted; of equal scores the first leads."""
        own = self.scores.gather(1, self._index)
        # Comparing into a float buffer and adding floats is twice as fast as adding booleans, and exact up to 2**24.
        ahead = torch.gt(self.scores, own, out=self._scratch).sum(dim=1)
        tied = (torch.eq(self.scores, own, out=self._scratch).sum(dim=1) > 1).nonzero().squeeze(1)
        if len(tied):
            before = torch.arange(self.scores.shape[1], device=self.scores.device) < self._index[tied]
            ahead[tied] += (before & (self.scores[tied] == own[tied])).sum(dim=1).to(ahead.dtype)
        return ahead.cpu()

    @cached_property
    def correct(self) -> Tensor:
        """Whether the predicted class is the label ``(n,)`` bool; equal to ``Predictions.correct``."""
        return self.rank == 0

    @cached_property
    def nll(self) -> Tensor:
        """``-log p_y`` ``(n,)`` float64, from the logits, so that it is finite where ``p_y`` underflows."""
        if self._are_probs:
            return -logarithm(self.target_probs.double())
        highest, own = self.logits.amax(dim=1), self.logits.gather(1, self._index).squeeze(1)
        below = highest.cpu().double() - own.cpu().double()  # which float32 could not hold for its largest numbers
        return below.clamp(max=torch.finfo(torch.float64).max) - self.confidence.double().log()

    @cached_property
    def squared_error(self) -> Tensor:
        """``sum_k (p_k - 1[k = y])**2`` ``(n,)`` float64."""
        own = self.probs.gather(1, self._index)
        if self._are_probs:  # the user's own tensor is not written to
            return (
                torch.square(self._probs_buffer.copy_(self.probs).scatter_(1, self._index, own - 1))
                .sum(dim=1)
                .cpu()
                .double()
            )
        # Expanding the square would cancel where p_y is near 1; instead the label's column is shifted for a moment.
        self.probs.scatter_(1, self._index, own - 1)
        error = torch.square(self.probs, out=self._scratch).sum(dim=1)
        self.probs.scatter_(1, self._index, own)
        return error.cpu().double()


class TopChunk(Chunk):
    """Some rows of which the top label alone is known: whatever else a metric asks of them raises an InputError."""

    def __init__(self, confidence: Tensor, correct: Tensor, weights: Tensor | None) -> None:
        # In place of the base's properties, which would compute both.
        vars(self).update(confidence=confidence, correct=correct, weights=weights)

    def __getattr__(self, name: str) -> Tensor:
        """What the base's constructor would set."""
        raise needs_all_classes("metrics")


class Statistic(Protocol):
    """Something gathered chunk by chunk.

    One that heeds the weights of a chunk, if there are any, has an attribute ``takes_weights`` that is True. Metrics
    made of any other refuse predictions with weights.
    """

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""


@runtime_checkable
class Sums(Statistic, Protocol):
    """A statistic of which shards can be added up: it is nothing but integer sums, or float64 sums of weights."""

    def tensors(self) -> dict[str, Tensor]:
        """All that was gathered: int64 (with weights float64 too) tensors on the CPU, themselves and not copies.

        Adding to each the tensor of the same name of another statistic, gathered from other rows, gives the statistic
        of all the rows.
        """


def chunks(predictions: AnyPredictions) -> Iterator[Chunk]:
    """The rows of ``predictions`` in order, a cache-sized chunk at a time."""
    if isinstance(predictions, TopLabel):
        for start in range(0, predictions.num_samples, CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            weights = None if predictions.weights is None else predictions.weights[part]
            yield TopChunk(predictions.confidence[part], predictions.correct[part], weights)
        return
    scores = predictions.scores
    on_cpu = scores.device.type == "cpu"
    rows = max(1, (CHUNK_ELEMENTS if on_cpu else ACCELERATOR_CHUNK_ELEMENTS) // predictions.num_classes)
    rows = min(rows, predictions.num_samples, CHUNK_ROWS if on_cpu else rows)
    buffers = (scores.new_empty(rows, predictions.num_classes), scores.new_empty(rows, predictions.num_classes))
    for start in range(0, predictions.num_samples, rows):
        part = slice(start, start + rows)
        label_probs = None if predictions.label_probs is None else predictions.label_probs[part]
        weights = None if predictions.weights is None else predictions.weights[part]
        target, are_probs = predictions.target[part], predictions.are_probs
        yield Chunk(scores[part], target, label_probs, buffers, weights, are_probs=are_probs)


@torch.no_grad()
def scan(predictions: AnyPredictions, statistics: Iterable[Statistic]) -> None:
    """Fill ``statistics`` in one pass over ``predictions``."""
    statistics = list(statistics)
    for chunk in chunks(predictions):
        for statistic in statistics:
            statistic.update(chunk)


class RowMean:
    """Statistic: the mean over all samples of a quantity of each row; the sum is exact.

    Args:
        quantity: From a chunk to ``(n,)``, bool or float.
        weighted: Whether samples have weights: it is the weighted mean then, from float64 sums.

    Attributes:
        quantity: The same; what resamples the rows takes their means of it without another pass.
    """

    takes_weights = True

    def __init__(self, quantity: Callable[[Chunk], Tensor], weighted: bool = False) -> None:
        self.quantity = quantity
        self._weighted = weighted
        self._sum = sums_for(1, weighted, digits=FLOAT_DIGITS)
        self._count = counts_for(1, weighted)

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        values = self.quantity(chunk).cpu()
        weights = chunk.weights if self._weighted else None
        self._sum.add(times(values, weights))
        self._count += len(values) if weights is None else weights.sum()

    def tensors(self) -> dict[str, Tensor]:
        """Sum and number of rows."""
        return {"sum": self._sum.digits, "count": self._count}

    @property
    def mean(self) -> float:
        """The mean so far."""
        if isinstance(self._sum, WeightedSum):
            return float(self._sum.floats()[0] / self._count[0])
        return self._sum.totals()[0] / (int(self._count) << POINT_BITS)
