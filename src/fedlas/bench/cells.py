"""What stands below a number in a table: its interval, the noise floor, and the p-value of the calibration test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedlas.bench.noise import Noise
from fedlas.bench.results import LEVEL


@dataclass(frozen=True)
class NoiseText:
    """Interval, floor and p-value as text, in the unit of the column; empty where there is none.

    Attributes:
        interval: ``"[1.37, 2.31]"``; of several runs from the lowest to the highest end.
        floor: Mean noise floor.
        floor_value: The same as a number, in the unit of the metric.
        p_value: ``"p = 0.001"``; of several runs ``"p ≤ 0.43"``, the largest.
        calibrated: Whether no run is told from a calibrated one, so that the number itself is noise.
    """

    interval: str = ""
    floor: str = ""
    p_value: str = ""
    calibrated: bool = False
    floor_value: float | None = None

    @property
    def test(self) -> str:
        """Floor and p-value on one line."""
        return ", ".join(part for part in (self.floor and f"floor {self.floor}", self.p_value) if part)

    @property
    def text(self) -> str:
        """Everything on one line."""
        return ", ".join(part for part in (self.interval, self.test) if part)


def noise_text(noises: Sequence[Noise], form: Callable[[float], str]) -> NoiseText:
    """What to print of the noise of one metric: of one run, or of one method's runs.

    Args:
        noises: One for each run; none gives empty text.
        form: How the column prints a number.
    """
    if not noises:
        return NoiseText()
    interval = f"[{form(min(n.low for n in noises))}, {form(max(n.high for n in noises))}]"
    floors = [n.floor for n in noises if n.floor is not None]
    p_values = [n.p_value for n in noises if n.p_value is not None]
    if len(floors) < len(noises) or len(p_values) < len(noises):
        return NoiseText(interval)
    largest, floor = max(p_values), sum(floors) / len(floors)
    return NoiseText(
        interval,
        form(floor),
        f"p {'=' if len(set(p_values)) == 1 else '≤'} {p_text(largest)}".replace("= <", "< ").replace("≤ <", "< "),
        calibrated=min(p_values) > LEVEL,
        floor_value=floor,
    )


def noise_markup(noise: Noise | None, form: Callable[[float], str]) -> str:
    """What follows a number in a ``rich`` table: its interval on the same line, floor and p-value on the next."""
    if noise is None:
        return ""
    text = noise_text([noise], form)
    about = "≈ " if text.calibrated else ""
    below = f"\n[dim]{about}{text.test}[/dim]" if text.test else ""
    return f" [dim]\\{text.interval}[/dim]{below}"  # the backslash, or rich would take the interval for markup


def p_text(p_value: float) -> str:
    """Two significant digits, one below 0.01, and never in powers of ten: ``0.31``, ``0.001``, ``<0.0001``.

    Example:
        >>> p_text(0.3141), p_text(0.001), p_text(1.0), p_text(1e-9)
        ('0.31', '0.001', '1', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.1g}" if p_value < 0.01 else f"{p_value:.2g}"


EVALUATION_CAPTION = (
    "In brackets 95 % bootstrap intervals over the samples. Floor: mean of a perfectly calibrated model with the same "
    "confidences; p: of the test that the model is calibrated. Above 0.05 the number cannot be told from the floor."
)
NOTHING = NoiseText()
"""Below a number of which nothing is known."""
NOISE_LEGEND = (
    "[low, high]: 95 % bootstrap interval over the test samples{over}. It says how far another test set could move the "
    "number; how far another training would, only seeds can say"
)
FLOOR_LEGEND = (
    "floor: what the number would be on average if the model were perfectly calibrated, with the same confidences; p: "
    "of the test that it is{p}. Where p > 0.05{every} (marked ≈) the number cannot be told from the floor: it is "
    "noise, its interval reaches down to 0, and which of two such numbers is smaller says nothing"
)


def noise_legend(*, several: bool, floors: bool) -> list[str]:
    """What interval, floor and p-value are, in the order to print.

    Args:
        several: Whether a number stands for several runs.
        floors: Whether there are any floors.
    """
    over = ", from the lowest to the highest end of all seeds" if several else ""
    texts = [NOISE_LEGEND.format(over=over)]
    if floors:
        words = {"p": ", the largest of all seeds", "every": " at every seed"} if several else {"p": "", "every": ""}
        texts.append(FLOOR_LEGEND.format(**words))
    return texts
