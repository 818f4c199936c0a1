"""What a method for uncertainty takes, finished runs, and what it returns, predictions; and the methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedlas._core.registry import Registry
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class Result:
    """What a method returns.

    Attributes:
        test: Predictions on the test part; logits are log-probabilities up to a constant a sample.
        val: The same on validation; None if no validation part is fair to all runs. No temperature is fitted then.
        notes: What a reader of the numbers should know; they stand in the report.
        parameters: Numbers that have to be kept to predict; None is the sum over the runs' models.
        details: Plain values for ``metrics.json``, such as the weights of an ensemble's members.
    """

    test: Predictions
    val: Predictions | None = None
    notes: Sequence[str] = ()
    parameters: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[..., Result]
"""``method(runs: Sequence[RunFolder], *, option=default, ...) -> Result``. One that has a parameter ``folder: Path``
gets a folder of its own inside the result's, where what it trains can go on after a kill."""

UNCERTAINTY: Registry[Method] = Registry("uncertainty method")
"""Methods by name. Metadata: ``title`` (its name as a heading), ``paper`` (its title), ``year``, ``url``, ``least`` and
``most`` (how many runs it takes; None for any number)."""


def method(
    name: str, title: str, paper: str, year: int, arxiv: str, *, least: int = 1, most: int | None = 1
) -> Callable[[Method], Method]:
    """Register a method under ``name``; ``arxiv`` is the paper's number there, the rest as in :data:`UNCERTAINTY`."""
    url = f"https://arxiv.org/abs/{arxiv}"
    return UNCERTAINTY.register(name, title=title, paper=paper, year=year, url=url, least=least, most=most)
