"""Samples of an event, sorted by group: weighted sums of each group, their variances and degrees of freedom."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.ops import softplus
from fedlas.resample.clusters import clustered_sum_variance
from fedlas.resample.effective import effective_sample_size_by_group
from fedlas.stats.degrees import group_degrees_of_freedom

if TYPE_CHECKING:
    from fedlas._core.types import BoolArray, FloatArray, IntArray
    from fedlas.binary.positive import Positive


@dataclass(frozen=True, eq=False)
class GroupedSamples:
    """Samples of one class against the rest, sorted by group; every group has at least one.

    Sums have a leading group axis ``(G,)``. Terms are ``(N,)``, or ``(k, N)`` for ``k`` sums.
    """

    # As in :class:`Positive`, `(N,)`.
    log_odds: FloatArray
    probability: FloatArray
    outcome: FloatArray
    # Samples of each group `(G,)`.
    size: IntArray
    # `(N,)` that average 1 in each group; None if every sample counts once.
    weights: FloatArray | None = None
    # Number of each sample's cluster `(N,)`, from 0 on, of which no two groups share one; None if all are independent.
    clusters: IntArray | None = None
    is_certain: BoolArray | None = None

    @classmethod
    def from_positive(cls, data: Positive, codes: IntArray | None = None) -> GroupedSamples:
        """Return the samples sorted by group codes ``(N,)``; None puts all into one group."""
        if codes is None:
            arrays = data.log_odds, data.probability, data.outcome
            size = np.array([data.num_samples])
            return cls(*arrays, size, data.weights, data.clusters, data.is_certain)
        order = np.argsort(codes, kind="stable")
        size = np.bincount(codes)
        groups = cls(
            data.log_odds[order], data.probability[order], data.outcome[order], size[size > 0]
        )
        if data.is_certain is not None:
            groups = replace(groups, is_certain=data.is_certain[order])
        if data.weights is not None:
            groups = groups._with_weights(data.weights[order])
        if data.clusters is None:
            return groups
        pair = codes[order] * (data.clusters.max() + 1) + data.clusters[order]
        return replace(groups, clusters=np.unique(pair, return_inverse=True)[1])

    def _with_weights(self, weights: FloatArray) -> GroupedSamples:
        """Return the samples with weights ``(N,)``, scaled to average 1 in each group."""
        return replace(
            self, weights=weights / self.broadcast(self.sum_by_group(weights) / self.size)
        )

    def select(self, chosen: BoolArray) -> GroupedSamples:
        """Return the samples of the chosen groups ``(G,)``."""
        return self if chosen.all() else self._take(np.repeat(chosen, self.size), self.size[chosen])

    def finite(self) -> tuple[GroupedSamples, IntArray]:
        """Return the samples whose log-odds are finite, and how many each group has ``(G,)``.

        Samples of a probability of exactly 0 or 1 are left out, and so are groups that have no others.
        """
        if self.is_certain is None:
            return self, self.size
        size = self.sum_by_group((~self.is_certain).astype(np.float64)).astype(np.int64)
        some = replace(self._take(~self.is_certain, size[size > 0]), is_certain=None)
        return some if some.weights is None else some._with_weights(some.weights), size

    def _take(self, rows: BoolArray, size: IntArray) -> GroupedSamples:
        """Return the samples in a mask ``(N,)``, which leaves ``size (G',)`` in each group that it leaves."""
        clusters = None if self.clusters is None else self.clusters[rows]
        return replace(
            self,
            log_odds=self.log_odds[rows],
            probability=self.probability[rows],
            outcome=self.outcome[rows],
            size=size,
            weights=None if self.weights is None else self.weights[rows],
            clusters=None if clusters is None else np.unique(clusters, return_inverse=True)[1],
            is_certain=None if self.is_certain is None else self.is_certain[rows],
        )

    @property
    def is_iid(self) -> bool:
        """Whether samples are independent and unweighted."""
        return self.weights is None and self.clusters is None

    @property
    def events(self) -> IntArray:
        """Number of events in each group ``(G,)``."""
        return self.sum_by_group(self.outcome).astype(np.int64)

    @property
    def counts(self) -> FloatArray:
        """Weight of each sample ``(N,)``, or ones; averages 1 in each group."""
        return np.ones(len(self.outcome)) if self.weights is None else self.weights

    def weigh(self, terms: FloatArray) -> FloatArray:
        """Return the terms times the weights."""
        return terms if self.weights is None else terms * self.weights

    def broadcast(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the value of each sample's group ``(N,)``, or ``(1,)`` for one group, from ``values (G,)``."""
        return values if len(self.size) == 1 else np.repeat(values, self.size)

    def sum_by_group(self, terms: FloatArray, function: np.ufunc = np.add) -> FloatArray:
        """Return the sums of terms in each group ``(G,)`` or ``(k, G)``, or another reduction by ``function``."""
        if len(self.size) == 1 and terms.size:  # by pairs, which is faster and more exact
            whole: FloatArray = function.reduce(terms, axis=-1, keepdims=True)
            return whole
        start = np.concatenate(([0], self.size.cumsum()[:-1]))
        return np.asarray(function.reduceat(terms, start, axis=-1), dtype=np.float64)

    def mean(self, terms: FloatArray) -> FloatArray:
        """Return the weighted mean of the terms in each group ``(G,)``."""
        return self.sum_by_group(self.weigh(terms)) / self.size

    def dot(self, columns: FloatArray, terms: FloatArray) -> FloatArray:
        """Return the sums of ``terms (N,)`` times each of the ``columns (k, N)`` in each group ``(G, k)``."""
        if len(self.size) == 1:
            one: FloatArray = columns @ terms
            return one[None]
        return self.sum_by_group(columns * terms).T

    def products(self, columns: FloatArray, factors: FloatArray) -> FloatArray:
        """Return the sums of ``factors (N,)`` times products of two ``columns (k, N)``, in each group ``(G, k, k)``."""
        if len(self.size) == 1:
            return np.asarray(((columns * factors) @ columns.T)[None])
        matrix = np.empty((len(self.size), len(columns), len(columns)))
        for first, column in enumerate(columns * factors):
            for second in range(first + 1):
                sums = self.sum_by_group(column * columns[second])
                matrix[:, first, second] = matrix[:, second, first] = sums
        return matrix

    def combine(self, columns: FloatArray, coefficients: FloatArray) -> FloatArray:
        """Return each sample's linear combination ``(N,)`` of ``columns (k, N)``, by its group's ``(G, k)``."""
        if len(self.size) == 1:
            return np.asarray(coefficients[0] @ columns)
        terms = zip(coefficients.T, columns, strict=True)
        return np.asarray(sum(self.broadcast(each) * column for each, column in terms))

    def variance_of_sum(self, terms: FloatArray) -> FloatArray:
        """Return the variance of the weighted sum of terms that have mean 0 ``(G,)``, or covariance ``(G, k, k)``.

        NaN for a group of one cluster.
        """
        sums = self.weigh(terms)
        if self.clusters is None:
            return self._squares(sums)
        # Samples of one cluster may depend on each other in any way.
        group = self._group_of_clusters(self.clusters)
        count = np.bincount(group)
        if terms.ndim == 1:
            squares = np.bincount(group, np.bincount(self.clusters, sums) ** 2)
            return clustered_sum_variance(squares, count)
        totals = [np.bincount(self.clusters, each) for each in sums]
        products = [[np.bincount(group, one * other) for other in totals] for one in totals]
        return np.moveaxis(clustered_sum_variance(np.array(products), count), -1, 0)

    def _squares(self, sums: FloatArray) -> FloatArray:
        """Return the sum of squares ``(G,)`` of ``sums (N,)``, or of products ``(G, k, k)`` of ``(k, N)``."""
        if sums.ndim == 1:
            return self.sum_by_group(sums**2)
        return self.products(sums, np.ones(1))

    def binomial_variance(self, factors: FloatArray, probability: FloatArray) -> FloatArray:
        """Return the variance ``(G,)`` or ``(G, k, k)`` of weighted sums of factors times gaps of independent outcomes.

        Args:
            factors: ``(N,)`` or ``(k, N)``.
            probability: Of the events ``(N,)``.
        """
        return self._squares(self.weigh(factors) * np.sqrt(probability * (1.0 - probability)))

    def covariances(self, factors: FloatArray, probability: FloatArray) -> list[FloatArray]:
        """Return sandwich, and with weights also model-based, variances of sums of factors times gaps.

        Arguments and shapes are those of :meth:`binomial_variance`. The first is measured; no variance is to be taken
        below that of any of them.
        """
        measured = self.variance_of_sum(factors * (self.outcome - probability))
        # Weights give a few gaps most of the sum of squares, which is then mostly too small: of calibrated models with
        # 4, 8 and 28 events 70 to 90 % of slopes were held (`results/coverage.md`). In clusters events are not
        # independent, and Student's degrees allow for a variance from few of them.
        if self.weights is None or self.clusters is not None:
            return [measured]
        return [measured, self.binomial_variance(factors, probability)]

    def event_sum_error(self, terms: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the standard error of a sum of gaps between outcome and probability, and its degrees of freedom.

        ``terms (N,)`` are the gaps less their mean. The error ``(G,)`` is not below that of independent events.
        """
        lowest = self.binomial_variance(np.ones(len(terms)), self.probability)
        error = np.sqrt(np.maximum(self.variance_of_sum(terms), lowest))
        return error, self.degrees(np.sqrt(self.probability * (1.0 - self.probability)))

    def effective_samples(self) -> FloatArray:
        """Return the effective number of samples, or clusters, of each group ``(G,)`` (Kish)."""
        if self.clusters is None:
            return effective_sample_size_by_group(self.counts, self._group)
        weights = np.bincount(self.clusters, self.counts)
        return effective_sample_size_by_group(weights, self._group_of_clusters(self.clusters))

    def degrees(self, terms: FloatArray) -> FloatArray:
        """Return the degrees of freedom ``(G,)`` of each group's variance, or of the covariance of ``k`` sums.

        See :func:`~fedlas.stats.degrees.degrees_of_freedom`.
        """
        if self.clusters is None:
            return np.full(len(self.size), math.inf)
        sums = self.weigh(terms)
        if terms.ndim == 1:
            total = self.sum_by_group(sums * sums)
            squares = sums * sums / self.broadcast(np.maximum(total, 1e-300))
        else:
            # Several sums are counted in units in which their terms are uncorrelated.
            inverse = np.linalg.pinv(self._squares(sums), hermitian=True)
            rows = [self.combine(sums, row) for row in np.moveaxis(inverse, 1, 0)]
            squares = np.sum(sums * rows, axis=0)
        squares = np.bincount(self.clusters, squares)
        return group_degrees_of_freedom(squares, self._group_of_clusters(self.clusters))

    @property
    def _group(self) -> IntArray:
        """Group of each sample ``(N,)``."""
        return np.repeat(np.arange(len(self.size)), self.size)

    def _group_of_clusters(self, clusters: IntArray) -> IntArray:
        """Return the group of each cluster ``(K,)``."""
        group = np.empty(clusters.max() + 1, dtype=np.int64)
        group[clusters] = self._group
        return group

    def log_likelihood(self, log_odds: FloatArray) -> FloatArray:
        """Return the log-likelihood of the outcomes in each group ``(G,)``, given log-odds ``(N,)``."""
        signed = np.where(self.outcome > 0, -log_odds, log_odds)
        return -self.sum_by_group(self.weigh(softplus(signed)))
