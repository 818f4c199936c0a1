"""Table of the options that ``fedlas tune`` searches by default for each loss."""

from __future__ import annotations

from fedlas.lab.tune.domain import Choices, Domain, parse_domain
from fedlas.losses import LOSSES


def tuned_rows() -> list[dict[str, str]]:
    """Rows for ``fedlas list tuning``: the ranges that each loss declares at its registration."""
    return [{"name": entry.name, "what it is": _text(entry.metadata.get("tune", {}))} for entry in LOSSES.entries()]


def words(domain: Domain) -> str:
    """A domain as readable text."""
    if isinstance(domain, Choices):
        return domain.text.replace(",", ", ")
    kinds = [*(["logarithmic"] if domain.log else []), *(["whole numbers"] if domain.whole else [])]
    return f"{domain.low:g} to {domain.high:g}" + (f" ({', '.join(kinds)})" if kinds else "")


def _text(declared: dict[str, str]) -> str:
    if not declared:
        return "nothing to tune"
    return "; ".join(f"{option} {words(parse_domain(text, option))}" for option, text in declared.items())
