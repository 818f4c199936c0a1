"""Calibrators by name: what each is fitted on, one of them or all that can run, and what they leave of a test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedlas._core.check import InputError, check_choice
from fedlas._core.extras import MissingExtraError
from fedlas._core.ranks import new_accelerator
from fedlas._core.registry import Entry
from fedlas.calibrators import CALIBRATORS, Calibrator
from fedlas.calibrators.notes import fit_with_notes
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import load_trained
from fedlas.objective.perturbed import drifted_predictions
from fedlas.predictions import Predictions

ALL = "all"
"""In place of a name: every calibrator that can run."""

_LEVELS = 10


@dataclass(frozen=True)
class HeldOut:
    """Where the predictions that calibrators are fitted on come from.

    Args:
        given: A file that was named; the only one for a single calibrator, the validation part when all are fitted.
        folder: A run folder, which has a file for each part or from whose model it can be made.
        data: Where the run's data is; None searches the usual places.
        show: Called with what is being done, where that may take long; see :func:`fedlas._core.terminal.status`.
        read: Reads predictions from a file.
    """

    given: Path | None
    folder: Path | None
    data: str | None = None
    show: Callable[[str], None] = lambda _text: None
    read: Callable[[Path], Predictions] = Predictions.load
    _loaded: dict[Path, Predictions] = field(default_factory=dict)

    def path(self, entry: Entry[type[Calibrator]], *, alone: bool) -> Path:
        """The file that ``entry`` is fitted on, whether it is there or not.

        Args:
            entry: The calibrator.
            alone: Whether it is the only one, so that a named file is meant for it.

        Raises:
            InputError: If there is neither a file for it nor a run folder.
        """
        part = part_of(entry)
        if self.given is not None and (alone or part == "val"):
            return self.given
        if self.folder is None:
            raise InputError(
                f"calibrator {entry.name}",
                f"it needs predictions of the part {part!r}, which are made from a run",
                "a file",
                f"Pass the run folder instead of its test.npz, or --calibrate {entry.name} --on {part}.npz.",
            )
        return RunFolder(self.folder).part_path(part)

    def predictions(self, entry: Entry[type[Calibrator]], *, alone: bool) -> Predictions:
        """What ``entry`` is fitted on; read once, made and saved first if the run's model must make it.

        Raises:
            InputError: If there is no such file and it cannot be made, or it cannot be read.
        """
        path, make = self.path(entry, alone=alone), MADE.get(part_of(entry))
        if make is None or self.folder is None or path == self.given:
            return self._load(path)
        if not path.is_file() or not _holds(self._load(path), entry.value.needs):
            self._loaded[path] = make(self.folder, self, bool(entry.value.needs))
            self._loaded[path].save(path)
        return self._load(path)

    def validation(self) -> Predictions:
        """The file that was named, or the run's validation part.

        Raises:
            InputError: If there is neither, or it cannot be read.
        """
        if self.given is not None:
            return self._load(self.given)
        if self.folder is None:
            raise InputError("fedlas evaluate", "held-out predictions are needed", "no --on", "Pass --on val.npz.")
        return self._load(RunFolder(self.folder).part_path("val"))

    def _load(self, path: Path) -> Predictions:
        if path not in self._loaded:
            self._loaded[path] = self.read(path)
        return self._loaded[path]


@dataclass(frozen=True)
class Calibrated:
    """What calibrators left of a test set.

    Attributes:
        predictions: Test predictions after each, by registry name.
        notes: What fits warned of.
        not_run: Why the others did not run, by registry name.
        needed: The same without what to do, which is shorter.
        made: Files that some were fitted on instead of the run's validation predictions, by registry name.
    """

    predictions: Mapping[str, Predictions]
    notes: Sequence[str] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)


def part_of(entry: Entry[type[Calibrator]]) -> str:
    """Name of the part that a calibrator is fitted on, ``"val"`` unless its metadata say another."""
    return str(entry.metadata.get("part", "val"))


def calibrated(name: str, test: Predictions, held_out: HeldOut) -> Calibrated:
    """Test predictions after the calibrator ``name``, or after each that can run if it is ``"all"``.

    Raises:
        InputError: For an unknown name; if the named calibrator cannot be fitted or applied; or if none of all can.
        MissingExtraError: If the named calibrator needs a package that is not installed.
    """
    check_choice("fedlas evaluate", "--calibrate", name, (*CALIBRATORS, ALL))
    alone = name != ALL
    found: dict[str, Predictions] = {}
    notes: list[str] = []
    made: dict[str, str] = {}
    errors: dict[str, InputError | MissingExtraError] = {}
    entries = [CALIBRATORS[name]] if alone else CALIBRATORS.entries()
    # One that cannot run does not stop the others; alone it is the answer.
    for number, entry in enumerate(entries, start=1):
        held_out.show(f"{entry.name} ({number} of {len(entries)})")
        try:
            found[entry.name], doubts = _fit_and_transform(entry, test, held_out, alone=alone)
            notes += doubts
            path = held_out.path(entry, alone=alone)
            if part_of(entry) in MADE and path != held_out.given:
                made[entry.name] = path.name
        except (InputError, MissingExtraError) as error:
            errors[entry.name] = error
    # Nothing to compare: the first reason is the error.
    if not found:
        raise next(iter(errors.values()))
    whole = {name: str(error) for name, error in errors.items()}
    needed = {name: error.parts[1] if isinstance(error, InputError) else str(error) for name, error in errors.items()}
    return Calibrated(found, notes, made, whole, needed)


def remarks(outcome: Calibrated, *, short: bool = False) -> list[str]:
    """What to say below a table: which calibrators are fitted on another file, and which did not run and why.

    Args:
        outcome: What the calibrators left.
        short: Whether to leave out what to do about those that did not run.
    """
    lines = [f"{name} is fitted on {file}, not on val.npz." for name, file in outcome.made.items()]
    if short:
        return lines + [f"{name} did not run: {reason}." for name, reason in outcome.needed.items()]
    return lines + [f"{name} did not run. {reason}" for name, reason in outcome.not_run.items()]


def _fit_and_transform(
    entry: Entry[type[Calibrator]], test: Predictions, held_out: HeldOut, *, alone: bool
) -> tuple[Predictions, list[str]]:
    """Test predictions after a fresh calibrator, and what its fit warned of."""
    val = held_out.predictions(entry, alone=alone)
    fitted, notes = fit_with_notes(entry.value(), val, unlabeled=test)
    return fitted.transform(test), list(notes)


def _holds(predictions: Predictions, needs: frozenset[str]) -> bool:
    return all(getattr(predictions, name) is not None for name in needs)


def _drifted(folder: Path, held_out: HeldOut, features: bool) -> Predictions:
    """The run's model on its validation images under growing noise."""
    trained = load_trained(folder, data=held_out.data).to(new_accelerator().device)
    splits, train = trained.splits, trained.run.recipe.train
    batches = splits.batches(splits.val, batch_size=train.batch_size)

    def on_level(level: int, noise: float, accuracy: float) -> None:
        held_out.show(f"val-drift.npz: level {level + 1} of {_LEVELS}, noise {noise:.2f}, accuracy {accuracy:.1%}")

    return drifted_predictions(
        trained.objective,
        batches,
        levels=_LEVELS,
        seed=trained.run.seed,
        features=features,
        on_level=on_level,
    )


MADE: dict[str, Callable[[Path, HeldOut, bool], Predictions]] = {"val-drift": _drifted}
"""Parts that a run does not leave and that are made from its model when first asked for; with or without features."""
