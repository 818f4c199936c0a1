"""Opens the finished runs that a method starts from, and says what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fedlas._core.check import InputError
from fedlas.lab.runs.claim import must_be_finished
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.checkpoint import differences
from fedlas.predictions import Predictions

_OWNER = "fedlas uncertainty"


def open_members(folders: Sequence[Path], *, data: str | None = None) -> list[RunFolder]:
    """The finished runs in ``folders``, in that order; nothing large is read.

    Args:
        folders: Run folders.
        data: Where their data is; None searches the usual places.

    Raises:
        InputError: If one is no folder of a finished run, comes twice, or they differ in data or in the bins of their
            calibration errors.
    """
    members: list[RunFolder] = []
    for folder in folders:
        member = RunFolder(folder, data_root=data)
        must_be_finished(_OWNER, member)
        if any(folder.resolve() == other.path.resolve() for other in members):
            raise InputError(_OWNER, "each run must be named once", folder, "Leave it out the second time.")
        members.append(member)
    members = _named(members)
    # Averages are meaningful only over predictions of the same samples, in the same order.
    for member in members[1:]:
        found = differences(_shared(members[0]), _shared(member))
        if found:
            raise InputError(
                _OWNER,
                "runs must be of one data set and measured alike",
                f"{member.name}, which differs from {members[0].name} in {'; '.join(found)}",
                "Leave it out.",
            )
    return members


def same_images(members: Sequence[RunFolder], part: str) -> bool:
    """Whether all have the same images in ``"val"`` or ``"test"``.

    Where the validation images are the same, no member was trained on another's.

    Raises:
        InputError: If a ``splits.npz`` is missing or cannot be read.
    """
    first, *others = (member.splits[part] for member in members)
    return all(np.array_equal(first, other) for other in others)


def shared_predictions(members: Sequence[RunFolder], part: str) -> list[Predictions] | None:
    """Each member's predictions on ``part``; None if it is not the same images for all."""
    return [_outputs(member, part) for member in members] if same_images(members, part) else None


def description(member: RunFolder) -> dict[str, Any]:
    """What the member is, plain values only: its configuration, and SHA-256 of what it predicted.

    Raises:
        InputError: If its predictions are missing or cannot be read.
    """
    prints = {part: _fingerprint(_outputs(member, part)) for part in ("val", "test")}
    return {"config": member.run.config(), "predictions": prints}


def common_data(members: Sequence[RunFolder]) -> dict[str, Any]:
    """What ``data.json`` of all of them says; ``split`` is None where they differ in it."""
    splits = [_data(member).get("split") for member in members]
    return {**_data(members[0]), "split": splits[0] if all(split == splits[0] for split in splits) else None}


def _named(members: Sequence[RunFolder]) -> list[RunFolder]:
    """The same with names that differ: where folders of two benches have one name, the bench's stands before it."""
    names = [member.name for member in members]
    longer = [f"{m.path.resolve().parent.name}/{m.name}" if names.count(m.name) > 1 else m.name for m in members]
    unique = [
        name if longer.count(name) == 1 else f"{name} ({longer[: i + 1].count(name)})" for i, name in enumerate(longer)
    ]
    return [replace(member, label=name) for member, name in zip(members, unique, strict=True)]


def _shared(member: RunFolder) -> dict[str, Any]:
    data = {**_data(member), "split": None, "name": member.run.recipe.data.name}
    return {"data": data, "train": {"num_bins": member.run.recipe.train.num_bins}}


def _data(member: RunFolder) -> Mapping[str, Any]:
    if member.data is None:
        raise InputError(
            _OWNER, "a run must say in data.json what data it is of", member.path, "Train it with this release."
        )
    return member.data


def _outputs(member: RunFolder, part: str) -> Predictions:
    """Its predictions without the features, so that those of many members fit into memory."""
    whole = member.predictions(part)
    return replace(whole, features=None)


def _fingerprint(predictions: Predictions) -> str:
    digest = sha256()
    for values in (predictions.logits, predictions.target):
        digest.update(str(tuple(values.shape)).encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
