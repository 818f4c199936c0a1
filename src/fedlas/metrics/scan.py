"""The registry of metrics, and one pass over the logits from whose chunks every metric takes what it needs.

A softmax of the whole array costs as much memory as the logits and, being written to fresh memory, about as much time
as all the default metrics together. Here the two work buffers are as large as one chunk and are used for every chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from fedlas._core.check import check_count
from fedlas._core.registry import Entry, Registry
from fedlas.metrics.ranking import Floats
from fedlas.metrics.sums import UNIT_BITS, check_takes_weights
from fedlas.predictions.predictions import AnyPredictions, check_measurable, check_predictions
from fedlas.predictions.probabilities import logarithm, softmax
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
        self.scores = scores
        self._are_probs = are_probs
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
        return self.scores if self._are_probs else softmax(self.scores, out=self._probs_buffer)

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
        # float32 may not hold it
        below = highest - self.logits.gather(1, self._index).squeeze(1).cpu().double()
        return below.clamp(max=torch.finfo(torch.float64).max) - self.confidence.double().log()


def in_units(probs: Tensor) -> Tensor:
    """Return probabilities in units of ``2**-UNIT_BITS``, int64, each rounded as :attr:`Chunk.class_sums` rounds it."""
    return (probs * 2.0**UNIT_BITS).round_().long()


def _sum_rows(values: Tensor) -> Tensor:
    """Return the sums over the rows ``(C,)`` float64 of values of which float32 adds 256 rows exactly."""
    whole = len(values) - len(values) % _EXACT_ROWS
    sums = values[whole:].sum(dim=0).double()
    if whole:
        sums += (
            values[:whole]
            .view(-1, _EXACT_ROWS, values.shape[1])
            .sum(dim=1)
            .sum(dim=0, dtype=torch.float64)
        )
    return sums


class TopChunk(Chunk):
    """Some rows of which the top label alone is known: whatever else a metric asks of them raises an InputError."""

    def __init__(self, confidence: Tensor, correct: Tensor, weights: Tensor | None) -> None:
        # In place of the base's properties, which would compute both.
        vars(self).update(confidence=confidence, correct=correct, weights=weights)

    def __getattr__(self, name: str) -> Tensor:
        """Return an attribute that the base's constructor would set."""
        raise needs_all_classes()


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
        """Return all that was gathered: int64 (with weights float64 too) tensors on the CPU, themselves and not copies.

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
    rows = max(
        1, (CHUNK_ELEMENTS if on_cpu else ACCELERATOR_CHUNK_ELEMENTS) // predictions.num_classes
    )
    rows = min(rows, predictions.num_samples, CHUNK_ROWS if on_cpu else rows)
    buffers = (
        scores.new_empty(rows, predictions.num_classes),
        scores.new_empty(rows, predictions.num_classes),
    )
    for start in range(0, predictions.num_samples, rows):
        part = slice(start, start + rows)
        label_probs, weights = (
            None if each is None else each[part]
            for each in (predictions.label_probs, predictions.weights)
        )
        yield Chunk(
            scores[part],
            predictions.target[part],
            label_probs,
            buffers,
            weights,
            are_probs=predictions.are_probs,
        )


@torch.no_grad()
def scan(predictions: AnyPredictions, statistics: Iterable[Statistic]) -> None:
    """Fill ``statistics`` in one pass over ``predictions``."""
    statistics = list(statistics)
    for chunk in chunks(predictions):
        for statistic in statistics:
            statistic.update(chunk)


@dataclass(frozen=True)
class Metric(Entry[Callable[..., float]]):
    """One registered metric: its function, how it is computed and how it is shown.

    Attributes:
        name: Registry name, lower-case.
        value: The function, ``Predictions -> float``.
        summary: First line of its docstring.
        title: Column head in tables; the name where none is passed.
        order: Place among the columns of tables; metrics of others come last.
        default: Whether ``evaluate`` computes it.
        higher_is_better: None if it has a sign and 0 is best.
        percent: Whether reports multiply it by 100.
        detail: Whether reports show it in their second table.
        ranked: False if one gets better in it by getting worse in another, as O-ECE falls when all confidences do:
            reports keep its arrow and its noise floor, and mark no best.
        paper: Where it comes from.
        needs: Optional arrays of ``Predictions`` without which it is skipped.
        one_pass: How it is computed in the pass of ``evaluate``; without it the function is called.
        streaming: From sums, where ``one_pass`` keeps all samples.
        top_label: Whether a metric without ``one_pass`` takes a :class:`~fedlas.TopLabel` too.
        weighted: Whether a metric without ``one_pass`` heeds ``predictions.weights``; others refuse them.
        several_labels: Whether it raises InputError where all samples have one label.
        zero_if_calibrated: Whether it is never negative, and goes to 0 with growing ``N`` if the model is calibrated.
        squares: Whether it is a sum of squared gaps, of which a part is chance whatever the truth.
        unbiased: Whether its mean over test sets is what it estimates, though that of its bootstrap replicates is not,
            so that their bias must not be taken off the value.
        influence: From predictions to how much each sample moves the metric ``(N,)``, or None: intervals and paired
            tests come from its sums in place of replicates.
    """

    title: str = ""
    order: float = math.inf
    default: bool = True
    higher_is_better: bool | None = False
    percent: bool = True
    detail: bool = False
    ranked: bool = True
    paper: str = ""
    needs: frozenset[str] = frozenset()
    one_pass: OnePass[Any] | None = None
    streaming: Approximation[Any] | None = None
    top_label: bool = False
    weighted: bool = False
    several_labels: bool = False
    zero_if_calibrated: bool = False
    squares: bool = False
    unbiased: bool = False
    influence: Callable[[Any], Floats | None] | None = None


class MetricRegistry(Registry[Callable[..., float]]):
    """Metrics by name, in the order of their columns."""

    def add(self, name: str, value: Callable[..., float], **fields: Any) -> None:
        """Register a function ``Predictions -> float`` with the fields of :class:`Metric`."""
        super().add(name, value)
        metadata = {"paper": fields.get("paper", "")}
        fields = {"title": name, **fields}
        self._entries[name] = Metric(name, value, self._entries[name].summary, metadata, **fields)
        # Sorting is stable: metrics of others keep the order of their registration.
        self._entries = {each.name: each for each in sorted(self.entries(), key=_order)}

    def __getitem__(self, name: str) -> Metric:
        return cast(Metric, super().__getitem__(name))

    def entries(self) -> list[Metric]:  # type: ignore[override]  # narrower
        """Return all metrics, in the order of their columns."""
        return cast("list[Metric]", super().entries())


def _order(metric: Metric) -> float:
    return metric.order


METRICS = MetricRegistry("metric", ignores_case=True)
"""Functions ``Predictions -> float``, each with its :class:`Metric` record."""

S = TypeVar("S", bound=Statistic)
Variant = Literal["exact", "reference"]
"""The definition, or the published code where that differs."""


@dataclass(frozen=True)
class OnePass(Generic[S]):
    """How a metric is computed in one pass: what to gather from the chunks of the logits, and the number from it.

    Metrics whose ``statistic`` is the same object share it in ``evaluate``, so its work is done once.

    Args:
        statistic: ``(predictions, num_bins) -> Statistic``, empty; metrics without bins ignore ``num_bins``. One that
            asks chunks for ``confidence`` and ``correct`` alone has an attribute ``top_label = True``.
        value: From the filled statistic to the metric. Of this library's statistics it takes arrays with a leading
            axis of replicates as well, as the bootstrap has them, and gives one value for each.
    """

    statistic: Callable[[Any, int], S]
    value: Callable[[S], float | Floats]

    @property
    def top_label(self) -> bool:
        """Whether the top label is enough, so that a :class:`~fedlas.TopLabel` can be measured."""
        return bool(getattr(self.statistic, "top_label", False))

    def __call__(self, predictions: AnyPredictions, *, num_bins: int = 15) -> float:
        """Return the metric of ``predictions``, in a pass of its own."""
        return float(self.value(self.gather(predictions, num_bins=num_bins)))

    def gather(self, predictions: AnyPredictions, *, num_bins: int = 15) -> S:
        """Return the filled statistic.

        Raises:
            InputError: If ``predictions`` are no :class:`Predictions`, nor a :class:`~fedlas.TopLabel` where that is
                enough, have weights of which the statistic does not know, or ``num_bins`` is not a count.
        """
        predictions = (check_measurable if self.top_label else check_predictions)(predictions)
        statistic = self.statistic(predictions, check_count("num_bins", num_bins))
        check_takes_weights(predictions, takes_weights=getattr(statistic, "takes_weights", False))
        scan(predictions, [statistic])
        return statistic


AnyOnePass = OnePass[Any]


@dataclass(frozen=True)
class Approximation(Generic[S]):
    """How a metric that depends on all samples is computed, nearly, from sums that do not grow with them.

    Args:
        one_pass: With a statistic that can be added up (:class:`~fedlas.metrics.scan.Sums`).
        error: From the filled statistic to how far the value can at most be from the metric's own.
    """

    one_pass: OnePass[S]
    error: Callable[[S], float]


def top_label_is_enough(entry: Metric) -> bool:
    """Return whether a metric can be computed of a :class:`~fedlas.TopLabel`."""
    one_pass: AnyOnePass | None = entry.one_pass
    return bool(entry.top_label) if one_pass is None else one_pass.top_label
