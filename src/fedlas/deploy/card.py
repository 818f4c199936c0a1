"""A calibration card on disk: what ``fedlas monitor`` reads of its JSON, and whether one may be replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedlas._core.check import InputError, check_choice, check_count, check_number, reason
from fedlas._core.files import read_json
from fedlas._core.outputs import json_kind
from fedlas.deploy.calibration import Calibration, read_calibration
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.event import event_number
from fedlas.stats.gap_sums import GapSums, check_edges, read_array, read_counts
from fedlas.stats.rows import Floats

FORMAT = "fedlas.card/1"
CARD = json_kind("a calibration card", FORMAT)
Subject = Literal["event", "top label"]
"""What a card is about: the probability of the event of two classes, or the confidence of the predicted class."""


def outcomes(predictions: AnyPredictions, subject: Subject) -> TopLabel:
    """Return the probability of the event and whether it occurred, or the confidence and whether it is right."""
    if subject == "event" and isinstance(predictions, Predictions):
        number = event_number(predictions)
        probability = predictions.logits.double().softmax(dim=1)[:, number]
        return TopLabel(probability, predictions.target == number)
    return TopLabel(predictions.confidence, predictions.correct)


@dataclass(frozen=True)
class Accepted:
    """Result on the test part of a threshold from which predictions are accepted, or one acts on an event."""

    risk: float | None  # target share of wrong among those accepted; None where one acts
    threshold: float
    accepted: int
    wrong: int  # of those accepted; acting, without an event


@dataclass(frozen=True)
class Card:
    """A calibration card, as far as a :class:`Monitor` needs it.

    Attributes:
        name: Name of the run.
        classes: Class names; none if they are not known.
        num_classes: ``C``; 0 where only the confidence of the predicted class is known.
        calibration: Calibration of the model's logits.
        raw: Whether live predictions are raw, as the card's test file was, so that the calibration is applied first.
        gaps: Sums over the test part.
        bin_edges: Ends of the bins of confidence ``(B + 1,)``, ascending from 0 to 1.
        bin_counts: Samples of the test part in each ``(B,)``, all of them together.
        thresholds: Those that the card vouches for.
        class_counts: Samples of the test part by predicted class ``(C,)``; None where they are not known.
        subject: What sums, bins and thresholds are of.
        event: Number of the class that is the event.
        made: Date on which it was made; empty if it holds none.
    """

    name: str
    classes: tuple[str, ...]
    num_classes: int
    calibration: Calibration
    raw: bool
    gaps: GapSums
    bin_edges: Floats
    bin_counts: Floats
    thresholds: tuple[Accepted, ...]
    class_counts: Floats | None
    subject: Subject = "top label"
    event: int = 1
    made: str = ""

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read a card from its JSON.

        Raises:
            InputError: If it cannot be read, is no card of this format, or holds what no card of any predictions holds.
        """
        fix = "Write one with fedlas card RUN, and pass its .json."
        try:
            content = read_json(path)
        except (OSError, ValueError, TypeError) as error:
            raise InputError("the card must be readable JSON", f"{path} ({error})", fix) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"the card must have format {FORMAT!r}", path, fix)
        try:
            return _card(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{path} ({reason(error)})"
            raise InputError(
                "the card must hold what the monitor compares with", got, fix
            ) from error


def _card(content: Mapping[str, Any]) -> Card:
    model = content["model"]
    reference = content["reference"]
    name = model["run"]
    if not isinstance(name, str):
        raise ValueError("the run has no name")
    num_classes = check_count("num_classes", model["num_classes"], low=0)
    classes = _classes(model["classes"], num_classes)
    # The monitor compares with these sums; sums that do not agree were changed by hand.
    calibration = read_calibration(content["calibration"], num_classes)
    raw = {"raw": True, "calibrated": False}[content.get("live", "calibrated")]
    gaps = GapSums.read(reference["gaps"])
    edges = check_edges(read_array(reference, "bin_edges"))
    counts = read_counts(reference, "bin_counts")
    if edges.shape != (len(counts) + 1,):
        raise ValueError(f"{len(counts)} bins with {len(edges)} ends")
    if not gaps.count[0] > 0 or counts.sum() != gaps.count[0]:
        raise ValueError(f"{counts.sum():g} samples in bins, {gaps.count[0]:g} in cells")
    subject: Subject = check_choice(
        "subject", reference.get("subject", "top label"), ("event", "top label")
    )
    rows = [
        (row["risk"], row["threshold"], row.get("test"))
        for row in content["selective"]["thresholds"]
    ]
    event = _event(content) if subject == "event" else 1
    if subject == "event":
        if num_classes != 2:
            raise ValueError(f"an event of {num_classes} classes")
        rows = [(None, row.get("threshold"), row) for row in content["event"]["decisions"]]
    thresholds = tuple(
        _accepted(risk, threshold, test, most=gaps)
        for risk, threshold, test in rows
        if threshold is not None
    )
    classwise = (
        None if reference.get("class_counts") is None else read_counts(reference, "class_counts")
    )
    if classwise is not None and (
        classwise.shape != (num_classes,) or classwise.sum() != gaps.count[0]
    ):
        raise ValueError(f"{classwise.sum():g} samples in {len(classwise)} classes")
    return Card(
        name,
        tuple(classes),
        num_classes,
        calibration,
        raw,
        gaps,
        edges,
        counts,
        thresholds,
        classwise,
        subject,
        event,
        _date_made(content),
    )


def _date_made(content: Mapping[str, Any]) -> str:
    day = content.get("made", {}).get("on", "")
    if not isinstance(day, str):
        raise ValueError("the date on which it was made is no text")
    return day


def _classes(names: Any, num_classes: int) -> list[str]:
    """Return the names of the classes; none if there are none."""
    if names is None:
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(names) != num_classes:
        raise ValueError(f"classes are not the names of {num_classes}")
    return list(names)


def _event(content: Mapping[str, Any]) -> int:
    """Return the number of the class that is the event; cards without it are about the second."""
    number = check_count("number", content["event"].get("number", 1), low=0)
    if number > 1:
        raise ValueError(f"event {number} of two classes")
    return number


def _accepted(
    risk: object, threshold: object, test: Mapping[str, Any], *, most: GapSums
) -> Accepted:
    """Return a row of the thresholds, which holds no more samples than the test part."""
    names = ("false_alarms", "acted") if risk is None else ("wrong", "accepted")
    wrong, accepted = (check_count(name, test[name], low=0) for name in names)
    if accepted > most.count[0] or wrong > min(accepted, most.count[0] - most.right[0]):
        raise ValueError(f"{wrong} wrong of {accepted} accepted samples")
    share = None if risk is None else check_number("risk", risk, low=0, high=1)
    cut = check_number("threshold", threshold, low=0, high=1)
    return Accepted(share, cut, accepted, wrong)
