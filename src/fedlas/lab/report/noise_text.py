"""What stands below a number in a table: its interval, the noise floor, and the p-value of the calibration test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedlas._core.terminal import Cell
from fedlas.metrics import METRICS
from fedlas.stats import LEVEL
from fedlas.stats.estimates import COSTLY, Estimate
from fedlas.stats.noise_floor import rejects
from fedlas.stats.p_text import p_said, p_text

UNTOLD = "~"
"""Before a noise floor: the calibration test does not tell the number from a calibrated model's. Not the sign for what
is not distinguishable from the best method, which is about another test."""


@dataclass(frozen=True)
class NoiseText:
    """Interval, floor and p-value as text, in the unit of the column; empty where there is none.

    Attributes:
        interval: ``"[1.37, 2.31]"``; of several runs from the lowest to the highest end.
        floor: Mean noise floor.
        floor_value: The same as a number, in the unit of the metric.
        p_value: ``"p = 0.31"``; ``"p ≤ 0.001"`` where no replicate was as bad as the value, so that more of them could
            make it smaller; of several runs ``"p ≤ 0.001 to 0.61"``, the smallest and the largest.
        calibrated: Whether no run is told from a calibrated model: of ``n`` p-values the smallest is above ``0.05 / n``
            (Bonferroni, which holds for runs that depend on each other, as those on one test set do).
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
    def marked_floor(self) -> str:
        """``"floor 0.48"``, or ``"~ floor 0.48"``."""
        return f"{self.sign} floor {self.floor}".strip() if self.floor else ""

    @property
    def test(self) -> str:
        """Floor and p-value on one line."""
        return ", ".join(part for part in (self.marked_floor, self.p_value) if part)

    @property
    def text(self) -> str:
        """Everything on one line."""
        return ", ".join(part for part in (self.interval, self.test) if part)


def noise_text(noises: Sequence[Estimate], form: Callable[[float], str]) -> NoiseText:
    """What to print of the noise of one metric: of one run, or of one method's runs.

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
    """Whether some of a method's runs is told from a calibrated model, at 0.05 over all of them (Bonferroni).

    Example:
        >>> seeds_reject([0.001, 0.61, 0.3]), seeds_reject([0.03, 0.61, 0.3]), seeds_reject([0.03])
        (True, False, True)
    """
    return rejects(len(p_values) * min(p_values), LEVEL)


def _p_values(noises: Sequence[Estimate]) -> str:
    """The p-value, or the smallest and the largest; with ``≤`` where the smallest is a bound."""
    lowest = min(noises, key=lambda n: n.p or 0.0)
    low, high = (p_text(end(n.p or 0.0 for n in noises)) for end in (min, max))
    said = p_said(lowest.p or 0.0, lowest.least_p)
    return said if low == high else f"{said.replace('p = ', 'p ')} to {high}"


def noise_cell(number: str, noise: Estimate | None, form: Callable[[float], str]) -> Cell:
    """A number for the terminal: its interval on the same line, floor and p-value on the next."""
    if noise is None:
        return number
    text = noise_text([noise], form)
    return [number, (f" {text.interval}" + (f"\n{text.test}" if text.test else ""), "dim")]


EVALUATION_CAPTION = (
    "In brackets 95 % bootstrap intervals over the samples. Floor: mean of a perfectly calibrated model with the same"
    " confidences; p: of the test that the model is calibrated, after ≤ the smallest that its replicates can give. "
    f"{UNTOLD}: p > {LEVEL:g}, so this test does not tell the model from a calibrated one with this number of samples,"
    " which is absence of evidence, not evidence of calibration."
)
NOTHING = NoiseText()
"""Below a number of which nothing is known."""
NOISE_LEGEND = (
    "[low, high]: 95 % bootstrap interval over the test samples{over}. It says how far another test set could move the "
    "number; how far another training would, only seeds can say"
)
FLOOR_LEGEND = (
    "floor: what the number would be on average if the model were perfectly calibrated, with the same confidences; "
    "the interval allows for a bias between none and that, if the number has one. p: of the test that it is{p}. p ≤"
    " stands where none of the {replicates} replicates was as bad as the number, so that p can only be said to be "
    "no larger{fewer}. {sign}: {rule}, so this test does not tell the number from a calibrated model's with this "
    "number of samples. That is absence of evidence, not evidence of calibration; {interval} reaches down to 0, and"
    " which of two such numbers is smaller says little"
)
_ONE = {
    "p": "",
    "rule": f"p > {LEVEL:g}",
    "interval": "the interval",
}
_SEVERAL = {
    "p": ", the smallest and the largest of all seeds",
    "rule": f"the smallest p times the number of seeds is above {LEVEL:g} (Bonferroni)",
    "interval": f"the interval of each seed with p > {LEVEL:g}",
}


def noise_legend(known: Sequence[NoiseText], *, several: bool) -> list[str]:
    """What interval, floor and p-value are, in the order to print.

    Args:
        known: What stands below the numbers; of none there is nothing to explain.
        several: Whether a number stands for several runs.
    """
    if not any(text.interval for text in known):
        return []
    over = ", from the lowest to the highest end of all seeds" if several else ""
    texts = [NOISE_LEGEND.format(over=over)]
    if drawn := [text.replicates for text in known if text.floor]:
        most = max(drawn)
        costly = [f"{METRICS[name].metadata['title']} has {least}" for name, least in COSTLY.items() if least < most]
        costly += [f"some have {few}" for few in sorted({*drawn} - {most, *COSTLY.values()})]
        fewer = f"; {' and '.join(costly)}, because each takes long" if costly else ""
        words = _SEVERAL if several else _ONE
        texts.append(FLOOR_LEGEND.format(**words, replicates=f"{most:,}", fewer=fewer, sign=UNTOLD))
    return texts
