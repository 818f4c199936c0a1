"""``Period``, the record of one monitoring period, such as a month, validated when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fedlas._core.check import check_count, check_number
from fedlas.deploy.monitor.columns import read_column_statistics

_MAX_ABS_MEAN = 3.0
"""Largest absolute value of a mean or interval end: means are in [-1, 1], intervals extend by at most 1.96."""


@dataclass(frozen=True)
class PeriodMean:
    """First statistic of a watch in a period: mean with 95 % interval, and the mean on the card."""

    name: str
    samples: int
    mean: float
    low: float
    high: float
    card: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PeriodMean:
        """Return a validated mean from JSON values, as written by :func:`dataclasses.asdict`."""
        mean, low, high, card = (
            check_number(name, content[name], low=-_MAX_ABS_MEAN, high=_MAX_ABS_MEAN)
            for name in ("mean", "low", "high", "card")
        )
        if not low <= mean <= high:
            raise ValueError(f"the mean {mean} is outside its interval")
        return cls(
            _read_text(content, "name"),
            check_count("samples", content["samples"]),
            mean,
            low,
            high,
            card,
        )


@dataclass(frozen=True)
class Period:
    """Record of one period in a monitoring history.

    Attributes:
        period: Name.
        files: Names of the files, as they were passed.
        contents: Digest of the content of each file; empty in old histories.
        card: Name of the card's run.
        digest: First digits of the SHA-256 of the card.
        made: Date of the card; empty if unknown.
        samples: Samples of the period.
        labeled: Samples with labels.
        means: First mean of each watch that has samples.
        alarms: Watches with an alarm at the end of the period.
        columns: Column statistics, from :func:`~fedlas.deploy.monitor.columns.column_statistics`.
        columns_of_card: Column statistics of the card's test samples.
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
    def from_dict(cls, content: Mapping[str, Any]) -> Period:
        """Return a validated period from JSON values, as written by :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: If values are missing or invalid.
        """
        if not isinstance(content, dict):
            raise TypeError("a period must be a JSON object")
        samples = check_count("samples", content["samples"])
        labeled = check_count("labeled", content["labeled"], low=0)
        if labeled > samples:
            raise ValueError(f"{labeled} labeled samples of {samples}")
        return cls(
            _read_text(content, "period"),
            _read_texts(content, "files"),
            _read_texts({"contents": [], **content}, "contents"),
            _read_text(content, "card"),
            _read_text(content, "digest"),
            _read_text(content, "made", min_length=0),
            samples,
            labeled,
            {name: PeriodMean.from_dict(mean) for name, mean in dict(content["means"]).items()},
            _read_texts(content, "alarms"),
            read_column_statistics(content["columns"]),
            read_column_statistics(content.get("columns_of_card", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the period as JSON values."""
        return asdict(self)


def _read_text(content: Mapping[str, Any], name: str, *, min_length: int = 1) -> str:
    value = content[name]
    if not isinstance(value, str) or len(value) < min_length:
        raise ValueError(f"{name} must be a string")
    return value


def _read_texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = content[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} must be a list of strings")
    return tuple(values)
