"""The calibration card: one record that checks itself, and writes and reads itself as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from fedlas._core.check import InputError, check_choice, check_count, check_number, describe, reason
from fedlas._core.files import read_json, write_json
from fedlas._core.outputs import check_place, json_kind
from fedlas.deploy.calibration import Calibration, read_calibration
from fedlas.deploy.label_reference import MEANS, LabelReference
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.event import event_number
from fedlas.stats.gap_sums import GapSums, check_edges, read_array, read_counts
from fedlas.stats.rows import Floats

FORMAT = "fedlas.card/1"
CARD = json_kind("a calibration card", FORMAT)
Subject = Literal["event", "top label", "labels"]
"""What a card is about: the probability of the event of two classes, the confidence of the predicted class, or the
probabilities of several labels a sample."""
Metrics = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By stage and name: a metric's value and, where it is known, its interval, floor and p-value."""
_FIX = "Write one with fedlas card RUN, and pass its .json."


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


class HasCard(Protocol):
    """What shows a card, as :func:`fedlas.card` returns it."""

    @property
    def card(self) -> Card:
        """The card."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """A calibration card: thresholds, metrics and known limits of a model, and what a :class:`Monitor` compares with.

    Each field is the section of this name in its JSON.

    Attributes:
        made: Date (``on``) and version (``fedlas``).
        model: Name (``run``), ``num_classes`` (0 where only confidences are known), ``classes`` (their names, or None;
            of several labels the names of these), and what is known of its training.
        calibration: Calibration of the model's logits.
        live: Whether live predictions are ``"raw"``, as the card's test file was, so that the calibration is applied
            first, or ``"calibrated"``.
        data: ``name`` of the test data, ``samples`` by part, and what is known of them.
        metrics: By stage and name, on the test part.
        metrics_of: How they were computed.
        selective: ``thresholds`` of confidence by target risk, and how they were chosen.
        width: Widths of Venn-ABERS bounds.
        reference: Sums over the test part, in cells and bins of confidence; ``subject``, what they are of.
        exported: The exported file that the card belongs to; None without one.
        event: The event of two classes that the card is about, its measures and decisions; None without one.
        labels: Of several labels the measures of each, by stage; None without them.
        limits: Sentences on what is not known.
        columns: Sums of the columns of the test part; None without them.
    """

    made: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any]
    calibration: Calibration
    live: str = "calibrated"
    data: Mapping[str, Any]
    metrics: Metrics
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
            raise _damage("the run must have a name", self.model["run"])
        if not isinstance(self.made.get("on", ""), str):
            raise _damage("the date on which it was made must be text", self.made["on"])
        num_classes = check_count("num_classes", self.model["num_classes"], low=0)
        names = self.model["classes"]
        if names is not None and (
            not isinstance(names, list | tuple) or [*map(type, names)] != [str] * num_classes
        ):
            raise _damage(f"classes must be the names of {num_classes}", names)
        check_choice("live", self.live, ("raw", "calibrated"))
        check_choice("subject", self.subject, ("event", "top label", "labels"))
        if self.subject == "labels":
            if len(self.label_references) != num_classes or self.means_of_labels.keys() != {*MEANS}:
                raise _damage(f"sums must be of {num_classes} labels", len(self.label_references))
            return
        if self.subject == "event" and (num_classes != 2 or self.event_index > 1):
            raise _damage(
                "an event must be one of two classes", f"{self.event_index} of {num_classes}"
            )
        # The monitor compares with these sums; sums that do not agree were changed by hand.
        samples = self.gaps.count[0]
        if self.bin_edges.shape != (len(self.bin_counts) + 1,):
            raise _damage("bins must have an end each", len(self.bin_edges))
        sums = [self.bin_counts.sum()]
        if self.class_counts is not None:
            sums.append(self.class_counts.sum())
            if self.class_counts.shape != (num_classes,):
                raise _damage(f"samples must be of {num_classes} classes", len(self.class_counts))
        if not samples > 0 or any(each != samples for each in sums):
            raise _damage(f"bins and classes must hold {samples:g} samples", sums)
        _ = self.thresholds  # which are checked

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.model["run"])

    @property
    def num_classes(self) -> int:
        """``C``; 0 where only the confidence of the predicted class is known."""
        return int(self.model["num_classes"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; none if they are not known."""
        return tuple(self.model["classes"] or ())

    @property
    def date(self) -> str:
        """Date on which it was made; empty if it holds none."""
        return str(self.made.get("on", ""))

    @property
    def raw(self) -> bool:
        """Whether the calibration is to be applied to live predictions first."""
        return self.live == "raw"

    @property
    def subject(self) -> Subject:
        """What sums, bins and thresholds are of."""
        return self.reference.get("subject", "top label")

    @property
    def num_samples(self) -> int:
        """Samples of the test part."""
        of_labels = self.subject == "labels"
        return int((self.means_of_labels["probability"] if of_labels else self.gaps).count[0])

    @cached_property
    def label_references(self) -> tuple[LabelReference, ...]:
        """Sums over the test part of each of several labels."""
        return tuple(map(LabelReference.read, self.reference["labels"]))

    @cached_property
    def means_of_labels(self) -> dict[str, GapSums]:
        """Sums of the mean over several labels, by watch."""
        return {name: GapSums.read(sums) for name, sums in self.reference["all"].items()}

    @cached_property
    def gaps(self) -> GapSums:
        """Sums over the test part in cells of confidence."""
        return GapSums.read(self.reference["gaps"])

    @cached_property
    def bin_edges(self) -> Floats:
        """Ends of the bins of confidence ``(B + 1,)``, ascending from 0 to 1."""
        return check_edges(read_array(self.reference, "bin_edges"))

    @cached_property
    def bin_counts(self) -> Floats:
        """Samples of the test part in each bin ``(B,)``, all of them together."""
        return read_counts(self.reference, "bin_counts")

    @cached_property
    def class_counts(self) -> Floats | None:
        """Samples of the test part by predicted class ``(C,)``; None where they are not known."""
        is_known = self.reference.get("class_counts") is not None
        return read_counts(self.reference, "class_counts") if is_known else None

    @property
    def event_index(self) -> int:
        """Number of the class that is the event; cards without it are about the second."""
        return check_count("number", (self.event or {}).get("number", 1), low=0)

    @cached_property
    def thresholds(self) -> tuple[Accepted, ...]:
        """Thresholds that the card vouches for, and their results on the test part."""
        rows = [
            (row["risk"], row["threshold"], row.get("test")) for row in self.selective["thresholds"]
        ]
        if self.subject == "event":
            if "decisions" not in (self.event or {}):
                raise _damage("an event must have decisions", self.event)
            decisions = (self.event or {})["decisions"]
            rows = [(None, row.get("threshold"), row) for row in decisions]
        return tuple(_accepted(*row, most=self.gaps) for row in rows if row[1] is not None)

    def plain(self) -> dict[str, Any]:
        """Return the card for JSON."""
        sections = {each.name: getattr(self, each.name) for each in fields(self)}
        fitted_on = None if self.calibration.calibrator is None else self.calibration.fitted_on
        sections["calibration"] = {**self.calibration.plain(), "fitted on": fitted_on}
        present = {name: section for name, section in sections.items() if section is not None}
        return {"format": FORMAT, **present}

    def save(self, path: str | Path) -> Path:
        """Write the card as JSON to ``path``, which ends in ``.json``; return it.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        return write_json(check_place("path", path, CARD), self.plain())

    @classmethod
    def of(cls, source: CardSource) -> Card:
        """Return a card: itself, of what :func:`fedlas.card` returned, of its JSON file, or of its plain values.

        Raises:
            InputError: As :meth:`read`.
        """
        card = getattr(source, "card", source)
        if isinstance(card, Card):
            return card
        return cls.read(card) if isinstance(card, str | Path) else cls.from_plain(card)

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read a card from its JSON.

        Raises:
            InputError: If it cannot be read, is no card of this format, or holds what no card of any predictions holds.
        """
        try:
            content = read_json(path)
        except (OSError, ValueError, TypeError) as error:
            raise InputError("the card must be readable JSON", f"{path} ({error})", _FIX) from error
        return Card.from_plain(content, where=path)

    @classmethod
    def from_plain(cls, content: object, *, where: str | Path = "a dict") -> Card:
        """Return the card from what :meth:`plain` returned.

        Raises:
            InputError: As :meth:`read`; the message says ``where`` it is from.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise InputError(f"the card must have format {FORMAT!r}", where, _FIX)
        try:
            sections = {
                each.name: content[each.name] for each in fields(Card) if each.name in content
            }
            sections["calibration"] = read_calibration(
                content["calibration"], content["model"]["num_classes"]
            )
            return Card(**sections)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got = f"{where} ({reason(error)})"
            raise InputError(
                "the card must hold what the monitor compares with", got, _FIX
            ) from error


CardSource = Card | HasCard | str | Path | Mapping[str, Any]
"""A card, what shows one, its JSON file or its plain values."""


def _damage(expected: str, got: object) -> InputError:
    return InputError(expected, describe(got) if isinstance(got, Mapping) else got, _FIX)


def _accepted(
    risk: object, threshold: object, test: Mapping[str, Any], *, most: GapSums
) -> Accepted:
    """Return a row of the thresholds, which holds no more samples than the test part."""
    names = ("false_alarms", "acted") if risk is None else ("wrong", "accepted")
    wrong, accepted = (check_count(name, test[name], low=0) for name in names)
    if accepted > most.count[0] or wrong > min(accepted, most.count[0] - most.right[0]):
        raise _damage("a threshold must fit the test part", f"{wrong} wrong of {accepted} accepted")
    share = None if risk is None else check_number("risk", risk, low=0, high=1)
    cut = check_number("threshold", threshold, low=0, high=1)
    return Accepted(share, cut, accepted, wrong)
