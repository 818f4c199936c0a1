"""What the watches found, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

HEADS = ("Watch", "State", "Live %", "On the card %", "Evidence", "5 points in", "20 in")


def summary(content: Mapping[str, Any]) -> str:
    """How many samples there were, and what they are compared with."""
    samples, labeled = content["samples"], content["labeled"]
    kinds = {0: "without labels", samples: "with labels"}
    with_labels = kinds.get(labeled, f"{labeled:,} of them with labels")
    return (
        f"{samples:,} live samples, {with_labels}; card of {content['card']}, {content['card_samples']:,} test samples"
    )


def verdict(content: Mapping[str, Any]) -> str:
    """Alarm or none, and by which watch."""
    if content["alarm"]:
        return f"ALARM after sample {content['alarm_after']:,}: {', '.join(content['alarms'])}."
    watched = [name for name, found in content["watches"].items() if found["watched"]]
    return f"no alarm: no change is shown in {', '.join(watched)}."


def leading(name: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The statistic that stands for a watch: its first, or of the classes the one with the most evidence."""
    statistics = found["statistics"]
    return max(statistics, key=lambda each: each["evidence"]) if name == "classes" else statistics[0]


def rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells of :data:`HEADS`, a row a watch."""
    made = []
    for name, found in content["watches"].items():
        if "statistics" not in found:
            made.append((name, found["why"], *["—"] * (len(HEADS) - 2)))
            continue
        shown = leading(name, found)
        made.append(
            (
                name,
                state(found),
                *cells(shown, signed=name == "calibration"),
                power(found["evidence"]) if found["watched"] else "—",
                *("—" if samples is None else about(samples) for samples in found["seen_in"].values()),
            )
        )
    return made


def state(found: Mapping[str, Any]) -> str:
    """Alarm, quiet, or why nothing is watched."""
    if found["alarm"]:
        return "ALARM"
    return "quiet" if found["watched"] else str(found["why"])


def reasons(content: Mapping[str, Any]) -> list[str]:
    """A sentence for each watch that has alarmed: what moved where."""
    lines = []
    for name in content["alarms"]:
        found = content["watches"][name]
        worst = max(found["statistics"], key=lambda each: each["evidence"])
        signed = name == "calibration"
        lines.append(
            f"{worst['name']}: {percent(worst['live'], signed=signed)} %, on the card "
            f"{percent(worst['card'], signed=signed)} ({between(worst, signed=signed)}) %; "
            f"seen after sample {found['alarm_after']:,}."
        )
    return lines


def explanations(content: Mapping[str, Any]) -> list[str]:
    """What the columns hold, and how rare false alarms are."""
    watches = content["watches"]
    shown = [leading(name, found)["name"] for name, found in watches.items() if "statistics" in found]
    threshold = next(found["threshold"] for found in watches.values() if "threshold" in found)
    rate = f"{100 * content['false_alarm']:g} %"
    return [
        f"Live: {', '.join(shown)}. On the card: the interval that its test samples leave. "
        f"Evidence of {threshold:g} is an alarm.",
        "5 points in: samples until it is seen if from now on accuracy or mean confidence is 5 points lower, "
        "or 5 points of the predictions go to another class; — where the card has too few samples to show it.",
        f"False alarms: at most {rate} over the whole stream, however often one looks; a quarter of it for each watch.",
    ]


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share in percent; a dash where there is none."""
    return "—" if share is None else f"{100 * share:{'+' if signed else ''}.2f}"


def between(statistic: Mapping[str, Any], *, signed: bool = False) -> str:
    """The interval of a statistic on the card."""
    return " to ".join(percent(statistic[end], signed=signed) for end in ("low", "high"))


def cells(statistic: Mapping[str, Any], *, signed: bool = False) -> tuple[str, str]:
    """The live mean and the interval on the card."""
    return percent(statistic["live"], signed=signed), between(statistic, signed=signed)


def power(evidence: float) -> str:
    """Evidence, short."""
    return f"{evidence:.2g}" if evidence < 1e4 else f"10^{math.log10(evidence):.0f}"


def about(samples: int) -> str:
    """A number of samples to two digits."""
    digits = max(0, len(str(samples)) - 2)
    return f"~{round(samples, -digits):,}"
