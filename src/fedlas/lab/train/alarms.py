"""Alarms of gate and indicator in the log of a run, by kind; those of its first epochs do not count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedlas.diagnose import alarm_kind

__all__ = ["alarm_epochs"]

WARM_UP = 0.1
"""Share of the epochs in which running statistics, which start from nothing, settle: an alarm then says nothing."""


def alarm_epochs(history: Sequence[Mapping[str, Any]], *, epochs: int, warmup_epochs: int = 0) -> dict[str, list[int]]:
    """Epochs with an alarm after the warm-up, by kind of alarm.

    Args:
        history: Records of the log.
        epochs: Epochs of the whole run.
        warmup_epochs: Epochs in which the learning rate rises; the warm-up is not shorter.

    Example:
        >>> log = [{"epoch": epoch, "alarms": ["gate stuck on +1 for 3 epochs"]} for epoch in (1, 5, 6)]
        >>> alarm_epochs(log, epochs=20)
        {'gate stuck on +1': [5, 6]}
    """
    settled = max(warmup_epochs, math.ceil(WARM_UP * epochs))
    found: dict[str, list[int]] = {}
    for record in history:
        for alarm in record.get("alarms", ()) if record["epoch"] > settled else ():
            found.setdefault(alarm_kind(alarm), []).append(record["epoch"])
    return found
