"""Note on probabilities of exactly 0 and 1, whose logarithms and log-odds are infinite."""

from __future__ import annotations

import math

from fedlas._core.text import join_words
from fedlas.predictions.probabilities import FLOOR


def certainty_notes(zeros: int, ones: int, zero_labels: int) -> list[str]:
    """Return a note on probabilities of exactly 0 and 1, or an empty list if there are none.

    Args:
        zeros: Number of probabilities of 0.
        ones: Number of probabilities of 1.
        zero_labels: Number of rows whose label has a probability of 0.
    """
    counts = {"0": zeros, "1": ones}
    parts = [
        f"{count:,} {'probability is' if count == 1 else 'probabilities are'} exactly {value}"
        for value, count in counts.items()
        if count
    ]
    if not parts:
        return []
    text = f"{join_words(parts)}; logarithms take {FLOOR:.2g} in place of 0"
    if zero_labels:
        rows = f"{zero_labels:,} row{'s' * (zero_labels != 1)}"
        text += (
            f"; for {rows} the label has a probability of 0, so that NLL is infinite and {-math.log(FLOOR):.1f} is "
            "used instead: do not compare NLL"
        )
    return [f"{text}."]
