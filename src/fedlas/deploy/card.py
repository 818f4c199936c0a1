"""What ``fedlas monitor`` reads of a calibration card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedlas._core.check import InputError
from fedlas.deploy.calibration import Calibration, read_calibration
from fedlas.stats.drift import Floats, GapSums

FORMAT = "fedlas.card/1"


@dataclass(frozen=True)
class Card:
    """What ``fedlas monitor`` needs of a card.

    Attributes:
        name: Of the run.
        classes: Class names; none if they are not known.
        num_classes: ``C``.
        calibration: What the model's logits go through.
        gaps: Sums over the test part.
        bin_edges: Ends of the bins of confidence, ``(B + 1,)``.
        bin_counts: Samples of the test part in each, ``(B,)``.
    """

    name: str
    classes: tuple[str, ...]
    num_classes: int
    calibration: Calibration
    gaps: GapSums
    bin_edges: Floats
    bin_counts: Floats


def read_card(path: Path) -> Card:
    """What ``fedlas monitor`` needs of a card.

    Raises:
        InputError: If it cannot be read, or is no card of this format.
    """
    fix = "Write one with fedlas card RUN, and pass its .json."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("card", "it must be readable JSON", f"{path} ({error})", fix) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError("card", f"it must have format {FORMAT!r}", path, fix)
    try:
        model, reference = content["model"], content["reference"]
        num_classes = int(model["num_classes"])
        edges, counts = (np.asarray(reference[f"bin_{name}"], dtype=np.float64) for name in ("edges", "counts"))
        if len(edges) != len(counts) + 1 or not counts.sum() > 0:
            raise ValueError("bins that do not fit")
        return Card(
            str(model["run"]),
            tuple(model["classes"] or ()),
            num_classes,
            read_calibration(content["calibration"], num_classes),
            GapSums.read(reference["gaps"]),
            edges,
            counts,
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("card", "it must hold what the monitor compares with", f"{path} ({error!r})", fix) from error
