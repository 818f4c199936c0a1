"""A gate for a pipeline: requirements on metrics that hold, fail, or are within chance; its options and results."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from fedlas._core.check import InputError, suggestion
from fedlas._core.files import write_text
from fedlas._core.terminal import say
from fedlas._core.text import printable
from fedlas.cli.arguments import add_path, flag
from fedlas.metrics import METRICS
from fedlas.present.table import Column, column
from fedlas.stats.estimates import Estimate
from fedlas.stats.two_models import ModelDifference

FAILED = 3
"""Exit status of a gate that fails."""
_RULE = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=)\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*(%?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Requirement:
    """A bound of a metric, as ``ece<=0.03``."""

    metric: str  # registry name
    sign: str  # <= or >=
    bound: float  # a fraction for a metric in percent

    @classmethod
    def parse(cls, text: str, names: Iterable[str]) -> Requirement:
        """Return the requirement on one of ``names`` that a text states, such as ``ece<=0.03`` or ``ece<=3%``."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise InputError(
                "--require must be a metric, <= or >=, and a number",
                repr(text),
                "Write 'ece<=0.03' or 'accuracy>=90%', in quotes.",
            )
        metric, sign, number, percent = match.groups()
        metrics = list(names)
        if metric not in metrics:
            raise InputError(
                f"--require must name a metric of these predictions, {', '.join(metrics)}",
                repr(metric),
                suggestion(metric, metrics),
            )
        return cls(metric, sign, float(number) / (100 if percent else 1))

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"


@dataclass(frozen=True)
class Check:
    """A requirement such as ``ece<=0.03``, whether the interval decides it, and a sentence with the numbers."""

    name: str
    outcome: Literal["holds", "fails", "unknown"]
    text: str


def required(requirement: Requirement, estimate: Estimate) -> Check:
    """Compare the interval of a metric with a bound: beyond it fails, within it holds, across it is unknown."""
    # What must be large is compared with its sign turned.
    sign = 1 if requirement.sign == "<=" else -1
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    bound = sign * requirement.bound
    about = column(requirement.metric)
    unit = f" {about.unit}" if about.unit else ""
    numbers = (
        f"{about.title} {about.format(estimate.value)}{unit}, interval {about.format(estimate.low)} to "
        f"{about.format(estimate.high)}, required {requirement.sign} {about.format(requirement.bound)}{unit}"
    )
    name = str(requirement)
    if low > bound:
        return Check(name, "fails", f"Fails: {numbers}.")
    if high <= bound:
        return Check(name, "holds", f"Holds: {numbers}.")
    text = f"Cannot tell: {numbers}. More samples make the interval narrower."
    return Check(name, "unknown", text)


def not_worse(difference: ModelDifference, margin: float, names: tuple[str, str]) -> Check:
    """Check that the first of two models is not worse than the second by more than a margin, beyond chance."""
    higher = METRICS[difference.metric].higher_is_better
    about = column(difference.metric)
    worse = -difference.difference if higher else difference.difference
    ends = (-difference.high, -difference.low) if higher else (difference.low, difference.high)
    allowed = f" (allowed {about.format(margin)})" if margin else ""
    unit = " points" if about.unit else ""
    word = "worse" if worse > 0 else "better"
    numbers = (
        f"{names[0]} is {word} than {names[1]} in {about.title} by {about.format(abs(worse))}{unit}{allowed}, "
        f"interval of the loss {_signed(ends[0], about)} to {_signed(ends[1], about)}"
    )
    name = f"{difference.metric} not worse"
    if difference.better == "b" and ends[0] > margin:
        return Check(name, "fails", f"Fails: {numbers}.")
    if ends[1] <= margin:
        return Check(name, "holds", f"Holds: {numbers}.")
    return Check(name, "unknown", f"Not worse beyond chance: {numbers}.")


def check_directed(metrics: Sequence[str]) -> None:
    """Refuse metrics that do not exist, or of which neither more nor less is better."""
    for metric in metrics:
        if metric not in METRICS or METRICS[metric].higher_is_better is None:
            directed = [
                entry.name for entry in METRICS.entries() if entry.higher_is_better is not None
            ]
            raise InputError(
                f"--fail-if-worse must name metrics with a better direction, {', '.join(directed)}",
                repr(metric),
                suggestion(metric, directed),
            )


def status_of(checks: Sequence[Check]) -> int:
    """Return the exit status: 0, or :data:`FAILED` if a check fails."""
    return FAILED if any(check.outcome == "fails" for check in checks) else 0


def junit(checks: Sequence[Check], *, suite: str) -> str:
    """Return the checks as JUnit XML; one that is unknown passes, and says so."""
    failures = sum(check.outcome == "fails" for check in checks)
    root = ElementTree.Element(
        "testsuite", name="fedlas", tests=str(len(checks)), failures=str(failures)
    )
    for check in checks:
        test = ElementTree.SubElement(
            root, "testcase", classname=printable(suite), name=printable(check.name)
        )
        text = printable(check.text)
        if check.outcome == "fails":
            ElementTree.SubElement(test, "failure", message=text).text = text
        else:
            ElementTree.SubElement(test, "system-out").text = text
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


_KINDS: Mapping[str, str] = {"fails": "error", "unknown": "warning", "holds": "notice"}


def workflow_annotations(checks: Sequence[Check]) -> list[str]:
    """Return the checks as annotations of GitHub Actions, one a line."""
    lines = []
    for check in checks:
        title = _escaped(check.name).replace(":", "%3A").replace(",", "%2C")
        lines.append(f"::{_KINDS[check.outcome]} title={title}::{_escaped(check.text)}")
    return lines


def _escaped(text: str) -> str:
    return printable(text).replace("%", "%25")


def _signed(value: float, about: Column) -> str:
    return f"{'-' if value < 0 else '+'}{about.format(abs(value))}"


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Add ``--junit`` and ``--github``."""
    add_path(parser, "--junit", "XML", "also write the checks as JUnit XML (default: none)")
    flag(
        parser, "--github", "also print the checks as annotations of GitHub Actions (default: not)"
    )


def check_gate(args: argparse.Namespace, option: str, rules: Sequence[str]) -> None:
    """Refuse options of a gate without rules, and rules without intervals."""
    if not rules and (args.junit is not None or args.github):
        got = "--junit" if args.junit is not None else "--github"
        raise InputError(
            f"{got} shows the result of {option}", f"no {option}", f"Add {option}, or leave it out."
        )
    if rules and args.replicates == 0:
        raise InputError(
            f"{option} needs replicates",
            0,
            "Leave --replicates out: without intervals nothing shows what is chance.",
        )


def show_gate(checks: Sequence[Check], args: argparse.Namespace, *, suite: str) -> int:
    """Print the checks, and write them where options ask for it; return the exit status."""
    # With --json, standard output is for JSON alone.
    say(*(check.text for check in checks), wrap=True, stderr=args.json)
    if args.github:
        say(*workflow_annotations(checks), stderr=args.json)
    if args.junit is not None:
        write_text(args.junit, junit(checks, suite=suite))
    return status_of(checks)
