"""One period of a monitored service, such as a month: what a history and a state hold of it, checked when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedlas._core.check import check_count, check_number
from fedlas.deploy.monitor.columns import read_columns

_FARTHEST = 3.0
"""Means of shares lie in [-1, 1], and their intervals reach 1.96 farther at most."""


@dataclass(frozen=True)
class PeriodMean:
    """Leading mean of a watch in a period, with its 95 % interval, and that on the card."""

    name: str
    samples: int
    mean: float
    low: float
    high: float
    card: float

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> PeriodMean:
        """Read what :func:`dataclasses.asdict` returned."""
        mean, low, high, card = (
            check_number(name, content[name], low=-_FARTHEST, high=_FARTHEST)
            for name in ("mean", "low", "high", "card")
        )
        if not low <= mean <= high:
            raise ValueError(f"a mean of {mean} outside its interval")
        return cls(
            _text(content, "name"),
            check_count("samples", content["samples"]),
            mean,
            low,
            high,
            card,
        )


@dataclass(frozen=True)
class Period:
    """A row of a history.

    Attributes:
        period: Name.
        files: Names of the files, as they were passed.
        contents: Digest of what each file held; none where they were not stored yet.
        card: Name of the card's run.
        digest: First digits of the SHA-256 of the card.
        made: Date on which the card was made; empty if it holds none.
        samples: Samples of the period.
        labeled: Those with labels.
        means: Leading mean of each watch that saw samples.
        alarms: Watches with an alarm at the end of the period.
        columns: What :func:`~fedlas.deploy.monitor.columns.column_sums` returned.
        columns_of_card: The same of the card's test samples.
    """

    period: str
    files: tuple[str, ...]
    contents: tuple[str, ...]
    card: str
    digest: str
    made: str
    samples: int
    labeled: int
    means: Mapping[str, PeriodMean]
    alarms: tuple[str, ...]
    columns: Mapping[str, Mapping[str, Any]]
    columns_of_card: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Period:
        """Read what :meth:`plain` returned.

        Raises:
            KeyError, TypeError, ValueError: If it is what no monitor writes.
        """
        if not isinstance(content, dict):
            raise TypeError("a period that is no object")
        samples = check_count("samples", content["samples"])
        labeled = check_count("labeled", content["labeled"], low=0)
        if labeled > samples:
            raise ValueError(f"{labeled} labels of {samples} samples")
        return cls(
            _text(content, "period"),
            _texts(content, "files"),
            _texts({"contents": [], **content}, "contents"),
            _text(content, "card"),
            _text(content, "digest"),
            _text(content, "made", least=0),
            samples,
            labeled,
            {name: PeriodMean.read(mean) for name, mean in dict(content["means"]).items()},
            _texts(content, "alarms"),
            read_columns(content["columns"]),
            read_columns(content.get("columns_of_card", {})),
        )

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def _text(content: Mapping[str, Any], name: str, *, least: int = 1) -> str:
    value = content[name]
    if not isinstance(value, str) or len(value) < least:
        raise ValueError(f"{name} is no text")
    return value


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = content[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is no list of texts")
    return tuple(values)
