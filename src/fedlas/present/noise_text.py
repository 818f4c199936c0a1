"""Formats the interval, noise floor and p-value of a table cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedlas.metrics import METRICS
from fedlas.present.table import Cell, Column, column
from fedlas.stats import ALPHA
from fedlas.stats.estimates import COSTLY, Estimate
from fedlas.stats.noise_floor import rejects
from fedlas.stats.p_text import p_said, p_text

Measured = Mapping[str, Mapping[str, float]]
"""Metrics by stage, then by registry name."""
Known = Mapping[str, Mapping[str, Estimate]]
"""Their intervals and noise floors."""
UNTOLD = "~"
"""Before a noise floor: the calibration test does not reject. Not the sign for what is not distinguishable from the
best method, which is another test."""


@dataclass(frozen=True)
class NoiseText:
    """Interval, floor and p-value as text, in the unit of the column; empty where there is none.

    Attributes:
        interval: ``"[1.37, 2.31]"``; of several runs from the lowest to the highest end.
        floor: Mean noise floor.
        floor_value: The same as a number, in the unit of the metric.
        p_value: ``"p = 0.31"``; ``"p ≤ 0.001"`` where no replicate was as bad as the value, so that more of them could
            make it smaller; of several runs ``"p ≤ 0.001 to 0.61"``, the smallest and the largest.
        calibrated: Whether the calibration test rejects for no run: of ``n`` p-values the smallest is above
            ``0.05 / n`` (Bonferroni, which holds for runs that depend on each other, as those on one test set do).
        replicates: Of the test; the fewest of several runs. 0 where there is none.
    """

    interval: str = ""
    floor: str = ""
    p_value: str = ""
    calibrated: bool = False
    floor_value: float | None = None
    replicates: int = 0

    @property
    def sign(self) -> str:
        """:data:`UNTOLD` where it applies, else nothing."""
        return UNTOLD if self.calibrated else ""

    @property
    def lines(self) -> tuple[str, ...]:
        """Interval, floor, such as ``"~ floor 0.48"``, and p-value."""
        floor = f"{self.sign} floor {self.floor}".strip() if self.floor else ""
        return tuple(filter(None, (self.interval, floor, self.p_value)))

    @property
    def test(self) -> str:
        """Floor and p-value on one line."""
        return ", ".join(self.lines[1:])

    @property
    def text(self) -> str:
        """Everything on one line."""
        return ", ".join(self.lines)


def noise_in(known: Mapping[str, Estimate], about: Column) -> NoiseText:
    """Return interval, floor and p-value of a metric, from its estimates by registry name."""
    estimate = known.get(about.metric)
    return noise_text([estimate] if estimate else [], about.format)


def noise_of_entry(entry: Mapping[str, Any], form: Callable[[float], str]) -> NoiseText:
    """Return interval, floor and p-value of a card's entry."""
    return noise_text([Estimate.of(entry)] if "low" in entry else [], form)


def noise_text(noises: Sequence[Estimate], form: Callable[[float], str]) -> NoiseText:
    """Return interval, floor and p-value of one metric as text: of one run, or of one method's runs.

    Args:
        noises: One for each run; none gives empty text.
        form: How the column prints a number.
    """
    if not noises:
        return NoiseText()
    interval = f"[{form(min(n.low for n in noises))}, {form(max(n.high for n in noises))}]"
    floors = [n.floor for n in noises if n.floor is not None]
    p_values = [n.p for n in noises if n.p is not None]
    if len(floors) < len(noises) or len(p_values) < len(noises):
        return NoiseText(interval)
    floor = sum(floors) / len(floors)
    return NoiseText(
        interval,
        form(floor),
        _p_values(noises),
        calibrated=not seeds_reject(p_values),
        floor_value=floor,
        replicates=min(n.replicates for n in noises),
    )


def seeds_reject(p_values: Sequence[float]) -> bool:
    """Whether the calibration test rejects for some of a method's runs, at 0.05 over all of them (Bonferroni).

    Example:
        >>> seeds_reject([0.001, 0.61, 0.3]), seeds_reject([0.03, 0.61, 0.3]), seeds_reject([0.03])
        (True, False, True)
    """
    return rejects(len(p_values) * min(p_values), ALPHA)


def _p_values(noises: Sequence[Estimate]) -> str:
    """The p-value, or the smallest and the largest; with ``≤`` where the smallest is a bound."""
    lowest = min(noises, key=lambda n: n.p or 0.0)
    low, high = (p_text(end(n.p or 0.0 for n in noises)) for end in (min, max))
    text = p_said(lowest.p or 0.0, lowest.least_p)
    return text if low == high else f"{text.replace('p = ', 'p ')} to {high}"


NOISE_LEGEND = (
    "[low, high]: 95 % bootstrap interval over the test samples{over}. It says how far another test set could move the "
    "number; only seeds show how far another training would."
)
FLOOR_LEGEND = (
    "floor: the mean of the number for a perfectly calibrated model with the same confidences; the interval allows for "
    "a bias between none and that, if the number has one. p: of the test that the model is calibrated{p}. p ≤ means "
    "that none of the {replicates} replicates was as bad as the number, so that p is known only to be no "
    "larger{fewer}. {sign}: {rule}: this test does not reject calibration with this number of samples. That is absence "
    "of evidence, not evidence of calibration; {interval} reaches down to 0, and which of two such numbers is smaller "
    "says little."
)
_ONE = {"p": "", "rule": f"p > {ALPHA:g}", "interval": "the interval"}
_SEVERAL = {
    "p": ", the smallest and the largest of all seeds",
    "rule": f"the smallest p times the number of seeds is above {ALPHA:g} (Bonferroni)",
    "interval": f"the interval of each seed with p > {ALPHA:g}",
}


def noise_legend(known: Iterable[NoiseText], *, several: bool) -> list[str]:
    """Return sentences that explain interval, floor and p-value.

    Args:
        known: Texts of the cells; without any there is nothing to explain.
        several: Whether a number is the mean of several runs.
    """
    shown = [text for text in known if text.interval]
    if not shown:
        return []
    over = ", from the lowest to the highest end of all seeds" if several else ""
    texts = [NOISE_LEGEND.format(over=over)]
    if counts := [text.replicates for text in shown if text.floor]:
        most = max(counts)
        costly = [f"{METRICS[name].metadata['title']} has {least}" for name, least in COSTLY.items() if least < most]
        costly += [f"some have {few}" for few in sorted({*counts} - {most, *COSTLY.values()})]
        fewer = f"; {' and '.join(costly)}, because each takes long" if costly else ""
        words = _SEVERAL if several else _ONE
        texts.append(FLOOR_LEGEND.format(**words, replicates=f"{most:,}", fewer=fewer, sign=UNTOLD))
    return texts


def cell_of_metric(about: Column, value: float | None, noise: NoiseText) -> Cell:
    """Return a number with its interval, noise floor and p-value."""
    return Cell(about.format(value), mark="calibrated" if noise.calibrated else "", details=noise.lines, number=value)


def legend_of(noise: Known) -> tuple[str, ...]:
    """Return the sentences of :func:`noise_legend` for these estimates."""
    known = [noise_in(by_name, column(name)) for by_name in noise.values() for name in by_name]
    return tuple(noise_legend(known, several=False))
