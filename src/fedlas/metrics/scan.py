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

from fedlas.metrics.sums import LIMBS, TOTAL_BITS, UNIT_BITS, add_total, exact_total, total_of
from fedlas.predictions.predictions import AnyPredictions
from fedlas.predictions.probabilities import logarithm
from fedlas.predictions.top_label import TopLabel, needs_all_classes

# Elements of logits per chunk. On a CPU, 4 MiB of float32 beside two buffers of that size stay in a shared cache, and
# are enough that the hundred small calls for each chunk do not count; an accelerator wants fewer and larger kernels.
CHUNK_ELEMENTS = 2**20
# Few classes make many rows of a chunk, and what is kept of each row must stay in the cache too.
CHUNK_ROWS = 2**15
ACCELERATOR_CHUNK_ELEMENTS = 2**24
_EXACT_ROWS = 2**8
_UNDERFLOW = 1e-30
"""Smaller probabilities lose digits in single precision: the NLL then comes from the logits."""


class Chunk:
    """Some rows of the logits, with what metrics ask of them; each quantity is computed when first asked for.

    ``scores`` (logits, or probabilities that were passed) and ``probs`` ``(n, C)`` stay on their device. Quantities
    per row ``(n,)`` are on the CPU, where they are summed in float64 (which not every accelerator has) in a fixed
    order. So are ``weights (n,)``, None if every sample counts once.

    Args:
        scores: Logits ``(n, C)``, or probabilities.
        target: Labels ``(n,)``.
        label_probs: Label distributions ``(n, C)``, if there are any.
        buffers: Two tensors of at least ``n`` rows to work in.
        weights: ``(n,)``.
        are_probs: Whether ``scores`` are probabilities, which are then used as they are.

    Note:
        ``probs`` lives in a buffer that the next chunk overwrites. Keep sums of it, not views.
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
        self.scores, self._are_probs = scores, are_probs
        self.label_probs = label_probs
        self.weights = weights
        self._index = target.unsqueeze(1)
        self._probs_buffer, self._scratch = (buffer[: scores.shape[0]] for buffer in buffers)

    @cached_property
    def logits(self) -> Tensor:
        """Logits ``(n, C)``."""
        return logarithm(self.scores) if self._are_probs else self.scores

    @cached_property
    def target(self) -> Tensor:
        """Labels ``(n,)``."""
        return self._index.squeeze(1).cpu()

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities ``(n, C)``: the softmax of the logits, or those that the predictions were made of."""
        return self.scores if self._are_probs else torch.softmax(self.scores, 1, out=self._probs_buffer)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class ``(n,)``, in ``[1/C, 1]``; equal to ``Predictions.confidence``."""
        return (self._highest if self._are_probs else self.probs.amax(dim=1)).cpu()

    @cached_property
    def class_sums(self) -> Tensor:
        """Sum of each class's probability ``(C,)``, int64 in units of ``2**-UNIT_BITS``, exact after rounding each."""
        if self.probs.device.type != "cpu" or self.probs.dtype != torch.float32:
            return in_units(self.probs).sum(dim=0).cpu()
        # A high and a low part, of so few bits that float32 adds some rows of each without rounding. Adding and taking
        # off a number of another size rounds to multiples of its last bit: 2**-16, then 2**-32.
        part = self._scratch
        torch.add(self.probs, 2.0**7, out=part).sub_(2.0**7)
        sums = _sum_rows(part)
        torch.sub(self.probs, part, out=part).add_(1.5 * 2.0**-9).sub_(1.5 * 2.0**-9)
        return ((sums + _sum_rows(part)) * 2.0**UNIT_BITS).long()

    @cached_property
    def target_probs(self) -> Tensor:
        """Probability of the label ``(n,)``."""
        return self.probs.gather(1, self._index).squeeze(1).cpu()

    @cached_property
    def predicted(self) -> Tensor:
        """Arg-max class ``(n,)``, on the device of the logits; the first one among equals."""
        return self.scores.argmax(dim=1)

    @cached_property
    def rank(self) -> Tensor:
        """How many classes stand before the label ``(n,)``, 0 if it is predicted; of equal logits the first leads."""
        # Comparing into a float buffer and adding floats is twice as fast as adding booleans, and exact up to 2**24.
        ahead = torch.gt(self.scores, self._target_score, out=self._scratch).sum(dim=1)
        rows, before = self._ties
        if len(rows):
            ahead[rows] += before.to(ahead.dtype)
        return ahead.cpu()

    @cached_property
    def correct(self) -> Tensor:
        """Whether the predicted class is the label ``(n,)`` bool; equal to ``Predictions.correct``."""
        correct = self._target_score.squeeze(1) >= self._highest
        rows, before = self._ties
        if len(rows):
            correct[rows] &= before == 0
        return correct.cpu()

    @cached_property
    def nll(self) -> Tensor:
        """``-log p_y`` ``(n,)`` float64; finite, because it comes from the logits where ``p_y`` nearly underflows."""
        small = self.target_probs < _UNDERFLOW
        nll = -self.target_probs.double().log()
        if small.any():
            nll[small] = self._nll_of_logits[small]
        return nll

    @cached_property
    def squared_error(self) -> Tensor:
        """``sum_k (p_k - 1[k = y])**2`` ``(n,)`` float64."""
        # Expanding the square would cancel where p_y is near 1; instead the label's square is replaced.
        squares = torch.square(self.probs, out=self._scratch)
        squares.scatter_(1, self._index, (self.probs.gather(1, self._index) - 1).square_())
        return squares.sum(dim=1).cpu().double()

    @cached_property
    def _target_score(self) -> Tensor:
        """Logit or probability of the label ``(n, 1)``."""
        return self.scores.gather(1, self._index)

    @cached_property
    def _highest(self) -> Tensor:
        """Highest logit or probability ``(n,)``."""
        return self.scores.amax(dim=1)

    @cached_property
    def _ties(self) -> tuple[Tensor, Tensor]:
        """Rows in which another class has the label's score ``(k,)``, and how many such classes are before it."""
        equal = torch.eq(self.scores, self._target_score, out=self._scratch)
        if float(equal.sum()) == len(equal):  # in nearly all chunks of real numbers
            return self._index[:0, 0], self._index[:0, 0]
        rows = (equal.sum(dim=1) > 1).nonzero().squeeze(1)
        first = torch.arange(equal.shape[1], device=equal.device) < self._index[rows]
        return rows, (first & (self.scores[rows] == self._target_score[rows])).sum(dim=1)

    @property
    def _nll_of_logits(self) -> Tensor:
        highest = self.logits.amax(dim=1).cpu().double()
        below = highest - self.logits.gather(1, self._index).squeeze(1).cpu().double()  # float32 may not hold it
        return below.clamp(max=torch.finfo(torch.float64).max) - self.confidence.double().log()


def in_units(probs: Tensor) -> Tensor:
    """Return probabilities in units of ``2**-UNIT_BITS``, int64, each rounded as :attr:`Chunk.class_sums` rounds it."""
    return (probs * 2.0**UNIT_BITS).round_().long()


def _sum_rows(values: Tensor) -> Tensor:
    """Return the sums over the rows ``(C,)`` float64 of values of which float32 adds 256 rows exactly."""
    whole = len(values) - len(values) % _EXACT_ROWS
    sums = values[whole:].sum(dim=0).double()
    if whole:
        sums += values[:whole].view(-1, _EXACT_ROWS, values.shape[1]).sum(dim=1).sum(dim=0, dtype=torch.float64)
    return sums


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
    """Yield the rows of ``predictions`` in order, a cache-sized chunk at a time."""
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
        label_probs, weights = (
            None if each is None else each[part] for each in (predictions.label_probs, predictions.weights)
        )
        yield Chunk(
            scores[part], predictions.target[part], label_probs, buffers, weights, are_probs=predictions.are_probs
        )


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
        kind = torch.float64 if weighted else torch.int64
        self._sum = torch.zeros(1 if weighted else LIMBS, dtype=kind, device="cpu")
        self._count = torch.zeros(1, dtype=kind, device="cpu")

    def update(self, chunk: Chunk) -> None:
        """Take in the rows of ``chunk``."""
        values = self.quantity(chunk).cpu()
        if self._weighted and chunk.weights is not None:
            self._sum += (values.double() * chunk.weights).sum()
            self._count += chunk.weights.sum()
            return
        hits = values.dtype == torch.bool
        add_total(self._sum, int(values.sum()) << TOTAL_BITS if hits else exact_total(values.double().numpy()))
        self._count += len(values)

    def tensors(self) -> dict[str, Tensor]:
        """Sum and number of rows."""
        return {"sum": self._sum, "count": self._count}

    @property
    def mean(self) -> float:
        """The mean so far."""
        if self._weighted:
            return float(self._sum[0] / self._count[0])
        return total_of(self._sum) / (int(self._count) << TOTAL_BITS)
