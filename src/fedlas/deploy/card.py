"""``Card``, the calibration card of a model: validated on construction, stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from fedlas._core.check import (
    InputError,
    check_choice,
    check_count,
    check_number,
    describe,
    error_reason,
)
from fedlas._core.files import read_json, write_json
from fedlas._core.outputs import check_output_path, json_kind
from fedlas.deploy.calibration import Calibration, read_calibration
from fedlas.deploy.label_reference import LABEL_MEANS, LabelReference
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.event import event_index
from fedlas.stats.gap_sums import GapSums, check_edges, read_array, read_counts

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions.any_predictions import AnyPredictions

FORMAT = "fedlas.card/1"
CARD = json_kind("a calibration card", FORMAT)
Subject = Literal["event", "top label", "labels"]
"""What a card describes: the probability of the event (two classes), the confidence of the predicted class, or the
probabilities of several labels per sample."""
MetricsByStage = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Metrics by stage and name: value and, where known, interval, noise floor and p-value."""
_FIX = "Write one with fedlas card RUN, and pass its .json."


def event_or_top_label(predictions: AnyPredictions, subject: Subject) -> TopLabel:
    """Return event probabilities with occurrence of the event, or top-label confidences with correctness."""
    if subject == "event" and isinstance(predictions, Predictions):
        number = event_index(predictions)
        probability = predictions.tensors().logits.double().softmax(dim=1)[:, number]
        return TopLabel(probability, predictions.tensors().target == number)
    return TopLabel(predictions.tensors().confidence, predictions.tensors().correct)


@dataclass(frozen=True)
class ThresholdResult:
    """Test result of a threshold for accepting predictions or for acting on an event."""

    risk: float | None  # target error rate among accepted predictions; None for an event
    threshold: float
    accepted: int
    wrong: int  # errors among accepted samples; for an event, false alarms


class CardHolder(Protocol):
    """Protocol of objects with a ``card``, such as the result of :func:`fedlas.card`."""

    @property
    def card(self) -> Card:
        """The calibration card."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """Calibration card of a model: metrics, thresholds, known limits, and reference statistics for a :class:`Monitor`.

    Each field is a section of the JSON file.

    Attributes:
        made: Date (``on``) and version (``fedlas``).
        model: Name (``run``), ``num_classes`` (0 where only confidences are known), ``classes`` (their names, or None;
            of several labels the names of these), and facts about its training.
        calibration: Calibration of the model's logits.
        live: ``"raw"`` if live predictions come before calibration, which the monitor then applies, else
            ``"calibrated"``.
        data: ``name`` of the test data, ``samples`` by part, and facts about them.
        metrics: By stage and name, on the test part.
        metrics_of: How they were computed.
        selective: ``thresholds`` of confidence by target risk, and how they were chosen.
        width: Widths of Venn-ABERS bounds.
        reference: Sums over the test part, in cells and bins of confidence; ``subject``, what the card describes.
        exported: The exported file that the card belongs to; None without one.
        event: The event of two classes that the card is about, its measures and decisions; None without one.
        labels: Metrics per label and stage; None for one label per sample.
        limits: Known limits, as sentences.
        columns: Statistics of the table columns of the test part; None without them.
    """

    made: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any]
    calibration: Calibration
    live: str = "calibrated"
    data: Mapping[str, Any]
    metrics: MetricsByStage
    metrics_of: Mapping[str, Any]
    selective: Mapping[str, Any]
    width: Mapping[str, Any]
    reference: Mapping[str, Any]
    exported: Mapping[str, Any] | None = None
    event: Mapping[str, Any] | None = None
    labels: Mapping[str, Mapping[str, Any]] | None = None
    limits: Sequence[str] = ()
    columns: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model["run"], str):
            raise _damaged_card_error("model.run of the card must be a string", self.model["run"])
        if not isinstance(self.made.get("on", ""), str):
            raise _damaged_card_error("made.on of the card must be a string", self.made["on"])
        num_classes = check_count("num_classes", self.model["num_classes"], low=0)
        names = self.model["classes"]
        if names is not None and (
            not isinstance(names, list | tuple) or [*map(type, names)] != [str] * num_classes
        ):
            raise _damaged_card_error(
                f"model.classes of the card must be {num_classes} names", names
            )
        check_choice("live", self.live, ("raw", "calibrated"))
        check_choice("subject", self.subject, ("event", "top label", "labels"))
        if self.subject == "labels":
            if len(self.label_references) != num_classes or self.label_mean_sums.keys() != {
                *LABEL_MEANS
            }:
                raise _damaged_card_error(
                    f"reference.labels of the card must have {num_classes} labels",
                    len(self.label_references),
                )
            return
        if self.subject == "event" and (num_classes != 2 or self.event_index > 1):
            raise _damaged_card_error(
                "the event of the card must be one of two classes",
                f"class {self.event_index} of {num_classes}",
            )
        # The monitor compares with these sums; inconsistent sums were edited by hand.
        samples = self.gaps.count[0]
        if self.bin_edges.shape != (len(self.bin_counts) + 1,):
            raise _damaged_card_error(
                f"reference.bin_edges of the card must have {len(self.bin_counts) + 1} edges",
                len(self.bin_edges),
            )
        sums = [self.bin_counts.sum()]
        if self.class_counts is not None:
            sums.append(self.class_counts.sum())
            if self.class_counts.shape != (num_classes,):
                raise _damaged_card_error(
                    f"reference.class_counts of the card must have {num_classes} classes",
                    len(self.class_counts),
                )
        if not samples > 0 or any(each != samples for each in sums):
            raise _damaged_card_error(
                f"bin_counts and class_counts of the card must each sum to {samples:g} samples",
                sums,
            )
        _ = self.thresholds  # raises if invalid

    @property
    def name(self) -> str:
        """Name of the model or run."""
        return str(self.model["run"])

    @property
    def num_classes(self) -> int:
        """Number of classes or labels; 0 if only confidences are known."""
        return int(self.model["num_classes"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes or labels; empty if unknown."""
        return tuple(self.model["classes"] or ())

    @property
    def date(self) -> str:
        """Date of the card, such as ``2026-05-31``; empty if unknown."""
        return str(self.made.get("on", ""))

    @property
    def expects_raw(self) -> bool:
        """Whether live predictions are raw, so that the monitor applies the calibration."""
        return self.live == "raw"

    @property
    def subject(self) -> Subject:
        """What sums, bins and thresholds describe: ``"event"``, ``"top label"`` or ``"labels"``."""
        return self.reference.get("subject", "top label")

    @property
    def num_samples(self) -> int:
        """Number of test samples."""
        of_labels = self.subject == "labels"
        return int((self.label_mean_sums["probability"] if of_labels else self.gaps).count[0])

    @cached_property
    def label_references(self) -> tuple[LabelReference, ...]:
        """Reference statistics of each label on the test part."""
        return tuple(map(LabelReference.from_dict, self.reference["labels"]))

    @cached_property
    def label_mean_sums(self) -> dict[str, GapSums]:
        """Sums over the test part of the mean over labels, by watch."""
        return {name: GapSums.from_dict(sums) for name, sums in self.reference["all"].items()}

    @cached_property
    def gaps(self) -> GapSums:
        """Sums of confidence and correctness over the test part, in cells of confidence."""
        return GapSums.from_dict(self.reference["gaps"])

    @cached_property
    def bin_edges(self) -> FloatArray:
        """Edges of the confidence bins, ``(B + 1,)``, ascending from 0 to 1."""
        return check_edges(read_array(self.reference, "bin_edges"))

    @cached_property
    def bin_counts(self) -> FloatArray:
        """Number of test samples per confidence bin, ``(B,)``."""
        return read_counts(self.reference, "bin_counts")

    @cached_property
    def class_counts(self) -> FloatArray | None:
        """Number of test samples per predicted class, ``(C,)``; None if unknown."""
        is_known = self.reference.get("class_counts") is not None
        return read_counts(self.reference, "class_counts") if is_known else None

    @property
    def event_index(self) -> int:
        """Index of the event class; 1 if the card names none."""
        return check_count("number", (self.event or {}).get("number", 1), low=0)

    @cached_property
    def thresholds(self) -> tuple[ThresholdResult, ...]:
        """Thresholds of the card with their results on the test part."""
        rows = [
            (row["risk"], row["threshold"], row.get("test")) for row in self.selective["thresholds"]
        ]
        if self.subject == "event":
            if "decisions" not in (self.event or {}):
                raise _damaged_card_error("event.decisions of the card must exist", self.event)
            decisions = (self.event or {})["decisions"]
            rows = [(None, row.get("threshold"), row) for row in decisions]
        return tuple(
            _read_threshold_result(*row, test_sums=self.gaps) for row in rows if row[1] is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        sections = {each.name: getattr(self, each.name) for each in fields(self)}
        fitted_on = None if self.calibration.calibrator is None else self.calibration.fitted_on
        sections["calibration"] = {**self.calibration.to_dict(), "fitted on": fitted_on}
        present = {name: section for name, section in sections.items() if section is not None}
        return {"format": FORMAT, **present}

    def save(self, path: str | Path) -> Path:
        """Write the card to ``path``, a ``.json`` file, and return the path.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        return write_json(check_output_path("path", path, CARD), self.to_dict())

    @classmethod
    def of(cls, source: CardSource) -> Card:
        """Return the card of ``source``: a card, the result of :func:`fedlas.card`, a JSON file or JSON values.

        Raises:
            InputError: As :meth:`read`.
        """
        card = getattr(source, "card", source)
        if isinstance(card, Card):
            return card
        return cls.read(card) if isinstance(card, str | Path) else cls.from_dict(card)

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read a card from a JSON file.

        Raises:
            InputError: If the file cannot be read, has another format, or has invalid or inconsistent values.
        """
        try:
            content = read_json(path)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                "the card must be a readable JSON file", f"{path} ({error})", _FIX
            ) from error
        return Card.from_dict(content, source=path)

    @classmethod
    def from_dict(cls, content: object, *, source: str | Path = "a dict") -> Card:
        """Return a card from the result of :meth:`to_dict`.

        Raises:
            InputError: As :meth:`read`; the message names ``source``, the source.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise InputError(f"the card must have format {FORMAT!r}", source, _FIX)
        try:
            sections = {
                each.name: content[each.name] for each in fields(Card) if each.name in content
            }
            sections["calibration"] = read_calibration(
                content["calibration"], content["model"]["num_classes"]
            )
            return Card(**sections)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{source} ({error_reason(error)})"
            raise InputError("the card must have valid sections", got, _FIX) from error


CardSource = Card | CardHolder | str | Path | Mapping[str, Any]
"""A card, an object with a ``card``, a JSON file or JSON values."""


def _damaged_card_error(expected: str, got: object) -> InputError:
    return InputError(expected, describe(got) if isinstance(got, Mapping) else got, _FIX)


def _read_threshold_result(
    risk: object, threshold: object, test: Mapping[str, Any], *, test_sums: GapSums
) -> ThresholdResult:
    """Return a threshold result after checking that its counts fit the test part."""
    names = ("false_alarms", "acted") if risk is None else ("wrong", "accepted")
    wrong, accepted = (check_count(name, test[name], low=0) for name in names)
    if accepted > test_sums.count[0] or wrong > min(
        accepted, test_sums.count[0] - test_sums.right[0]
    ):
        raise _damaged_card_error(
            "counts at a threshold must not exceed the counts of the test part",
            f"{wrong} wrong of {accepted} accepted",
        )
    share = None if risk is None else check_number("risk", risk, low=0, high=1)
    cut = check_number("threshold", threshold, low=0, high=1)
    return ThresholdResult(share, cut, accepted, wrong)
