"""Registry of uncertainty methods, and their application to finished runs, with a run folder as the result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import remove, write_json
from fedlas._core.ranks import Accelerator, new_accelerator, run_on_main
from fedlas._core.registry import Registry
from fedlas.lab.runs.begin import (
    BusyError,
    acquire_folder,
    lock_folder,
    read_metrics_if_finished,
    require_finished,
)
from fedlas.lab.runs.folder import FORMAT, RunFolder
from fedlas.lab.runs.measure import measure_predictions
from fedlas.lab.runs.provenance import record_start
from fedlas.lab.train.checkpoint import config_differences
from fedlas.predictions import Predictions

_NON_OPTIONS = ("runs", "folder")
"""Parameters of a method that are not options."""


@dataclass(frozen=True)
class MethodResult:
    """Predictions of an uncertainty method, with notes and details.

    Attributes:
        test: Predictions on the test part; logits are log-probabilities up to a constant per sample.
        val: Predictions on the validation part; None if it overlaps with training samples of some run, in which case no
            temperature is fitted.
        notes: Notes that the report shows.
        parameters: Number of parameters needed to predict; None for the sum over the runs' models.
        details: Plain values for ``metrics.json``, such as the weights of an ensemble's members.
    """

    test: Predictions
    val: Predictions | None = None
    notes: Sequence[str] = ()
    parameters: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[..., MethodResult]
"""Function ``(runs: Sequence[RunFolder], *, option=default, ...) -> MethodResult``. With a parameter ``folder: Path``
it gets a folder of its own inside the result's, in which its training resumes after a kill."""

UNCERTAINTY: Registry[Method] = Registry("uncertainty method")
"""Methods by name. Metadata: ``title`` (its name as a heading), ``paper`` (its title), ``year``, ``url``, ``least`` and
``most`` (how many runs it takes; None for any number)."""


def register_method(
    name: str,
    title: str,
    paper: str,
    year: int,
    arxiv: str,
    *,
    min_runs: int = 1,
    max_runs: int | None = 1,
) -> Callable[[Method], Method]:
    """Return a decorator that registers an uncertainty method with its metadata, see :data:`UNCERTAINTY`."""
    url = f"https://arxiv.org/abs/{arxiv}"
    return UNCERTAINTY.register(
        name, title=title, paper=paper, year=year, url=url, least=min_runs, most=max_runs
    )


@dataclass(frozen=True)
class DerivedRun:
    """A planned or finished result of an uncertainty method on runs.

    Attributes:
        method: Registry name.
        options: All options, defaults included.
        members: Folders of the member runs.
        runs: Configuration and fingerprint of each run by its name, plain values only.
        loss: Name of the result in a report, in place of a loss.
        folder: Folder of the result.
    """

    method: str
    options: Mapping[str, Any]
    members: Sequence[RunFolder]
    runs: Mapping[str, Mapping[str, Any]]
    loss: str
    folder: Path

    @property
    def seed(self) -> int:
        """Lowest seed of the member runs, by which a report pairs the result."""
        return min(member.run.seed for member in self.members)

    def config(self) -> dict[str, Any]:
        """Return the content of ``config.yaml``: the method with its options, and the members' configurations."""
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
) -> DerivedRun:
    """Plan a method on finished runs, with all checks that are possible before computing.

    Args:
        method: Registry name, see ``fedlas list uncertainty``.
        folders: Folders of finished runs.
        out: Folder of the result; None is one next to the first run, e.g. ``deep-ensemble-ce-s0``.
        options: Options of the method; the others keep their defaults.
        name: Its name in a report; None is the method with the losses of the runs, e.g. ``deep-ensemble(ce)``.
        data: Where the runs' data is; None searches the usual places.

    Raises:
        InputError: For an unknown method or option (the nearest is named), a number of runs that the method does not
            take, or runs that cannot be used.
    """
    # How many runs the method takes.
    entry = UNCERTAINTY[method]
    least = entry.metadata["least"]
    most = entry.metadata["most"]
    if not least <= len(folders) <= (most or len(folders)):
        number = f"{least} run" if most == 1 else f"at least {least} runs"
        raise InputError(
            f"{method} takes {number}",
            len(folders),
            "Apply it to each in turn." if most == 1 else "Name the folders of more runs.",
        )
    options = UNCERTAINTY.resolve_options(method, options, _NON_OPTIONS)
    # Name and folder follow from the members, so that the same command finds the same result.
    members = open_members(folders, data=data)
    losses = list(dict.fromkeys(member.run.loss for member in members))
    label = "+".join(losses) if len(losses) <= 3 else f"{len(losses)}-losses"
    folder = (
        out
        or members[0].path.parent
        / f"{method}-{label}-s{min(member.run.seed for member in members)}"
    )
    loss = name or f"{method}({', '.join(losses) if len(losses) <= 3 else f'{len(losses)} losses'})"
    runs = {member.name: describe_member(member) for member in members}
    return DerivedRun(method, options, members, runs, loss, folder)


def apply_method(derived: DerivedRun) -> dict[str, Any]:
    """Apply a planned method and write its predictions and metrics; return the metrics, also if finished before.

    Args:
        derived: From :func:`plan_method`.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        InputError: If the folder cannot be written to, holds something else, or is used by another process; or if the
            method cannot be applied to these runs.

    State:
        All files are written to ``derived.folder``: ``config.yaml``, ``data.json``, ``environment.json``,
        ``predictions/``, ``work/`` for models that the method trains, and last ``metrics.json``, which marks the run
        as finished.
    """
    accelerator = new_accelerator()
    path = derived.folder
    metrics = run_on_main(accelerator, lambda: read_metrics_if_finished(derived))
    if metrics is not None:
        return metrics
    existed = os.path.lexists(path)
    was_empty = not existed or (path.is_dir() and not any(path.iterdir()))
    try:
        return _compute_and_write(derived, accelerator)
    except BusyError:
        raise
    except (InputError, MissingExtraError):
        # Without a trace, so that the same command with a better option is not refused.
        work = RunFolder(path).work_path
        if was_empty and accelerator.is_main_process and path.is_dir() and not work.exists():
            # A folder or link that was there is the user's; what is in it now is not.
            for each in path.iterdir() if existed else ():
                remove(each, inside=path)
            if not existed:
                remove(path, inside=path.parent)
        raise


def _compute_and_write(derived: DerivedRun, accelerator: Accelerator) -> dict[str, Any]:
    started = time.monotonic()
    folder = RunFolder(derived.folder)
    with lock_folder(
        derived.folder, accelerator, lambda: acquire_folder(derived, common_data(derived.members))
    ) as metrics:
        if metrics is not None:
            return metrics
        if accelerator.is_main_process:
            record_start(derived.folder, accelerator.device)
        # The method itself; it resumes from its work folder.
        inputs = {"runs": derived.members, "folder": folder.work_path}
        result: MethodResult = UNCERTAINTY.build(derived.method, derived.options, **inputs)
        # metrics.json comes last: it is what marks a run as finished.
        metrics = _build_metrics(derived, result, time.monotonic() - started)
        if accelerator.is_main_process:
            for part, predictions in (("val", result.val), ("test", result.test)):
                if predictions is not None:
                    predictions.save(folder.part_path(part))
            write_json(folder.metrics_path, metrics)
        accelerator.wait_for_everyone()
    return metrics


def _build_metrics(derived: DerivedRun, result: MethodResult, seconds: float) -> dict[str, Any]:
    members = derived.members
    measured = measure_predictions(
        result.val, result.test, num_bins=members[0].run.recipe.train.num_bins
    )
    # A method that does not say otherwise keeps all of its runs in use, so their sizes add up.
    parameters = result.parameters
    if parameters is None:
        parameters = sum(int(member.metrics["parameters"]) for member in members)
    notes = [
        f"made of {', '.join(member.name for member in members)}",
        *result.notes,
        *measured.pop("notes"),
    ]
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
        # The whole cost, with the training of its runs.
        "seconds": round(seconds + sum(float(member.metrics["seconds"]) for member in members), 2),
    }


def open_members(folders: Sequence[Path], *, data: str | None = None) -> list[RunFolder]:
    """Return the folders of finished runs, after checking that data set and number of bins agree.

    Args:
        folders: Run folders.
        data: Where their data is; None searches the usual places.

    Raises:
        InputError: If a folder is not of a finished run or is named twice, or the runs differ in data or number of
            bins.
    """
    members: list[RunFolder] = []
    for folder in folders:
        member = RunFolder(folder, data_root=data)
        require_finished(member)
        if any(folder.resolve() == other.path.resolve() for other in members):
            raise InputError("runs must be distinct", f"{folder} twice", "Name each run once.")
        members.append(member)
    members = _with_unique_names(members)
    # Averages are meaningful only over predictions of the same samples, in the same order.
    for member in members[1:]:
        if changes := config_differences(
            _comparable_settings(members[0]), _comparable_settings(member)
        ):
            raise InputError(
                "runs must have the same data set and number of bins",
                f"{member.name}, which differs from {members[0].name} in {'; '.join(changes)}",
                "Leave it out.",
            )
    return members


def shared_predictions(members: Sequence[RunFolder], part: str) -> list[Predictions] | None:
    """Return each member's predictions on ``"val"`` or ``"test"``, or None if their images differ.

    If the validation images are the same, no member was trained on validation images of another.

    Raises:
        InputError: If a ``splits.npz`` or predictions are missing or cannot be read.
    """
    first, *others = (member.splits[part] for member in members)
    same = all(np.array_equal(first, other) for other in others)
    return [_predictions_without_features(member, part) for member in members] if same else None


def describe_member(member: RunFolder) -> dict[str, Any]:
    """Return a member's configuration and the SHA-256 of its predictions.

    Raises:
        InputError: If its predictions are missing or cannot be read.
    """
    prints = {
        part: _hash_predictions(_predictions_without_features(member, part))
        for part in ("val", "test")
    }
    return {"config": member.run.config(), "predictions": prints}


def common_data(members: Sequence[RunFolder]) -> dict[str, Any]:
    """Return the members' common ``data.json`` content, with ``split`` None if their splits differ."""
    splits = [_require_data(member).get("split") for member in members]
    return {
        **_require_data(members[0]),
        "split": splits[0] if all(split == splits[0] for split in splits) else None,
    }


def _with_unique_names(members: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the members with unique labels; equal folder names get the name of the bench as a prefix."""
    names = [member.name for member in members]
    longer = [
        f"{m.path.resolve().parent.name}/{m.name}" if names.count(m.name) > 1 else m.name
        for m in members
    ]
    unique = [
        name if longer.count(name) == 1 else f"{name} ({longer[: i + 1].count(name)})"
        for i, name in enumerate(longer)
    ]
    return [replace(member, label=name) for member, name in zip(members, unique, strict=True)]


def _comparable_settings(member: RunFolder) -> dict[str, Any]:
    data = {**_require_data(member), "split": None, "name": member.run.recipe.data.name}
    return {"data": data, "train": {"num_bins": member.run.recipe.train.num_bins}}


def _require_data(member: RunFolder) -> Mapping[str, Any]:
    if member.data is None:
        raise InputError(
            "the run must have a data.json with its data fingerprint",
            f"none in {member.path}",
            "Train the run again with this release.",
        )
    return member.data


def _predictions_without_features(member: RunFolder, part: str) -> Predictions:
    """Return predictions without features, to save memory."""
    return replace(member.predictions(part), features=None)


def _hash_predictions(predictions: Predictions) -> str:
    digest = sha256()
    for values in (predictions.tensors().logits, predictions.tensors().target):
        digest.update(str(tuple(values.shape)).encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
