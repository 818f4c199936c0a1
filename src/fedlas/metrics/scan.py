"""One pass over chunks of the logits, from which all metrics are computed.

A softmax of the whole array costs as much memory as the logits and, being written to fresh memory, about as much time
as all the default metrics together. Here the two work buffers are as large as one chunk and are used for every chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from fedlas._core import ops
from fedlas.predictions.tensors import safe_log, softmax
from fedlas.predictions.top_label import TopLabel, needs_all_classes_error

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import AnyPredictions

# Elements of logits per chunk. On a CPU, 4 MiB of float32 beside two buffers of that size stay in a shared cache, and
# are enough that the hundred small calls for each chunk do not count; an accelerator wants fewer and larger kernels.
CHUNK_ELEMENTS = 2**20
# Few classes make many rows of a chunk, and what is kept of each row must stay in the cache too.
CHUNK_ROWS = 2**15
ACCELERATOR_CHUNK_ELEMENTS = 2**24
_DOUBLES = 2**16
"""Numbers that are converted to float64 at a time: 512 KiB."""


class Chunk:
    """A chunk of rows, with the quantities that metrics need, each computed on first use.

    ``scores`` (logits, or probabilities that were passed) and ``probs`` ``(n, C)`` stay on their device. Quantities
    per row ``(n,)`` are on the CPU, where they are summed in float64 (which not every accelerator has).

    Args:
        scores: Logits ``(n, C)``, or probabilities.
        target: Labels ``(n,)``.
        label_probs: Label distributions ``(n, C)``, if there are any.
        buffers: Two tensors of at least ``n`` rows to work in.
        weights: ``(n,)`` float64; 1 where samples have none.
        are_probs: Whether ``scores`` are probabilities, which are then used as they are.

    Note:
        ``probs`` lives in a buffer that the next chunk overwrites. Keep sums of it, not views.

    Example:
        >>> buffers = torch.empty(2, 2), torch.empty(2, 2)
        >>> logits, weights = torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.ones(2).double()
        >>> chunk = Chunk(logits, torch.tensor([1, 1]), None, buffers, weights)
        >>> chunk.confidence, chunk.correct
        (tensor([0.5000, 0.9999]), tensor([False,  True]))
    """

    def __init__(
        self,
        scores: Tensor,
        target: Tensor,
        label_probs: Tensor | None,
        buffers: tuple[Tensor, Tensor],
        weights: Tensor,
        *,
        are_probs: bool = False,
    ) -> None:
        self.scores = scores
        self._are_probs = are_probs
        self.label_probs = label_probs
        self.weights = weights
        self._index = target.unsqueeze(1)
        self._probs_buffer, self._scratch = (buffer[: scores.shape[0]] for buffer in buffers)

    @cached_property
    def logits(self) -> Tensor:
        """Logits ``(n, C)``."""
        return safe_log(self.scores) if self._are_probs else self.scores

    @cached_property
    def target(self) -> Tensor:
        """Labels ``(n,)``."""
        return self._index.squeeze(1).cpu()

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities ``(n, C)``: the softmax of the logits, or the probabilities that were passed."""
        if self._are_probs:
            return self.scores
        # On a CPU they are the probabilities of the predictions, bit for bit.
        on_cpu = self.scores.device.type == "cpu"
        scores, buffer = self.scores, self._probs_buffer
        if on_cpu:
            ops.softmax(scores.numpy(), out=buffer.numpy())
        return buffer if on_cpu else softmax(scores, out=buffer)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class ``(n,)``, in ``[1/C, 1]``; equal to ``Predictions.confidence``."""
        return (self._highest if self._are_probs else self.probs.amax(dim=1)).cpu()

    @cached_property
    def class_sums(self) -> Tensor:
        """Weighted sum of each class's probability ``(C,)`` float64."""
        sums = torch.zeros(self.probs.shape[1], dtype=torch.float64, device="cpu")
        for probs, weights in _iter_float64_parts(self.probs, self.weights):
            sums += (weights.to(probs.device) @ probs).cpu()
        return sums

    @cached_property
    def target_probs(self) -> Tensor:
        """Probability of the label ``(n,)``."""
        return self.probs.gather(1, self._index).squeeze(1).cpu()

    @cached_property
    def predicted(self) -> Tensor:
        """Arg-max class ``(n,)``, on the device of the logits; the first one among ties."""
        return self.scores.argmax(dim=1)

    @cached_property
    def rank(self) -> Tensor:
        """Rank of the label ``(n,)``, 0 if it is predicted; ties are ordered by class index."""
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
        """``-log p_y`` ``(n,)`` float64, computed from the logits so that it stays finite if ``p_y`` underflows."""
        if self._are_probs:
            return -safe_log(self.target_probs.double())
        # In float64 the difference of two float32 is exact; the largest ones that there can be may overflow.
        below = self._highest.cpu().double() - self._target_score.squeeze(1).cpu().double()
        return below.clamp(max=torch.finfo(torch.float64).max) + self.log_partition

    @cached_property
    def log_partition(self) -> Tensor:
        """``log sum_k exp(logit_k - highest logit)`` ``(n,)`` float64."""
        highest = safe_log(self._highest) if self._are_probs else self._highest
        parts = _iter_float64_parts(self.logits, highest.unsqueeze(1))
        totals = [_exp_in_place(part.sub_(top)).sum(dim=1) for part, top in parts]
        return torch.cat(totals).log_().cpu()

    @cached_property
    def squared_error(self) -> Tensor:
        """``sum_k (p_k - 1[k = y])**2`` ``(n,)`` float64; half of it with two classes."""
        # Expanding the square would cancel where p_y is near 1; instead the label's square is replaced.
        squares = torch.square(self.probs, out=self._scratch)
        squares.scatter_(1, self._index, (self.probs.gather(1, self._index) - 1).square_())
        total = squares.sum(dim=1).cpu().double()
        return total / 2 if squares.shape[1] == 2 else total

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
        """Indices of rows where another class ties with the label ``(k,)``, and how many tied classes come first."""
        equal = torch.eq(self.scores, self._target_score, out=self._scratch)
        if float(equal.sum()) == len(equal):  # in nearly all chunks of real numbers
            return self._index[:0, 0], self._index[:0, 0]
        rows = (equal.sum(dim=1) > 1).nonzero().squeeze(1)
        first = torch.arange(equal.shape[1], device=equal.device) < self._index[rows]
        return rows, (first & (self.scores[rows] == self._target_score[rows])).sum(dim=1)


def _iter_float64_parts(matrix: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield float64 copies of blocks of rows of ``matrix (n, C)``, with the same rows of ``beside``."""
    if matrix.device.type == "mps":  # it has no float64
        matrix, beside = matrix.cpu(), beside.cpu()
    rows = max(1, _DOUBLES // matrix.shape[1]) if matrix.device.type == "cpu" else len(matrix)
    for part, other in zip(matrix.split(rows), beside.split(rows), strict=True):
        yield part.to(torch.float64, copy=True), other


def _exp_in_place(values: Tensor) -> Tensor:
    """Exponentiate in place, and return the tensor."""
    if values.device.type != "cpu":
        return values.exp_()
    # NumPy's takes half of the time that torch's does.
    np.exp(values.numpy(), out=values.numpy())
    return values


class TopLabelChunk(Chunk):
    """A chunk of top labels: quantities other than confidence and correctness raise an InputError."""

    def __init__(self, confidence: Tensor, correct: Tensor, weights: Tensor) -> None:
        # In place of the base's properties, which would compute both.
        vars(self).update(confidence=confidence, correct=correct, weights=weights)

    def __getattr__(self, name: str) -> Tensor:
        """Return an attribute that the base's constructor would set."""
        raise needs_all_classes_error()


class ChunkConsumer(Protocol):
    """Protocol of anything that is updated chunk by chunk, see :class:`~fedlas.metrics.Statistic`."""

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""


def iter_chunks(predictions: AnyPredictions) -> Iterator[Chunk]:
    """Yield the rows of ``predictions`` in cache-sized chunks."""
    scores = (
        predictions.tensors().confidence
        if isinstance(predictions, TopLabel)
        else predictions.tensors().scores
    )
    samples = len(scores)
    weights = predictions.tensors().weights
    if weights is None:
        weights = torch.ones(1, dtype=torch.float64, device="cpu").expand(samples)
    if isinstance(predictions, TopLabel):
        for start in range(0, samples, CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            yield TopLabelChunk(scores[part], predictions.tensors().correct[part], weights[part])
        return
    are_probs = predictions.are_probs
    on_cpu = scores.device.type == "cpu"
    elements = CHUNK_ELEMENTS if on_cpu else ACCELERATOR_CHUNK_ELEMENTS
    rows = min(max(1, elements // scores.shape[1]), samples)
    rows = min(rows, CHUNK_ROWS) if on_cpu else rows
    shape = (rows, scores.shape[1])
    buffers = (scores.new_empty(shape), scores.new_empty(shape))
    label_probs = predictions.tensors().label_probs
    for start in range(0, samples, rows):
        part = slice(start, start + rows)
        yield Chunk(
            scores[part],
            predictions.tensors().target[part],
            None if label_probs is None else label_probs[part],
            buffers,
            weights[part],
            are_probs=are_probs,
        )


@torch.no_grad()
def scan(predictions: AnyPredictions, statistics: Iterable[ChunkConsumer]) -> None:
    """Update ``statistics`` with all chunks of ``predictions``, in one pass."""
    statistics = list(statistics)
    for chunk in iter_chunks(predictions):
        for statistic in statistics:
            statistic.update(chunk)
