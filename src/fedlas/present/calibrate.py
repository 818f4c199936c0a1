"""Calibrators by name: the predictions that each is fitted on, and test predictions after one or all that can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_choice
from fedlas._core.extras import MissingExtraError
from fedlas._core.registry import Entry
from fedlas.calibrators import CALIBRATORS, Calibrator
from fedlas.calibrators.notes import fit_with_notes
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions

ALL = "all"
"""In place of a name: every calibrator that can run."""
DEFAULT = "auto"
"""The calibrator where none is named."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions that calibrators are fitted on.

    Args:
        val: Predictions of the validation part; None if there are none.
        named: Whether the user named them: then they are for the one calibrator, whatever part it asks for.
        parts: By name of another part, makes its predictions with the fields that the calibrator needs.
        show: Called with what is being done, where that may take long; see :func:`fedlas._core.terminal.status`.
    """

    val: AnyPredictions | None
    named: bool = True
    parts: Mapping[str, Callable[[frozenset[str]], Predictions]] = field(default_factory=dict)
    show: Callable[[str], None] = lambda _text: None

    def is_made(self, entry: Entry[type[Calibrator]], *, alone: bool) -> bool:
        """Return whether ``entry`` is fitted on predictions made for it instead of ``val``; arguments as below."""
        return part_of(entry) != "val" and not (self.named and alone)

    def predictions(self, entry: Entry[type[Calibrator]], *, alone: bool) -> AnyPredictions:
        """Return the predictions that ``entry`` is fitted on.

        Args:
            entry: The calibrator.
            alone: Whether it is the only one.

        Raises:
            InputError: If there are none for it, or they cannot be made.
        """
        part = part_of(entry)
        if not self.is_made(entry, alone=alone):
            return self.validation()
        if part not in self.parts:
            raise InputError(
                f"calibrator {entry.name}",
                f"it needs predictions of the part {part!r}, which are made from a run",
                "a file",
                f"Pass the run folder instead of its test.npz, or --calibrate {entry.name} --on {part}.npz.",
            )
        return self.parts[part](entry.value.needs)

    def is_of(self, predictions: AnyPredictions) -> bool:
        """Return whether the held-out predictions are these very ones."""
        return self.val is not None and is_same(self.val, predictions)

    def validation(self) -> AnyPredictions:
        """Return the validation predictions.

        Raises:
            InputError: If there are none.
        """
        if self.val is None:
            raise InputError("fedlas evaluate", "held-out predictions are needed", "no --on", "Pass --on val.npz.")
        return self.val


@dataclass(frozen=True)
class Calibrated:
    """Test predictions after each calibrator.

    Attributes:
        predictions: By registry name.
        fitted: The calibrators, by registry name.
        notes: What fits warned of.
        not_run: Why the others did not run, by registry name.
        needed: The same without what to do, which is shorter.
        made: Files that some were fitted on instead of the run's validation predictions, by registry name.
    """

    predictions: Mapping[str, AnyPredictions] = field(default_factory=dict)
    fitted: Mapping[str, Calibrator] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)


def is_same(a: AnyPredictions, b: AnyPredictions) -> bool:
    """Return whether two sets of predictions hold the same logits, or confidences and outcomes, sample by sample."""
    pairs = zip(_numbers_of(a), _numbers_of(b), strict=False)
    return type(a) is type(b) and all(torch.equal(one, other) for one, other in pairs)


def _numbers_of(predictions: AnyPredictions) -> tuple[Tensor, ...]:
    if isinstance(predictions, Predictions):
        return (predictions.logits,)
    return predictions.confidence, predictions.correct


def part_of(entry: Entry[type[Calibrator]]) -> str:
    """Name of the part that a calibrator is fitted on, ``"val"`` unless its metadata say another."""
    return str(entry.metadata.get("part", "val"))


def calibrated(name: str, test: AnyPredictions, held_out: HeldOut) -> Calibrated:
    """Return test predictions after the calibrator ``name``, or after each that can run if it is ``"all"``.

    Raises:
        InputError: For an unknown name; if the named calibrator cannot be fitted or applied; or if none of all can.
        MissingExtraError: If the named calibrator needs a package that is not installed.
    """
    check_choice("fedlas evaluate", "--calibrate", name, (*CALIBRATORS, ALL))
    alone = name != ALL
    predictions: dict[str, AnyPredictions] = {}
    fitted: dict[str, Calibrator] = {}
    notes: list[str] = []
    made: dict[str, str] = {}
    errors: dict[str, InputError | MissingExtraError] = {}
    entries = [CALIBRATORS[name]] if alone else CALIBRATORS.entries()
    # One that cannot run does not stop the others; alone it is the answer.
    for number, entry in enumerate(entries, start=1):
        held_out.show(f"{entry.name} ({number} of {len(entries)})")
        try:
            val = held_out.predictions(entry, alone=alone)
            calibrator, doubts = fit_with_notes(entry.value(), val, unlabeled=test)
            predictions[entry.name], fitted[entry.name] = calibrator.transform(test), calibrator
            notes += doubts
            if held_out.is_made(entry, alone=alone):
                made[entry.name] = f"{part_of(entry)}.npz"
        except (InputError, MissingExtraError) as error:
            errors[entry.name] = error
    # Nothing to compare: the first reason is the error.
    if not predictions:
        raise next(iter(errors.values()))
    whole = {name: str(error) for name, error in errors.items()}
    needed = {name: error.parts[1] if isinstance(error, InputError) else str(error) for name, error in errors.items()}
    return Calibrated(predictions, fitted, notes, made, whole, needed)


def remarks(outcome: Calibrated, *, short: bool = False) -> list[str]:
    """Return sentences for below a table: which calibrators are fitted on another file, and which did not run.

    Args:
        outcome: From :func:`calibrated`.
        short: Whether to leave out what to do about those that did not run.
    """
    lines = [f"{name} is fitted on {file}, not on val.npz." for name, file in outcome.made.items()]
    if short:
        return lines + [f"{name} did not run: {reason}." for name, reason in outcome.needed.items()]
    return lines + [f"{name} did not run. {reason}" for name, reason in outcome.not_run.items()]
