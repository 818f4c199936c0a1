"""Result of a comparison of two models over samples, or of two methods over seeds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean, stdev
from typing import Literal

from fedlas._core.check import InputError
from fedlas.stats.power import seeds_needed

Unit = Literal["samples", "seeds"]


@dataclass(frozen=True)
class Difference:
    """A metric of ``a`` minus that of ``b``, with its confidence interval and test.

    Over samples it is about two models on one test set: their metrics on other samples. Over seeds it is about two
    methods: other trainings, evaluated on the same test set.

    Attributes:
        metric: Registry name; empty for plain values.
        a: The metric of the first; over seeds its mean.
        b: That of the second.
        low: Lower end of the interval of ``a - b``, by default of level 95 %; NaN, as ``high``, where a single sample,
            cluster or seed, or seeds without spread, cannot tell.
        high: Upper end.
        p_value: Two-sided, of no difference. Over samples: of AUROC of two classes DeLong's test, of accuracy in
            :func:`fedlas.compare` the exact McNemar test (without weights and clusters), else of the paired bootstrap.
            Over seeds: of the paired t-test, or the test that was asked for; None where there is none, and ``reason``
            says why.
        p: The same after Holm's correction for all differences that were tested together; None as ``p_value``, and
            where there was no correction.
        better: ``"a"`` or ``"b"``, whichever is better at level 0.05 after the correction; None if they are not
            distinguishable, there was no correction, or the metric has no better direction.
        unit: ``"samples"`` or ``"seeds"``: what the interval and the test are over.
        count: Number of samples, or of pairs of seeds.
        reason: Why there is no p-value; empty when there is one.
        names: Names of the two.
        seeds: The seeds, of methods of a bench.
        test_share: Over seeds that split the data anew, the share that each tests, by which interval and test are
            corrected; None if all seeds have the same test samples.
        values: Over seeds the values of each, ``(n,)``, in one order.

    Example:
        >>> import torch, fedlas
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> a, b = fedlas.Predictions(logits, target), fedlas.Predictions(3 * logits, target)
        >>> nll = fedlas.compare(a, b, metrics=["nll"], replicates=199)["nll"]
        >>> nll.better, nll.high < 0, nll.unit
        ('a', True, 'samples')
    """

    metric: str
    a: float
    b: float
    low: float = nan
    high: float = nan
    p_value: float | None = None
    p: float | None = None
    better: str | None = None
    unit: Unit = "samples"
    count: int = 0
    reason: str = ""
    names: tuple[str, str] = ("a", "b")
    seeds: tuple[int, ...] = ()
    test_share: float | None = None
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    @property
    def gaps(self) -> list[float]:
        """Difference at each seed, in the order of ``values``."""
        return [a - b for a, b in zip(*self.values, strict=True)]

    @property
    def difference(self) -> float:
        """Difference of the metric, ``a - b``; over seeds the mean."""
        return fmean(self.gaps) if self.gaps else self.a - self.b

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper end of the interval, or None if there is no interval."""
        return None if isnan(self.low) else (self.low, self.high)

    @property
    def needed(self) -> int | None:
        """Number of seeds at which a paired t-test detects this difference with power 0.8.

        If size and spread are what they seem; None over samples, where training parts overlap (more splits of the same
        data do not help much), and where it cannot be computed.
        """
        if self.unit != "seeds" or self.interval is None or self.test_share:
            return None
        with suppress(InputError):  # no difference, or one that no affordable number of seeds finds
            return seeds_needed(self.difference, stdev(self.gaps))
        return None
