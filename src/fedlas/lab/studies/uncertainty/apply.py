"""Applies a method to finished runs, and leaves a folder like any run's: reports and evaluations read it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import remove, write_json
from fedlas._core.ranks import new_accelerator, on_main
from fedlas.lab.runs.claim import BusyError, claim, finished, locked
from fedlas.lab.runs.environment import note_start
from fedlas.lab.runs.execute import measure
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Result
from fedlas.lab.studies.uncertainty.members import common_data, description, open_members

_OWNER = "fedlas uncertainty"
_GIVEN = ("runs", "folder")  # to a method, and so no options


@dataclass(frozen=True)
class Derived:
    """What is made of runs: a method, its options, the runs, and the folder that it goes to.

    Attributes:
        method: Registry name.
        options: All options, defaults included.
        members: The runs.
        runs: What each is, by its name, plain values only.
        loss: Name that it has in a report, in the place of a loss.
        folder: Its folder.
    """

    method: str
    options: Mapping[str, Any]
    members: Sequence[RunFolder]
    runs: Mapping[str, Mapping[str, Any]]
    loss: str
    folder: Path

    @property
    def seed(self) -> int:
        """Lowest seed of the runs: what a report pairs it by."""
        return min(member.run.seed for member in self.members)

    def config(self) -> dict[str, Any]:
        """What ``config.yaml`` holds: the method with its options, and each run with its configuration."""
        first = self.members[0].run.recipe
        return {
            "recipe": first.name,
            "loss": {"name": self.loss},
            "seed": self.seed,
            "uncertainty": {"name": self.method, **self.options},
            "train": {"num_bins": first.train.num_bins},
            "runs": dict(self.runs),
        }


def plan_method(
    method: str,
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    options: Mapping[str, Any] | None = None,
    name: str | None = None,
    data: str | None = None,
) -> Derived:
    """Check everything that can be checked before anything is computed.

    Args:
        method: Registry name, see ``fedlas list uncertainty``.
        folders: Folders of finished runs.
        out: Folder of the result; None is one beside the first run, e.g. ``deep-ensemble-ce-s0``.
        options: Options of the method; the others keep their defaults.
        name: Its name in a report; None is the method with the losses of the runs, e.g. ``deep-ensemble(ce)``.
        data: Where the runs' data is; None searches the usual places.

    Raises:
        InputError: For an unknown method or option (the nearest is named), a number of runs that the method does not
            take, or runs that cannot be used.
    """
    # How many runs the method takes.
    entry = UNCERTAINTY[method]
    least, most = entry.metadata["least"], entry.metadata["most"]
    if not least <= len(folders) <= (most or len(folders)):
        wanted = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
        raise InputError(
            _OWNER,
            f"{method} takes {wanted} run{'s' * (wanted != '1')}",
            len(folders),
            "Apply it to each in turn." if most == 1 else "Name the folders of more runs, or of fewer.",
        )
    # Its options, and none that it does not have.
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(entry.value).parameters.items()
        if key not in _GIVEN
    }
    for key in options or {}:
        if key not in defaults:
            fix = suggestion(key, defaults) if defaults else "Leave it out."
            raise InputError(f"uncertainty method {method}", "options must be its own", repr(key), fix)
    # Name and folder follow from the members, so that the same command finds the same result.
    members = open_members(folders, data=data)
    losses = list(dict.fromkeys(member.run.loss for member in members))
    what = "+".join(losses) if len(losses) <= 3 else f"{len(losses)}-losses"
    folder = out or members[0].path.parent / f"{method}-{what}-s{min(member.run.seed for member in members)}"
    loss = name or f"{method}({', '.join(losses) if len(losses) <= 3 else f'{len(losses)} losses'})"
    runs = {member.name: description(member) for member in members}
    return Derived(method, {**defaults, **(options or {})}, members, runs, loss, folder)


def apply_method(derived: Derived) -> dict[str, Any]:
    """Compute, measure and write; return what is there already if it is finished.

    Args:
        derived: From :func:`plan_method`.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds something else, or is being worked on by another process;
            and whatever the method finds wrong.

    State:
        Everything lands in ``derived.folder``: ``config.yaml``, ``data.json``, ``environment.json``, ``predictions/``,
        ``work/`` for what the method trains, and last ``metrics.json``: a folder that has it is finished.
    """
    accelerator = new_accelerator()
    metrics = on_main(accelerator, lambda: finished(derived))
    if metrics is not None:
        return metrics
    try:
        return _apply(derived, accelerator)
    except BusyError:
        raise
    except (InputError, MissingExtraError):
        lock = RunFolder(derived.folder).lock_path
        left = list(derived.folder.iterdir()) if derived.folder.is_dir() else None
        if accelerator.is_main_process and left == [lock]:
            remove(lock, inside=derived.folder)
            derived.folder.rmdir()
        raise


def _apply(derived: Derived, accelerator: Any) -> dict[str, Any]:
    started = time.monotonic()
    folder = RunFolder(derived.folder)
    before = (folder.config_path, folder.data_path, folder.environment_path)  # written before the method starts
    with locked(derived.folder, accelerator):
        fresh = not any(path.exists() for path in (*before, folder.work_path))
        metrics = on_main(accelerator, lambda: claim(derived, common_data(derived.members)))
        if metrics is not None:
            return metrics
        if accelerator.is_main_process:
            note_start(derived.folder, accelerator.device)
        # The method itself; it resumes from its work folder.
        given = {"runs": derived.members, "folder": folder.work_path}
        try:
            result: Result = UNCERTAINTY.build(derived.method, derived.options, **given)
        except (InputError, MissingExtraError):
            if fresh and accelerator.is_main_process and not folder.work_path.exists():
                for path in before:  # or the same command with a better option would be refused
                    remove(path, inside=derived.folder)
            raise
        # metrics.json comes last: it is what marks a run as finished.
        metrics = _metrics(derived, result, time.monotonic() - started)
        if accelerator.is_main_process:
            for part, predictions in (("val", result.val), ("test", result.test)):
                if predictions is not None:
                    predictions.save(folder.part_path(part))
            write_json(folder.metrics_path, metrics)
        accelerator.wait_for_everyone()
    return metrics


def _metrics(derived: Derived, result: Result, seconds: float) -> dict[str, Any]:
    members = derived.members
    measured = measure(result.val, result.test, num_bins=members[0].run.recipe.train.num_bins)
    # A method that does not say otherwise keeps all of its runs in use, so their sizes add up.
    parameters = result.parameters
    if parameters is None:
        parameters = sum(int(member.metrics["parameters"]) for member in members)
    notes = [f"made of {', '.join(member.name for member in members)}", *result.notes, *measured.pop("notes")]
    return {
        "format": FORMAT,
        "run": derived.folder.resolve().name,
        "recipe": members[0].run.recipe.name,
        "loss": derived.loss,
        "seed": derived.seed,
        "uncertainty": derived.method,
        "runs": [member.name for member in members],
        "epochs": None,
        "best_epoch": None,
        "selected_by": None,
        "parameters": parameters,
        "details": dict(result.details),
        **measured,
        "notes": notes,
        # What it cost in all, the training of its runs included.
        "seconds": round(seconds + sum(float(member.metrics["seconds"]) for member in members), 2),
    }
