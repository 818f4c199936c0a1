"""The reject option: from which confidence on predictions may be accepted for a risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas.calibrators import Calibrator
from fedlas.predictions.predictions import AnyPredictions
from fedlas.present.blocks import Block, Note
from fedlas.present.table import DASH, table_of
from fedlas.stats.reject_option import RejectOption, reject_option

Rejections = Mapping[str, Sequence[RejectOption]]
"""By stage, one for each risk."""


def rejections(
    stages: Mapping[str, AnyPredictions], risks: Sequence[float], val: AnyPredictions, fitted: Mapping[str, Calibrator]
) -> Rejections:
    """Return thresholds that are chosen on held-out predictions for every stage and applied to its test predictions.

    Args:
        stages: Test predictions by stage.
        risks: Shares of wrong among accepted predictions, each in (0, 1).
        val: Held-out predictions.
        fitted: The calibrator of each stage but the first. They are fitted on these very samples, so that thresholds
            after them are slightly optimistic.
    """
    held_out = {stage: fitted[stage].transform(val) if stage in fitted else val for stage in stages}
    return {
        stage: [reject_option(held_out[stage], test, risk=risk) for risk in risks] for stage, test in stages.items()
    }


def plain_rejections(rejected: Rejections) -> dict[str, Any]:
    """Return the thresholds for JSON."""
    return {stage: [each.plain() for each in options] for stage, options in rejected.items()}


def rejection_blocks(rejected: Rejections) -> list[Block]:
    """Return a table for every stage, and sentences on what its numbers mean."""
    heads = ("risk %", "accept from", "accepted %", "wrong %", "at most %")
    blocks: list[Block] = []
    for stage, options in rejected.items():
        rows = [[f"{100 * each.chosen.risk:g}", *_cells(each)] for each in options]
        blocks.append(table_of(heads, rows, title=f"Reject option, {stage}"))
    missed = {each.chosen.risk: each.chosen.needed for options in rejected.values() for each in options
              if each.threshold is None}  # fmt: skip
    blocks += [
        f"No threshold for {100 * risk:g} %: even without a mistake it takes {needed:,} accepted samples."
        for risk, needed in missed.items()
    ]
    if rejected:
        level = f"{next(iter(rejected.values()))[0].chosen.confidence_level:.0%}"
        blocks.append(
            Note(
                f"Thresholds are chosen on the held-out predictions so that the risk holds with {level}; the other "
                f"columns are of the test predictions, 'at most' with {level}."
            )
        )
    return blocks


def _cells(each: RejectOption) -> list[str]:
    if each.threshold is None:
        return ["none", *[DASH] * 3]
    wrong = DASH if each.risk is None else f"{100 * each.risk:.2f}"
    accept = "all" if each.coverage == 1 == each.chosen.coverage else f"{each.threshold:.4f}"
    return [accept, f"{100 * each.coverage:.1f}", wrong, f"{100 * each.upper:.2f}"]
