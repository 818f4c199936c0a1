"""Modified data sets: corrupted images, label noise, long tails and held-out classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_choice, check_count, check_number, suggestion
from fedlas._core.streams import Purpose, seeded_generator
from fedlas.lab.data.base import Images, Part, Source
from fedlas.lab.data.files import DatasetItems, ImageFiles
from fedlas.lab.data.shift.base import Corruption
from fedlas.lab.data.splits import Splits, choose_indices, shuffle_within_classes


def corrupt_part(part: Part, corruption: Corruption) -> Part:
    """Return a part with every image corrupted: images in memory at once, images on disk when they are read.

    Args:
        part: Any part; its labels stay.
        corruption: The corruption.

    Returns:
        A part on the same device, without label probabilities, which no longer hold.

    Raises:
        InputError: If the part holds no 8-bit images.

    Example:
        >>> part = Images(torch.full((2, 1, 8, 8), 128, dtype=torch.uint8), torch.tensor([0, 1]))
        >>> int(corrupt_part(part, Corruption("contrast", 5)).images[0, 0, 0, 0])
        128
    """
    if isinstance(part, ImageFiles):
        return replace(part, corruption=corruption)
    if isinstance(part, DatasetItems) or part.images.is_floating_point():
        raise InputError(
            "corruptions require 8-bit images",
            f"floats of {part.shape}",
            "Leave the corruption out.",
        )
    images = part.images.cpu()
    changed = torch.stack([corruption(image, row) for row, image in enumerate(images)])
    return Images(changed.to(part.images.device), part.target)


NoiseKind = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True)
class LabelNoise:
    """Rate and kind of label noise.

    Args:
        rate: Share of each class's training images that get a wrong label, in (0, 1).
        kind: ``"symmetric"`` draws any other class, each equally likely. ``"asymmetric"`` takes the class that it is
            mistaken for, if the data set names one (CIFAR-10, CIFAR-100), else the next class.
        seed: Seed of the labels that are changed; None is the seed of the division into parts.

    Raises:
        InputError: For another kind, or a rate out of range.
    """

    rate: float
    # not Kind: a recipe would refuse a misspelled one before the check can suggest another
    kind: str = "symmetric"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("data.label_noise.kind", self.kind, get_args(NoiseKind))
        if self.seed is not None:
            check_count("data.label_noise.seed", self.seed, low=0)
        check_number(
            "data.label_noise.rate", self.rate, low=0, high=1, low_open=True, high_open=True
        )


def add_label_noise(splits: Splits, noise: LabelNoise, *, seed: int) -> Splits:
    """Return splits with wrong labels in the training part; validation and test labels stay unchanged.

    The rate holds in every class as exactly as whole numbers allow, so seeds differ in which labels are wrong, not in
    how many.

    Args:
        splits: Splits with clean labels.
        noise: Rate and kind.
        seed: Whole number >= 0.

    Returns:
        Splits whose ``clean_target`` holds the original labels.

    Example:
        >>> from fedlas.lab.data import load_dataset, split
        >>> splits = split(load_dataset("digits"), seed=0, val_size=100)
        >>> noisy = add_label_noise(splits, LabelNoise(0.2), seed=0)
        >>> round(float((noisy.train.target.numpy() != noisy.clean_target).mean()), 2)
        0.2

    Source:
        Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise", arXiv 1609.03683, section 5.
    """
    target = splits.train.target.cpu().numpy()
    random = seeded_generator(Purpose.LABEL_NOISE, seed)
    wrong = target.copy()
    for label in range(splits.num_classes):
        rows = np.flatnonzero(target == label)
        chosen = random.permutation(rows)[: round(noise.rate * len(rows))]
        if noise.kind == "symmetric":
            # A shift of 1 to C - 1 classes is a uniform draw among the others.
            shift = random.randint(1, splits.num_classes, len(chosen))
            wrong[chosen] = (label + shift) % splits.num_classes
        else:
            wrong[chosen] = _confusion_targets(splits)[label]
    train = splits.train.with_target(torch.from_numpy(wrong).to(splits.train.target.device))
    return replace(splits, train=train, clean_target=target)


def _confusion_targets(splits: Splits) -> NDArray[np.int64]:
    """Return the class that each class is mistaken for, ``(C,)``: by the pairs of the data set, else the next class."""
    number = {name: label for label, name in enumerate(splits.classes)}
    other = {
        name: target for name, target in splits.mistaken_for if name in number and target in number
    }
    if not other:
        return (np.arange(splits.num_classes) + 1) % splits.num_classes
    return np.array([number[other.get(name, name)] for name in splits.classes])


def make_long_tailed(splits: Splits, factor: float, *, seed: int) -> Splits:
    """Return splits with ``n * factor ** (-c / (C - 1))`` training images of class ``c``; other parts stay unchanged.

    Args:
        splits: Made by :func:`fedlas.lab.data.split`.
        factor: Ratio of the images of the first class to those of the last, at least 1.
        seed: Whole number >= 0; decides which images are kept.

    Returns:
        Splits with a smaller training part, sorted, with at least one image per class. ``n`` is the number of images of
        the largest class; a class that has fewer than its share keeps all. Mean and standard deviation do not change.

    Raises:
        InputError: For a factor below 1.

    Example:
        >>> from fedlas.lab.data import load_dataset, split
        >>> splits = split(load_dataset("digits"), seed=0, val_size=197)
        >>> make_long_tailed(splits, 10, seed=0).train.target.bincount().tolist()
        [99, 78, 61, 47, 36, 28, 21, 17, 13, 10]

    Source:
        Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555, section 5.1.
    """
    check_number("long_tail", factor, low=1)
    target = splits.train.target.cpu().numpy()
    counts = np.bincount(target, minlength=splits.num_classes)
    # 1e-9: a share that is a whole number must not round down.
    share = float(factor) ** (-np.arange(splits.num_classes) / (splits.num_classes - 1))
    keep_counts = np.minimum(
        counts, np.maximum(1, np.floor(counts.max() * share + 1e-9).astype(np.int64))
    )
    rows = choose_indices(
        shuffle_within_classes(
            target, splits.num_classes, seeded_generator(Purpose.LONG_TAIL, seed)
        ),
        keep_counts,
    )
    train = splits.train.take(torch.from_numpy(rows).to(splits.train.target.device))
    return replace(
        splits, train=train, indices={**splits.indices, "train": splits.indices["train"][rows]}
    )


@dataclass(frozen=True, eq=False)
class OpenSet:
    """Data set divided into known classes and unknown (held-out) classes.

    Attributes:
        known: The data set without the held-out classes; the remaining classes are renumbered from 0, in order.
        unknown: Test images of the held-out classes; targets are positions in ``held_out``.
        held_out: Names of the held-out classes, in the order of the data set.
    """

    known: Source
    unknown: Part
    held_out: tuple[str, ...]


def make_open_set(source: Source, classes: Sequence[int | str]) -> OpenSet:
    """Hold classes out of a data set; return the remaining data set, and the test images of the held-out classes.

    Args:
        source: The data set.
        classes: Numbers or names of the classes to hold out, each once; at least two must remain.

    Raises:
        InputError: For an unknown class or one named twice, if none is held out or fewer than two remain, or if the
            held-out classes have no test images.

    Note:
        Label probabilities, if available, become conditional on the known classes.

    Example:
        >>> from fedlas.lab.data import load_dataset
        >>> divided = make_open_set(load_dataset("synthetic", num_train=200, num_test=50), [7, 8, 9])
        >>> divided.known.num_classes, divided.held_out, sorted(divided.unknown.target.unique().tolist())
        (7, ('7', '8', '9'), [0, 1, 2])

    Source:
        Vaze, Han, Vedaldi and Zisserman 2022 (arXiv 2110.06207), section 3, for the task.
    """
    held_out = sorted(_class_index(source, entry) for entry in classes)
    if (
        not held_out
        or len(set(held_out)) != len(held_out)
        or source.num_classes - len(held_out) < 2
    ):
        raise InputError(
            f"hold_out_classes must name distinct classes and leave at least two of {source.num_classes}",
            list(classes),
            "Name each class once, and fewer of them.",
        )
    # Training images of the held-out classes are dropped, or the classes would not be unknown.
    remaining = [number for number in range(source.num_classes) if number not in held_out]
    unknown = _select_classes(source.test, held_out)
    parts: dict[str, Any] = {
        n: _select_classes(part, remaining) for n, part in source.parts.items()
    }
    known_source = replace(
        source, **parts, classes=tuple(source.classes[number] for number in remaining)
    )
    # no probabilities of classes that the model does not have
    unknown = unknown.with_target(unknown.target)
    return OpenSet(known_source, unknown, tuple(source.classes[number] for number in held_out))


def _class_index(source: Source, entry: int | str) -> int:
    """Return the index of a class given by index or name; text is looked up as a name only."""
    if isinstance(entry, str) and entry in source.classes:
        return source.classes.index(entry)
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < source.num_classes:
        return entry
    raise InputError(
        f"hold_out_classes must be names of classes, or numbers from 0 to {source.num_classes - 1}",
        repr(entry),
        suggestion(str(entry), source.classes),
    )


def _select_classes(part: Part, classes: Sequence[int]) -> Part:
    """Return the images of the given classes, relabeled in their order; raise InputError if there are none."""
    # Old class number to new one; -1 for the classes that are left out.
    place = torch.full((max(int(part.target.max()), *classes) + 1,), -1, dtype=torch.int64)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    target = place.to(part.target.device)[part.target]
    rows = (target >= 0).nonzero().flatten()
    if not len(rows):
        raise InputError(
            "both held-out and known classes must have images in every part",
            f"none of classes {list(classes)}",
            "Hold out other classes.",
        )
    images = part.take(rows).with_target(target[rows])
    if isinstance(images, Images) and part.label_probs is not None:
        # Probabilities conditional on these classes; equal where they have none.
        probs = part.label_probs[rows][:, torch.tensor(classes, device=part.label_probs.device)]
        total = probs.sum(dim=1, keepdim=True)
        probs = torch.where(total > 0, probs / total, torch.full_like(probs, 1 / len(classes)))
        images = replace(images, label_probs=probs)
    return images
