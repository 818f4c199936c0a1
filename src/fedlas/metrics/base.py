"""The registry of metrics, and the two parts a metric is made of: a statistic gathered in one pass, and its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from fedlas._core.check import check_count
from fedlas._core.registry import Entry, Registry
from fedlas.metrics.ranking import Floats
from fedlas.metrics.scan import Chunk, RowMean, Statistic, scan
from fedlas.metrics.weighted import check_takes_weights, has_weights
from fedlas.predictions.predictions import AnyPredictions, check_measurable, check_predictions

METRICS: Registry[Callable[..., float]] = Registry("metric")
"""Functions ``Predictions -> float``.

Metadata: ``title`` (column head in tables), ``higher_is_better`` (None if it has a sign and 0 is best), ``percent``
(reports multiply by 100), ``paper``; optional ``one_pass`` (an :class:`OnePass`: shares the one pass of
``evaluate``; without it the function is simply called), ``streaming`` (an :class:`Approximation` from sums, where
``one_pass`` keeps all samples), ``needs`` (optional arrays of ``Predictions`` without which the metric is skipped, a
frozenset of names), ``default`` (False keeps the metric out of ``evaluate``), ``detail`` (True shows it in a second
table of reports), ``ranked`` (False: it has a direction, but no best method, because one gets better in it by getting
worse in another, as O-ECE falls when all confidences do; reports keep its arrow and its noise floor, and mark no best),
``top_label`` (True: a metric without ``one_pass`` that takes a :class:`~fedlas.TopLabel` too; a pass knows by itself),
``zero_if_calibrated`` (True: never negative, and goes to 0 with growing ``N`` if the model is calibrated),
``weighted`` (True: a function without ``one_pass`` that heeds ``predictions.weights``; others refuse them) and
``unbiased`` (True: an estimator whose mean over test sets is what it estimates, though that of its bootstrap replicates
is not, so that their bias must not be taken off the value).
"""

MetricEntry = Entry[Callable[..., float]]
S = TypeVar("S", bound=Statistic)
Variant = Literal["exact", "reference"]
"""The definition, or the published code where that differs."""


@dataclass(frozen=True)
class OnePass(Generic[S]):
    """How a metric is computed in one pass: what to gather from the chunks of the logits, and the number from it.

    Metrics whose ``statistic`` is the same object share it in ``evaluate``, so its work is done once.

    Args:
        owner: Name of the metric's function, for errors.
        statistic: ``(predictions, num_bins) -> Statistic``, empty; metrics without bins ignore ``num_bins``. One that
            asks chunks for ``confidence`` and ``correct`` alone has an attribute ``top_label = True``.
        value: From the filled statistic to the metric. Of this library's statistics it takes arrays with a leading
            axis of replicates as well, as the bootstrap has them, and gives one value for each.
    """

    owner: str
    statistic: Callable[[Any, int], S]
    value: Callable[[S], float | Floats]

    @property
    def top_label(self) -> bool:
        """Whether the top label is enough, so that a :class:`~fedlas.TopLabel` can be measured."""
        return bool(getattr(self.statistic, "top_label", False))

    def __call__(self, predictions: AnyPredictions, *, num_bins: int = 15) -> float:
        """The metric of ``predictions``, in a pass of its own."""
        return float(self.value(self.gather(predictions, num_bins=num_bins)))

    def gather(self, predictions: AnyPredictions, *, num_bins: int = 15) -> S:
        """The filled statistic.

        Raises:
            InputError: If ``predictions`` are no :class:`Predictions`, nor a :class:`~fedlas.TopLabel` where that is
                enough, have weights of which the statistic does not know, or ``num_bins`` is not a count.
        """
        (check_measurable if self.top_label else check_predictions)(self.owner, predictions)
        statistic = self.statistic(predictions, check_count(self.owner, "num_bins", num_bins))
        check_takes_weights(self.owner, predictions, takes_weights=getattr(statistic, "takes_weights", False))
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


def row_mean(owner: str, quantity: Callable[[Chunk], Tensor], *, top_label: bool = False) -> OnePass[RowMean]:
    """The single pass of a metric that is the mean of a ``quantity (n,)`` of each row.

    Args:
        owner: Name of the metric's function, for errors.
        quantity: From a chunk to ``(n,)``, bool or float.
        top_label: Whether it asks for ``confidence`` and ``correct`` alone.
    """
    return OnePass(owner, _EmptyMean(quantity, top_label), mean_of_rows)


@dataclass(frozen=True)
class _EmptyMean:
    """Makes the empty statistic."""

    quantity: Callable[[Chunk], Tensor]
    top_label: bool

    def __call__(self, predictions: AnyPredictions, _num_bins: int) -> RowMean:
        return RowMean(self.quantity, has_weights(predictions))


def top_label_is_enough(entry: MetricEntry) -> bool:
    """Whether a metric can be computed of a :class:`~fedlas.TopLabel`."""
    one_pass: AnyOnePass | None = entry.metadata.get("one_pass")
    return bool(entry.metadata.get("top_label")) if one_pass is None else one_pass.top_label


def mean_of_rows(rows: RowMean) -> float:
    """The value of every :func:`row_mean` pass, by which one is recognized."""
    return rows.mean
