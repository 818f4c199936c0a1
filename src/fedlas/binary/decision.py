"""Decision thresholds chosen on validation samples, and their effect on test samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.kinds import check_argument_types
from fedlas.binary.decision_curve import CumulativeTotals
from fedlas.binary.positive import Positive, positive_class
from fedlas.stats.degrees import critical_t
from fedlas.stats.estimates import CONFIDENCE_LEVEL, Estimate
from fedlas.stats.intervals import check_confidence_level

if TYPE_CHECKING:
    from fedlas._core.types import FloatArray
    from fedlas.predictions import Predictions


@dataclass(frozen=True)
class Rule:
    """Rule that determines the decision threshold; exactly one field must be set.

    Attributes:
        cost_ratio: How many false alarms are as bad as a missed event, above 0: one acts from ``1 / (1 + cost_ratio)``.
        budget: On how many samples one can act, out of as many as are tested.
        recall: Share of the events to find, in (0, 1].
        precision: Share of events among the samples that are acted on, in (0, 1].

    Example:
        >>> Rule(recall=0.8).words
        'find 80 % of the events'
    """

    cost_ratio: float | None = None
    budget: float | None = None
    recall: float | None = None
    precision: float | None = None

    def __post_init__(self) -> None:
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        if len(chosen) != 1:
            got = ", ".join(chosen) or "none"
            fix = "Pass one rule; call again for another."
            raise InputError(
                "exactly one of cost_ratio, budget, recall and precision must be set", got, fix
            )
        ((name, value),) = chosen.items()
        high = 1.0 if name in ("recall", "precision") else math.inf
        check_number(name, value, low=0.0, high=high, low_open=True)

    @property
    def name(self) -> str:
        """Name of the field that is set."""
        return next(name for name, value in asdict(self).items() if value is not None)

    @property
    def value(self) -> float:
        """Value of the field that is set."""
        return float(getattr(self, self.name))

    @property
    def words(self) -> str:
        """The rule as a sentence fragment."""
        return {
            "cost_ratio": f"a missed event is as bad as {self.value:g} false alarms",
            "budget": f"act on at most {self.value:g}",
            "recall": f"find {100 * self.value:g} % of the events",
            "precision": f"{100 * self.value:g} % of the alarms are events",
        }[self.name]


@dataclass(frozen=True, repr=False)
class Decision:
    """Effect of acting above a threshold on test samples; prints as a table.

    Attributes:
        rule: What decided.
        threshold: Probability from which on one acts; None if no threshold keeps the rule on validation.
        num_samples: Test samples.
        events: Events among them.
        acted: Samples that are acted on.
        events_found: Events among those.
        recall: ``events_found`` over ``events``.
        precision: ``events_found`` over ``acted``.
        net_benefit: Acting so against acting on none: true positives per sample, less false alarms at their weight.
        over_all: The same against acting on every sample.
    """

    rule: Rule
    threshold: float | None
    num_samples: int
    events: int
    acted: int = 0
    events_found: int = 0
    recall: Estimate | None = None
    precision: Estimate | None = None
    net_benefit: Estimate | None = None
    over_all: Estimate | None = None

    def __str__(self) -> str:
        """Return a table with one line per number and its interval."""
        title = f"{self.rule.words[:1].upper()}{self.rule.words[1:]}"
        if self.threshold is None:
            return f"{title}: no threshold satisfies this rule"
        level = next((each.confidence_level for each in self._estimates if each is not None), 0.95)
        rows = [
            ("act from", f"{100 * self.threshold:.2f} %", ""),
            ("acted on", f"{self.acted:,}", f"of {self.num_samples:,}"),
            ("events found", f"{self.events_found:,}", f"of {self.events:,}"),
            ("false alarms", f"{self.false_alarms:,}", ""),
            ("recall", *_format_estimate(self.recall, 100, " %")),
            ("precision", *_format_estimate(self.precision, 100, " %")),
            ("net benefit per 1,000", *_format_estimate(self.net_benefit, 1000)),
            ("... over acting on all", *_format_estimate(self.over_all, 1000)),
        ]
        wide = max(len(value) for _, value, _ in rows)
        lines = [f"{name:<22}  {value:>{wide}}  {note}".rstrip() for name, value, note in rows]
        return "\n".join([f"{title} ({100 * level:g} % intervals)", *lines])

    __repr__ = __str__

    @property
    def _estimates(self) -> tuple[Estimate | None, ...]:
        return self.recall, self.precision, self.net_benefit, self.over_all

    @property
    def false_alarms(self) -> int:
        """Number of samples acted on without an event."""
        return self.acted - self.events_found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict for JSON, without missing values."""
        content: dict[str, Any] = {"rule": self.rule.name, "value": self.rule.value}
        for name in _PLAIN[: None if self.threshold is not None else 2]:
            value = getattr(self, name)
            if value is not None:
                content[name] = value.to_dict() if isinstance(value, Estimate) else value
        return content


def _format_estimate(estimate: Estimate | None, unit: int, sign: str = "") -> tuple[str, str]:
    """Return a value and its interval as text, in the given unit."""
    if estimate is None:
        return "-", ""
    value, low, high = (unit * each for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f}{sign}", f"[{low:.1f}, {high:.1f}]"


_PLAIN = (
    "num_samples", "events", "threshold", "acted", "events_found", "false_alarms",
    "recall", "precision", "net_benefit", "over_all",
)  # fmt: skip
"""What a decision shows beside its rule; without a threshold the first two."""


@check_argument_types
def choose_threshold(
    val: Predictions, rule: Rule, *, num_samples: int, event: int | str | None = None
) -> float | None:
    """Return the decision threshold chosen on validation samples, or None if none satisfies the rule.

    Args:
        val: Calibrated predictions of validation samples.
        rule: What decides. A recall takes the highest threshold that finds as many events; a precision the lowest that
            keeps it; a budget the lowest that acts on no larger share than ``budget / num_samples``.
        num_samples: Samples that the budget is for, at least 1.
        event: The class that is the event, its name or number; None: the event of two.

    Returns:
        A threshold in ``(0, 1)``; None if none keeps the rule.

    Raises:
        InputError: If ``num_samples`` is out of range, or as all functions here, for predictions of other than two
            classes without ``event``.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> log_odds = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0])
        >>> val = Predictions(torch.stack([0 * log_odds, log_odds], dim=1), torch.tensor([0, 0, 1, 0, 1]))
        >>> round(choose_threshold(val, Rule(recall=1.0), num_samples=5), 3)
        0.269
    """
    check_count("num_samples", num_samples)
    data = positive_class(val, event)
    if rule.name == "cost_ratio":
        return 1.0 / (1.0 + rule.value)
    order = np.argsort(data.probability, kind="stable")
    totals = CumulativeTotals(data, order)
    # A threshold is a probability of the samples: all that have as much or more are acted on.
    probability = data.probability[order]
    first = np.searchsorted(probability, np.unique(probability), side="left")
    hits = totals.positives[first]
    acted = hits + totals.others[first]
    # Bounds that are met but for rounding are met.
    needed = rule.value * (1.0 - 1e-12)
    if rule.name == "budget":
        fits = acted / data.num_samples <= rule.value / num_samples * (1.0 + 1e-12)
    else:
        fits = hits >= needed * (acted if rule.name == "precision" else totals.positives[0])
    places = np.flatnonzero(fits)
    if not len(places) or (rule.name == "recall" and totals.positives[0] == 0):
        return None
    return float(probability[first[places[-1 if rule.name == "recall" else 0]]])


@check_argument_types
def decide(
    val: Predictions | None,
    test: Predictions,
    rule: Rule,
    *,
    event: int | str | None = None,
    confidence_level: float = CONFIDENCE_LEVEL,
) -> Decision:
    """Choose a decision threshold by a rule, and report its effect on test samples.

    Args:
        val: Calibrated predictions of validation samples; None with a cost ratio, which needs none.
        test: Calibrated predictions of test samples.
        rule: What decides.
        event: The class that is the event, its name or number; None: the event of two.
        confidence_level: Level of the intervals, in ``(0, 1)``.

    Returns:
        The decision. A false alarm weighs ``t / (1 - t)`` of an event in its net benefit, with the threshold ``t``.

    Raises:
        InputError: Without validation samples where the rule needs them, or as all functions here, for predictions of
            other than two classes without ``event``.

    Note:
        The intervals are of the test samples, given the threshold. Recall and precision have exact (Clopper and
        Pearson) intervals; net benefit has the normal one of a mean.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> log_odds = 2 * torch.randn(4000, generator=torch.Generator().manual_seed(0)) - 3
        >>> happened = torch.bernoulli(log_odds.sigmoid(), generator=torch.Generator().manual_seed(1)).long()
        >>> model = Predictions(torch.stack([torch.zeros(4000), log_odds], dim=1), happened)
        >>> val, test = model.rows(torch.arange(2000)), model.rows(torch.arange(2000, 4000))
        >>> found = decide(val, test, Rule(cost_ratio=9))
        >>> found.threshold, found.net_benefit.low > 0, found.over_all.low > 0
        (0.1, True, True)

    Source:
        Vickers and Elkin 2006 (Medical Decision Making 26); Pauker and Kassirer, "The threshold approach to clinical
        decision making", New England Journal of Medicine 302 (1980), for the threshold of a cost ratio.
    """
    check_confidence_level(confidence_level)
    data = positive_class(test, event)
    if val is None and rule.name != "cost_ratio":
        fix = "Pass held-out predictions; a threshold chosen on the test set would look better than it is."
        raise InputError("requires validation predictions", "none", fix, argument=rule.name)
    chosen_on = test if val is None else val
    threshold = choose_threshold(chosen_on, rule, num_samples=data.num_samples, event=event)
    events = int(data.outcome.sum())
    if threshold is None:
        return Decision(rule, None, data.num_samples, events)
    acts = data.probability >= threshold * (1.0 - 1e-12)
    happened = data.outcome > 0
    order = np.argsort(data.probability, kind="stable")
    first = np.array([int((~acts).sum())])
    # A probability that rounds to 1 is one step of a float below it: odds of 1e300 have no square.
    weight = np.array([threshold / max(1.0 - threshold, float(np.finfo(np.float64).epsneg))])
    totals = CumulativeTotals(data, order)
    gain = _net_benefit_estimate(totals.mean(first, weight), confidence_level, data.degrees())
    over_all = _net_benefit_estimate(
        totals.mean(first, weight, below=True), confidence_level, data.degrees()
    )
    recall = _share_estimate(data, acts, happened, confidence_level)
    precision = _share_estimate(data, happened, acts, confidence_level)
    return Decision(
        rule,
        threshold,
        data.num_samples,
        events,
        int(acts.sum()),
        int((acts & happened).sum()),
        recall,
        precision,
        gain,
        over_all,
    )


def _net_benefit_estimate(
    mean: tuple[FloatArray, FloatArray], confidence_level: float, degrees: float
) -> Estimate:
    value = float(mean[0][0])
    reach = critical_t(confidence_level, degrees) * float(mean[1][0])
    return Estimate(value, value - reach, value + reach, confidence_level=confidence_level)


def _share_estimate(
    data: Positive, hits: Any, among: Any, confidence_level: float
) -> Estimate | None:
    """Return the share of ``hits`` among the samples in ``among``, with its interval, or None if there are none."""
    rows = np.flatnonzero(among)
    if not len(rows):
        return None
    share = data.share(hits, rows, confidence_level)
    return Estimate(*share, confidence_level=confidence_level)
