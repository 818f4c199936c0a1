"""``fedlas evaluate --reject``: which predictions may be accepted for a wanted risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedlas._core.check import InputError, check_number
from fedlas._core.terminal import say, show
from fedlas.calibrators import CALIBRATORS
from fedlas.calibrators.notes import fit_with_notes
from fedlas.predictions import Predictions
from fedlas.present.calibrate import ALL, HeldOut
from fedlas.present.table import DASH, table_of, terminal
from fedlas.stats.reject_option import RejectOption, reject_option

Rejections = Mapping[str, Sequence[RejectOption]]
"""By stage, one for each wanted risk."""


def check_reject(risks: Sequence[float], calibrate: str | None, *, held_out: bool) -> None:
    """Refuse what ``--reject`` cannot mean, before anything is read.

    Raises:
        InputError: For a risk outside (0, 1), no held-out predictions, or every calibrator at once.
    """
    owner = "fedlas evaluate"
    for risk in risks:
        check_number(owner, "--reject", risk, low=0, high=1, low_open=True, high_open=True)
    if risks and calibrate == ALL:
        fix = "Name one calibrator, or leave --calibrate out."
        raise InputError(owner, "--reject is for one model", "--calibrate all", fix)
    if risks and not held_out:
        fix = "Pass --on val.npz; a threshold chosen on the test set would flatter it."
        raise InputError(owner, "--reject needs held-out predictions", "no --on", fix)


def rejections(
    stages: Mapping[str, Predictions], risks: Sequence[float], calibrate: str | None, held_out: HeldOut
) -> Rejections:
    """Thresholds from the held-out predictions for every stage, applied to its test predictions."""
    if not risks:
        return {}
    first, *after = stages.values()
    val = held_out.validation()
    found: dict[str, tuple[Predictions, Predictions]] = {"as predicted": (val, first)}
    if calibrate is not None:
        # The calibrator is fitted on these very samples, so that its thresholds are slightly optimistic.
        entry = CALIBRATORS[calibrate]
        calibrator, _ = fit_with_notes(entry.value(), held_out.predictions(entry, alone=True))
        found[f"after {calibrate}"] = (calibrator.transform(val), after[0])
    return {stage: [reject_option(*pair, risk=risk) for risk in risks] for stage, pair in found.items()}


def plain(found: Rejections) -> dict[str, Any]:
    """For JSON."""
    return {"reject": {stage: [each.plain() for each in each_risk] for stage, each_risk in found.items()}}


def show_rejections(found: Rejections) -> None:
    """Print a table for every stage, and what its numbers mean."""
    heads = ("risk %", "accept from", "accepted %", "wrong %", "at most %")
    for stage, each_risk in found.items():
        rows = [[f"{100 * each.chosen.risk:g}", *_cells(each)] for each in each_risk]
        show(terminal(table_of(heads, rows, title=f"Reject option, {stage}")))
    missed = {each.chosen.risk: each.chosen.needed for each_risk in found.values() for each in each_risk
              if each.threshold is None}  # fmt: skip
    say(*(f"No threshold for {100 * risk:g} %: even without a mistake it takes {needed:,} accepted samples."
          for risk, needed in missed.items()), wrap=True)  # fmt: skip
    if found:
        level = f"{next(iter(found.values()))[0].chosen.level:.0%}"
        say(
            f"Thresholds are chosen on the held-out predictions so that the risk holds with {level}; the other columns "
            f"are of the test predictions, 'at most' with {level}.",
            style="dim",
            wrap=True,
        )


def _cells(each: RejectOption) -> list[str]:
    if each.threshold is None:
        return ["none", *[DASH] * 3]
    wrong = DASH if each.risk is None else f"{100 * each.risk:.2f}"
    return [f"{each.threshold:.4f}", f"{100 * each.coverage:.1f}", wrong, f"{100 * each.upper:.2f}"]
