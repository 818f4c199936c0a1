"""Open sets: some classes are held out of training, and their test images are the unknown ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedlas._core.check import InputError, suggestion
from fedlas.lab.data.base import Images, Part, Source


@dataclass(frozen=True, eq=False)
class OpenSet:
    """A data set divided into known and unknown classes.

    Attributes:
        known: The data set without the held-out classes; the others are numbered from 0 in their order.
        unknown: Test images of the held-out classes; targets are positions in ``held_out``.
        held_out: Names of the held-out classes, in the order of the data set.
    """

    known: Source
    unknown: Part
    held_out: tuple[str, ...]


def open_set(source: Source, classes: Sequence[int | str]) -> OpenSet:
    """Hold classes out of a data set: training, validation and test have no image of them.

    Args:
        source: The data set.
        classes: Numbers or names of the classes to hold out, each once; at least two must remain.

    Raises:
        InputError: For an unknown class or one named twice, if none is held out or fewer than two remain, or if the
            held-out classes have no test images.

    Note:
        Label probabilities, if known, become those conditional on the known classes.

    Example:
        >>> from fedlas.lab.data import load_dataset
        >>> divided = open_set(load_dataset("synthetic", num_train=200, num_test=50), [7, 8, 9])
        >>> divided.known.num_classes, divided.held_out, sorted(divided.unknown.target.unique().tolist())
        (7, ('7', '8', '9'), [0, 1, 2])

    Source:
        Vaze, Han, Vedaldi and Zisserman 2022 (arXiv 2110.06207), section 3, for the task.
    """
    numbers = sorted(_number(source, entry) for entry in classes)
    if not numbers or len(set(numbers)) != len(numbers) or source.num_classes - len(numbers) < 2:
        raise InputError(
            "open_set",
            f"hold_out_classes must name different ones of the {source.num_classes} classes and leave at least two",
            list(classes),
            "Name each class once, and fewer of them.",
        )
    # Training images of the held-out classes are dropped, or the classes would not be unknown.
    kept = [number for number in range(source.num_classes) if number not in numbers]
    unknown = _of_classes(source.test, numbers)
    if unknown is None:
        raise InputError("open_set", "test images of the held-out classes must exist", "none", "Hold out others.")
    train, test = (_of_classes(part, kept) for part in (source.train, source.test))
    if train is None or test is None:
        raise InputError("open_set", "images of the remaining classes must exist", "none", "Hold out others.")
    known = replace(source, train=train, test=test, classes=tuple(source.classes[number] for number in kept))
    unknown = unknown.with_target(unknown.target)  # no probabilities of classes that the model does not have
    return OpenSet(known, unknown, tuple(source.classes[number] for number in numbers))


def _number(source: Source, entry: int | str) -> int:
    """The number of a class given by number or name; names come first, even those that look like numbers."""
    if isinstance(entry, str) and entry in source.classes:
        return source.classes.index(entry)
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < source.num_classes:
        return entry
    raise InputError(
        "open_set",
        f"hold_out_classes must be names of classes, or numbers from 0 to {source.num_classes - 1}",
        repr(entry),
        suggestion(str(entry), source.classes),
    )


def _of_classes(part: Part, numbers: Sequence[int]) -> Part | None:
    """The images of some classes, renumbered in the order given; None if there are none."""
    # Old class number to new one; -1 for the classes that are left out.
    place = torch.full((max(int(part.target.max()), *numbers) + 1,), -1, dtype=torch.int64)
    place[torch.tensor(numbers)] = torch.arange(len(numbers))
    target = place.to(part.target.device)[part.target]
    rows = (target >= 0).nonzero().flatten()
    if not len(rows):
        return None
    taken = part.take(rows).with_target(target[rows])
    if isinstance(taken, Images) and part.label_probs is not None:
        taken = replace(taken, label_probs=_given(part.label_probs[rows], numbers))
    return taken


def _given(label_probs: Tensor, numbers: Sequence[int]) -> Tensor:
    """Label probabilities given that the label is among ``numbers``."""
    some = label_probs[:, torch.tensor(numbers, device=label_probs.device)]
    total = some.sum(dim=1, keepdim=True)
    return torch.where(total > 0, some / total, torch.full_like(some, 1 / len(numbers)))
