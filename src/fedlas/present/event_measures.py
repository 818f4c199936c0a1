"""The records of the measures of an event: how each is shown, what is best and what it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from fedlas.present.table import ARROWS, Column, column

ALIASES = {"event_ece": "ece", "event_brier": "brier", "o_e": "observed_to_expected"}
"""Other names of measures, for rules of a gate."""


@dataclass(frozen=True)
class EventMeasure:
    """A measure of the event of two classes, as :class:`~fedlas.metrics.metric.Metric` is one of the predicted class.

    Attributes:
        name: Key in tables, JSON and rules of a gate.
        title: Name as tables show it.
        percent: Whether it is shown in percent.
        places: Decimals of a fraction; two fewer in percent.
        higher_is_better: None if an ideal value is best, or none is.
        ideal: What a calibrated model has; None if there is no such value.
        between: Least and largest value.
        main: Whether it is one of the few that are always shown.
        has_interval: Whether it has one, by which a rule of a gate decides.
        about: One line on what it measures.
    """

    name: str
    title: str
    percent: bool = False
    places: int = 3
    higher_is_better: bool | None = None
    ideal: float | None = None
    between: tuple[float, float] = (-inf, inf)
    main: bool = True
    has_interval: bool = True
    about: str = ""

    @property
    def column(self) -> Column:
        """How tables show it."""
        direction = "" if self.higher_is_better is None else ARROWS[self.higher_is_better]
        arrow = direction if self.ideal is None else f"→ {self.ideal:g}"
        unit = "%" if self.percent else ""
        return Column(
            self.title, unit, arrow, self.about, self.name, self.places, between=self.between
        )


_SHARE = (0.0, 1.0)
_RECORDS = (
    EventMeasure("observed", "observed", True, 4, between=_SHARE,
        about="Share of the samples in which the event occurs."),
    EventMeasure("expected", "expected", True, 4, between=_SHARE, about="Mean probability of the event."),
    EventMeasure("observed_to_expected", "observed / expected", ideal=1, between=(0.0, inf),
        about="Above 1 the event occurs more often than expected."),
    EventMeasure("in_the_large", "in the large", ideal=0, main=False, about="Shift that all log-odds lack."),
    EventMeasure("slope", "calibration slope", ideal=1, about="Below 1 the probabilities are too extreme."),
    EventMeasure("intercept", "intercept", ideal=0, main=False, about="Correction at a probability of 1/2."),
    EventMeasure("ici", "ICI (loess)", True, 4, False, between=_SHARE,
        about="Mean distance of the probability from the frequency, which a loess smooths."),
    EventMeasure("ece", "ECE", True, 4, False, between=_SHARE,
        about="Mean distance of the probability from the frequency in bins of equal width."),
    EventMeasure("e50", "E50", True, 4, False, between=_SHARE, main=False, about="Median of these distances."),
    EventMeasure("e90", "E90", True, 4, False, between=_SHARE, main=False, about="Their 90th percentile."),
    EventMeasure("emax", "Emax", True, 4, False, between=_SHARE, main=False, about="Their maximum."),
    EventMeasure("spiegelhalter_z", "Spiegelhalter's z", places=2, ideal=0, main=False,
        about="Standard normal if calibrated."),
    EventMeasure("nll", "NLL", places=4, higher_is_better=False, between=(0.0, inf),
        about="Mean negative logarithm of the probability of what happened."),
    EventMeasure("brier", "Brier score", places=4, higher_is_better=False, between=_SHARE,
        about="Mean squared distance of probability and outcome."),
    EventMeasure("brier_skill", "Brier scaled", higher_is_better=True, between=(-inf, 1.0),
        about="1 less the Brier score over that of the prevalence; 0 is no better than that."),
    EventMeasure("r2", "R2 (Nagelkerke)", higher_is_better=True, between=(-inf, 1.0), main=False,
        has_interval=False, about="Share of the likelihood that the probabilities gain over the prevalence."),
    EventMeasure("d", "D", places=4, higher_is_better=True, main=False, has_interval=False,
        about="Discrimination index: the likelihood ratio of the probabilities less 1, a sample."),
    EventMeasure("u", "U", places=4, ideal=0, main=False, has_interval=False,
        about="Unreliability index: the likelihood ratio of a recalibration less 2, a sample."),
    EventMeasure("q", "Q", places=4, higher_is_better=True, main=False, has_interval=False,
        about="Quality index, D - U."),
    EventMeasure("auroc", "AUROC", higher_is_better=True, between=_SHARE,
        about="Probability that an event ranks above a sample without one (C statistic)."),
    EventMeasure("average_precision", "average precision", higher_is_better=True, between=_SHARE,
        about="Area under precision over recall; by chance the share observed."),
)  # fmt: skip
EVENT_MEASURES: Mapping[str, EventMeasure] = {record.name: record for record in _RECORDS}
"""By name, in the order of the rows of a table."""
GLOSSARY = [(record.title, record.about) for record in _RECORDS]
"""Title and meaning of each."""


def column_of(name: str, *, event: bool) -> Column:
    """Return how to show a metric: one of the event where that is the subject, else the registered one."""
    return EVENT_MEASURES[name].column if event and name in EVENT_MEASURES else column(name)
