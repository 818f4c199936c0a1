"""Gates for CI pipelines: rules on metrics whose checks hold, fail or are undecided.

``Evaluation.require`` and ``Comparison.fail_if_worse`` make one, and the command line does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

from fedlas._core.check import InputError, check_number, suggestion
from fedlas._core.outputs import marked_kind
from fedlas._core.text import printable
from fedlas.metrics import METRICS
from fedlas.metrics.metric import ALIASES, EVENT, find_measure, value_range
from fedlas.present.metric_tables import left_out_text
from fedlas.present.table import ARROWS, Column, metric_column

if TYPE_CHECKING:
    from fedlas.present.verdict import Verdict
    from fedlas.stats import Difference
    from fedlas.stats.estimates import Estimate

EXIT_FAILED = 3
"""Exit status of a gate that fails."""
EXIT_UNKNOWN = 4
"""Exit status of a strict gate with an undecided rule."""
MIN_SAMPLES = 30
"""Fewest samples for a rule to hold: bootstrap intervals of fewer are too narrow."""
_RULE = re.compile(
    r"\s*([a-z0-9_]+)\s*(<=|>=)\s*(-?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?)\s*(?:(%)\s*)?",
    re.IGNORECASE,
)
_RULE_HINT = "Write 'ece<=0.03', 'accuracy>=90%' or calibrated, in quotes."
CALIBRATED = "calibrated"
"""The rule that the joint calibration test does not reject."""


def check_rule_syntax(rules: Iterable[str]) -> None:
    """Raise InputError if a rule is malformed, before anything is computed.

    Raises:
        InputError: If one is neither ``calibrated`` nor a bound.
    """
    for rule in rules:
        if not _is_calibrated_rule(rule):
            _parse_bound(rule)


def _parse_bound(rule: str) -> Sequence[str]:
    """Return the metric, the sign, the number, and ``"%"`` or an empty string, of a rule such as ``ece<=3%``."""
    match = _RULE.fullmatch(rule)
    if match is None:
        raise InputError("a rule must be METRIC<=NUMBER or METRIC>=NUMBER", repr(rule), _RULE_HINT)
    return match.groups("")


def _is_calibrated_rule(rule: str) -> bool:
    return rule.strip().lower() == CALIBRATED


@dataclass(frozen=True)
class Requirement:
    """Upper or lower bound on a metric, such as ``ece<=0.03``.

    Attributes:
        metric: Registry name, or name of a measure of the event.
        sign: ``"<="`` or ``">="``.
        bound: A fraction for a metric in percent.
        event: Name of the class that the measures are about; empty if the predicted class is the subject.
    """

    metric: str
    sign: str
    bound: float
    event: str = ""

    @classmethod
    def parse(cls, text: str, names: Iterable[str], event: str = "") -> Requirement:
        """Return the requirement parsed from a rule such as ``ece<=0.03`` or ``ece<=3%``.

        Raises:
            InputError: If the text is no such rule, if the metric was not measured or has no interval, or if the bound
                always holds, never holds, or points away from what is better.
        """
        metric, sign, number, percent = _parse_bound(text)
        metrics = list(names)
        if event:
            metric = ALIASES.get(metric, metric).removeprefix(EVENT)
        if metric not in metrics:
            raise InputError(
                f"the metric of a rule must be one of {', '.join(metrics)}",
                repr(metric),
                suggestion(metric, metrics),
            )
        records = {name: find_measure(name, event=bool(event)) for name in metrics}
        bare = [name for name, each in records.items() if each and not each.has_interval]
        if metric in bare:
            raise InputError(
                "the metric of a rule must have an interval",
                f"{metric!r}, which has no interval",
                f"Name one of {', '.join(name for name in metrics if name not in bare)}.",
            )
        return cls(metric, sign, float(number) / (100 if percent else 1), event)._require_decidable(
            text
        )

    @property
    def column(self) -> Column:
        """Table column of the metric, with title, unit and format."""
        return metric_column(self.metric, event=bool(self.event))

    def _require_decidable(self, text: str) -> Requirement:
        """Return the requirement, or raise InputError if its bound is on the wrong side or can never decide."""
        about = self.column
        low, high = about.between
        better = {"↓": "<=", "↑": ">="}.get(about.arrow, self.sign)
        if self.sign != better:
            raise InputError(
                f"a rule must set {'an upper' if better == '<=' else 'a lower'} bound on {about.title}, because "
                f"{'smaller' if better == '<=' else 'larger'} is better",
                repr(text),
                f"Write '{self.metric}{better}{self.bound:g}'.",
            )
        always = self.bound >= high if self.sign == "<=" else self.bound <= low
        never = self.bound < low if self.sign == "<=" else self.bound > high
        if always or never or not math.isfinite(self.bound):
            unit = f"; {self.bound:g} % is {self.bound:g}%" if about.unit and self.bound > 1 else ""
            raise InputError(
                f"the bound on {about.title} must lie between {low:g} and {high:g}",
                f"{text!r}, which {'never' if never else 'always'} holds",
                f"Choose a bound in this range{unit}. {_RULE_HINT}",
            )
        return self

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"


@dataclass(frozen=True)
class Check:
    """Outcome of a rule such as ``ece<=0.03``, with a sentence that gives the numbers."""

    name: str
    outcome: Literal["holds", "fails", "unknown"]
    text: str


def check_requirement(requirement: Requirement, estimate: Estimate) -> Check:
    """Check a bound by the metric's interval: beyond the bound it fails, within it holds, across it is unknown."""
    # A lower bound is checked as an upper bound on the negated metric.
    sign = 1 if requirement.sign == "<=" else -1
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    bound = sign * requirement.bound
    about = requirement.column
    unit = f" {about.unit}" if about.unit else ""
    of_event = f" of {requirement.event}" if requirement.event else ""
    ends = f"interval {about.format(estimate.low)} to {about.format(estimate.high)}"
    if math.isnan(estimate.low):
        ends = "without an interval"
    if estimate.left_out:
        ends += f", without {left_out_text(estimate.left_out)}"
    numbers = (
        f"{about.title}{of_event} {about.format(estimate.value)}{unit}, {ends}, required {requirement.sign} "
        f"{about.format(requirement.bound)}{unit}"
    )
    name = str(requirement)
    if low > bound:
        return Check(name, "fails", f"Fails: {numbers}.")
    if high <= bound:
        return Check(name, "holds", f"Holds: {numbers}.")
    more = "" if math.isnan(estimate.low) else " More samples make the interval narrower."
    text = f"Cannot tell: {numbers}.{more}"
    return Check(name, "unknown", text)


def _check_rules(
    rules: Sequence[str], estimates: Mapping[str, Estimate], verdict: Verdict, *, event: str
) -> list[Check]:
    """Check each rule on the estimates and the verdict of predictions, however many rows they have."""
    parsed = [
        None if _is_calibrated_rule(rule) else Requirement.parse(rule, estimates, event=event)
        for rule in rules
    ]
    checks = [
        _check_calibrated(verdict)
        if rule is None
        else _warn_trivial_bound(check_requirement(rule, estimates[rule.metric]), rule, estimates)
        for rule in parsed
    ]
    # A bound that holds is no sign of calibration where the tests reject it.
    if verdict.rejects_calibration and None not in parsed:
        rejection = f" However, the joint test rejects calibration ({verdict.joint}): add the rule {CALIBRATED}."
        checks = [
            replace(check, text=check.text + rejection) if check.outcome == "holds" else check
            for check in checks
        ]
    return checks


def _check_calibrated(verdict: Verdict) -> Check:
    if verdict.joint_p is None:
        return Check(CALIBRATED, "unknown", "Cannot tell: no calibration test was run.")
    if verdict.rejects_calibration:
        kind = f": {verdict.direction}" if verdict.direction else ""
        text = f"Fails: the joint test rejects calibration ({verdict.joint}){kind}."
        return Check(CALIBRATED, "fails", text)
    joint = f"the joint test does not reject calibration ({verdict.joint})"
    text = f"Holds: {joint}{verdict.alone_clause}."
    return Check(CALIBRATED, "holds", text)


def _warn_trivial_bound(
    check: Check, rule: Requirement, estimates: Mapping[str, Estimate]
) -> Check:
    """Return the check, with a warning if a model that ignores the event would pass the bound."""
    if not rule.event or "observed" not in estimates:
        return check
    share = estimates["observed"].value
    rarer_share = min(share, 1 - share)
    halved = "a model that halves every risk", rarer_share / 2
    constant = "a model that gives every sample the same probability", share * (1 - share)
    model, trivial_error = {"ece": halved, "ici": halved, "brier": constant}.get(
        rule.metric, ("", math.inf)
    )
    if rule.bound < trivial_error:
        return check
    about = rule.column
    unit = f" {about.unit}" if about.unit else ""
    text = (
        f" Warning: with {about.format(share) if about.unit else f'{share:.4f}'}{unit} events, {model} has "
        f"{about.title} {about.format(trivial_error)}{unit}, which this bound allows: add the rule {CALIBRATED}."
    )
    return replace(check, text=check.text + text)


def apply_row_limits(checks: Sequence[Check], *, samples: int, dropped: int) -> list[Check]:
    """Return the checks after limits on rows: too few samples make them unknown, and too many dropped rows fail.

    Args:
        checks: Checks on the rows that were used.
        samples: Number of rows used.
        dropped: Number of rows that lack a value.
    """
    if samples < MIN_SAMPLES:
        warning = f"Cannot tell: only {samples} samples were used, and {MIN_SAMPLES} are needed. "
        checks = [
            replace(check, outcome="unknown", text=warning + check.text)
            if check.outcome == "holds"
            else check
            for check in checks
        ]
    if dropped <= samples:
        return list(checks)
    numbers = f"{dropped:,} of {samples + dropped:,} rows lack a value and were left out"
    return [
        *checks,
        Check("rows", "fails", f"Fails: {numbers}; at least half of the rows must be used."),
    ]


def check_not_worse(
    difference: Difference, margin: float, names: tuple[str, str], *, event: str = ""
) -> Check:
    """Check that the first model is worse than the second by at most ``margin``."""
    about = metric_column(difference.metric, event=bool(event))
    higher = about.arrow == ARROWS[True]
    worse = -difference.difference if higher else difference.difference
    ends = (-difference.high, -difference.low) if higher else (difference.low, difference.high)
    allowed = f" (allowed {about.format(margin)})" if margin else ""
    unit = " points" if about.unit else ""
    of_event = f" of {event}" if event else ""
    word = "worse" if worse > 0 else "better"
    numbers = (
        f"{names[0]} is {word} than {names[1]} in {about.title}{of_event} by "
        f"{about.format(abs(worse))}{unit}{allowed}, interval of the deterioration {_format_signed(ends[0], about)} to "
        f"{_format_signed(ends[1], about)}"
    )
    name = f"{difference.metric} not worse"
    if difference.better == "b" and ends[0] > margin:
        return Check(name, "fails", f"Fails: {numbers}.")
    if ends[1] <= margin:
        return Check(name, "holds", f"Holds: {numbers}.")
    return Check(name, "unknown", f"Not significantly worse: {numbers}.")


def check_metric_direction(metrics: Sequence[str], margin: float = 0.0) -> None:
    """Raise InputError for a metric without a better direction, or a margin as large as the metric's range."""
    check_number("margin", margin, low=0)
    for metric in metrics:
        record = find_measure(metric, event=False)
        if record is None or record.higher_is_better is None:
            directed = [
                entry.name for entry in METRICS.entries() if entry.higher_is_better is not None
            ]
            raise InputError(
                f"fail_if_worse requires a metric that is better if higher or if lower, {', '.join(directed)}",
                repr(metric),
                suggestion(metric, directed),
            )
        low, high = value_range(record)
        if margin >= high - low:
            raise InputError(
                f"margin must be less than {high - low:g}, the largest possible difference in {record.title}",
                f"{margin:g}",
                "Pass a fraction, such as 0.01 for one percentage point.",
            )


@dataclass(frozen=True)
class GateResult:
    """Checks of a gate; true if the gate passes.

    Attributes:
        checks: One for each rule, and one that fails if most rows were left out.
        strict: Whether it fails where an interval cannot tell.

    Example:
        >>> GateResult((Check("ece<=0.03", "holds", "Holds: ECE 1.2 %."),)).status
        0
    """

    checks: tuple[Check, ...]
    strict: bool = False

    def __bool__(self) -> bool:
        return self.status == 0

    def __str__(self) -> str:
        return "\n".join(check.text for check in self.checks)

    __repr__ = __str__

    @property
    def status(self) -> int:
        """Exit status for a pipeline: 0 if passed, 3 if a rule fails, 4 if one is undecided and the gate is strict."""
        return exit_status(self.checks, strict=self.strict)

    def junit(self, *, suite: str = "predictions") -> str:
        """Return the checks as JUnit XML."""
        return to_junit_xml(self.checks, suite=suite, strict=self.strict)


def run_gate(
    rules: Sequence[str],
    estimates: Mapping[str, Estimate],
    verdict: Verdict,
    *,
    replicates: int,
    samples: int,
    dropped: int,
    strict: bool,
    event: str = "",
    example: str = "ece<=0.03",
) -> GateResult:
    """Check rules on the predictions of a report, as its ``require`` does.

    Args:
        rules: Such as ``"ece<=0.03"`` or ``"calibrated"``.
        estimates: Estimates by name.
        verdict: Whether the predictions are calibrated.
        replicates: Number for the intervals of the report.
        samples: Number of rows used.
        dropped: Number of rows that lack a value.
        strict: Whether a rule that the interval does not decide fails.
        event: Name of the class that the measures are about; empty if the predicted class is the subject.
        example: Rule that the error names where there are none.

    Raises:
        InputError: Without rules or intervals, or as :meth:`Requirement.parse`.
    """
    if not rules or not estimates or not replicates:
        raise InputError(
            "a gate requires at least one rule, and a report with intervals",
            f"{len(rules)} rules, {replicates} replicates",
            f"Pass rules such as {example!r}, and call fedlas.report without replicates=0.",
        )
    checks = _check_rules(rules, estimates, verdict, event=event)
    return GateResult(tuple(apply_row_limits(checks, samples=samples, dropped=dropped)), strict)


def exit_status(checks: Sequence[Check], *, strict: bool = False) -> int:
    """Return 0, :data:`EXIT_FAILED` if a check fails, or :data:`EXIT_UNKNOWN` if one is undecided and ``strict``."""
    outcomes = {check.outcome for check in checks}
    if "fails" in outcomes:
        return EXIT_FAILED
    return EXIT_UNKNOWN if strict and "unknown" in outcomes else 0


def to_junit_xml(checks: Sequence[Check], *, suite: str, strict: bool = False) -> str:
    """Return the checks as JUnit XML; an undecided check passes, or fails with ``strict``."""
    bad = ("fails", "unknown") if strict else ("fails",)
    failures = sum(check.outcome in bad for check in checks)
    root = ElementTree.Element(
        "testsuite", name="fedlas", tests=str(len(checks)), failures=str(failures)
    )
    for check in checks:
        test = ElementTree.SubElement(
            root, "testcase", classname=printable(suite), name=printable(check.name)
        )
        text = printable(check.text)
        if check.outcome in bad:
            ElementTree.SubElement(test, "failure", message=text).text = text
        else:
            ElementTree.SubElement(test, "system-out").text = text
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


JUNIT = marked_kind("JUnit XML of fedlas", b'<testsuite name="fedlas"')
_ANNOTATION_LEVELS: Mapping[str, str] = {"fails": "error", "unknown": "warning", "holds": "notice"}


def github_annotations(checks: Sequence[Check]) -> list[str]:
    """Return the checks as annotation lines for GitHub Actions."""
    lines = []
    for check in checks:
        title = _escape_annotation(check.name).replace(":", "%3A").replace(",", "%2C")
        lines.append(
            f"::{_ANNOTATION_LEVELS[check.outcome]} title={title}::{_escape_annotation(check.text)}"
        )
    return lines


def _escape_annotation(text: str) -> str:
    return printable(text).replace("%", "%25")


def _format_signed(value: float, about: Column) -> str:
    return f"{'-' if value < 0 else '+'}{about.format(abs(value))}"
