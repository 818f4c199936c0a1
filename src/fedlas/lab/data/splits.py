"""Disjoint, stratified training, validation and test parts of a source, drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.arrays import write_arrays
from fedlas._core.check import InputError, check_count, describe
from fedlas._core.streams import Purpose, seeded_generator
from fedlas._core.types import IntArray
from fedlas.lab.data.base import Flip, Images, Part, Source, require_condition
from fedlas.lab.data.batches import Batches, StreamedBatches


def allocate_by_class(counts: IntArray, size: int, *, low: IntArray, high: IntArray) -> IntArray:
    """Return how many samples to choose per class: ``size`` in proportion to ``counts``, within bounds.

    Args:
        counts: Samples available in each class, ``(C,)``.
        size: How many to choose, between ``low.sum()`` and ``high.sum()``.
        low: Lower bound per class, ``(C,)``.
        high: Upper bound per class, ``(C,)``, at least ``low``.

    Returns:
        Number of samples per class, ``(C,)``, summing to ``size``: the exact shares rounded by largest remainder (ties
        go to the lower class index). Bounds are kept by changing the classes whose share this distorts least.

    Example:
        >>> allocate_by_class(np.array([50, 30, 20]), 7, low=np.zeros(3, int), high=np.array([50, 30, 20])).tolist()
        [4, 2, 1]
    """
    total = int(counts.sum())
    exact = counts * size  # in units of 1/total, so that no rounding depends on floating point
    chosen = np.clip(exact // total, low, high)
    # Largest remainder: add or remove one sample in the classes where this distorts the share least, and repeat.
    while (missing := size - int(chosen.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = chosen < high if step > 0 else chosen > low
        distortion = np.where(movable, step * (chosen * total - exact), np.iinfo(np.int64).max)
        chosen[np.argsort(distortion, kind="stable")[: min(abs(missing), int(movable.sum()))]] += (
            step
        )
    return chosen.astype(np.int64)


def shuffle_within_classes(
    target: IntArray, num_classes: int, random: np.random.RandomState
) -> list[IntArray]:
    """Return the indices of each class in ``target (N,)``, shuffled within each class."""
    order = np.argsort(target, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(target, minlength=num_classes))[:-1])
    return [random.permutation(group) for group in groups]


def choose_indices(
    class_indices: list[IntArray], counts: IntArray, *, skip: IntArray | None = None
) -> IntArray:
    """Return sorted indices: from each class ``counts`` of ``class_indices``, after skipping the first ``skip``."""
    starts = np.zeros(len(class_indices), dtype=np.int64) if skip is None else skip
    parts = [
        group[start : start + amount]
        for group, start, amount in zip(class_indices, starts, counts, strict=True)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def hold_out(
    target: IntArray, size: int, classes: tuple[str, ...], random: np.random.RandomState
) -> tuple[IntArray, IntArray]:
    """Return the indices of a kept part and of a stratified held-out part of about ``size``, both with every class.

    Returns:
        ``(kept, held_out)``, sorted positions.

    Raises:
        InputError: If a class has fewer than two samples, or ``size`` leaves no room for every class in both parts.
    """
    counts = np.bincount(target, minlength=len(classes))
    if int(counts.min()) < 2:
        scarce = int(counts.argmin())
        raise InputError(
            "each class must have at least two images, one for training and one for testing",
            f"{counts[scarce]} of {classes[scarce]!r}",
            "Add images of this class, or provide the test part yourself.",
        )
    size = min(max(size, len(classes)), len(target) - len(classes))
    ones = np.ones_like(counts)
    amounts = allocate_by_class(counts, size, low=ones, high=counts - 1)
    groups = shuffle_within_classes(target, len(classes), random)
    return choose_indices(groups, counts - amounts, skip=amounts), choose_indices(groups, amounts)


MIN_VALIDATION_SAMPLES = 200
"""With fewer validation images, the chosen epoch and the fitted temperature are mostly chance."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Training, validation and test part of a run, with one normalization for all three; made by :func:`split`.

    Args:
        name: Name of the source.
        train: Images to train on.
        val: Images to select a checkpoint and fit calibrators on.
        test: Images to report on, and nothing else.
        indices: Positions of ``train`` and ``val`` in ``source.train`` and of ``test`` in ``source.test``; sorted.
        mean: Mean of each channel or feature, of uint8 images in [0, 1] units; empty if inputs are not normalized.
        std: Standard deviation of each.
        classes: Class names.
        flip: Whether training images may be mirrored left to right, as the source has it.
        crop_padding: Black pixels added on each side before a random crop; 0 for no crop.
        clean_target: Labels of ``train`` before label noise, ``(N,)`` int64; None without label noise.
        mistaken_for: Pairs of class names, as the source has them.
        workers: Processes that read images from disk; None chooses. They change speed only.
    """

    name: str
    train: Part
    val: Part
    test: Part
    indices: dict[str, NDArray[np.int64]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    flip: Flip
    crop_padding: int
    clean_target: NDArray[np.int64] | None = None
    mistaken_for: tuple[tuple[str, str], ...] = ()
    workers: int | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes ``C``."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Number of channels of an image (1 gray, 3 color), or of features of a row."""
        return self.train.shape[0] if self.train.shape else 1

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels; 1 for a row of features."""
        return self.train.shape[1] if len(self.train.shape) > 1 else 1

    def to(self, device: torch.device | str) -> Splits:
        """Return the same splits with all three parts on ``device``."""
        return replace(
            self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device)
        )

    def save_indices(self, path: str | Path) -> Path:
        """Write ``indices`` atomically to an ``.npz`` file with one array per part; return its path.

        With label noise there are two more arrays in the order of ``train``: ``train_target`` (the labels trained on)
        and ``train_clean_target``.

        Raises:
            InputError: If another file is there, or the folder cannot be written to.
        """
        arrays: dict[str, Any] = {part: self.indices[part] for part in ("train", "val", "test")}
        if self.clean_target is not None:
            arrays |= {
                "train_target": self.train.target.cpu().numpy(),
                "train_clean_target": self.clean_target,
            }
        return write_arrays(path, arrays, "a file of splits", {"train", "val", "test"}.issubset)

    def training_batches(self, **options: Any) -> Batches | StreamedBatches:
        """Return shuffled, augmented batches of the training part.

        Args:
            **options: ``batch_size``, ``seed``, ``drop_last``, ``rank`` and ``world_size`` of ``SeededBatches``.
        """
        options |= {"mean": self.mean, "std": self.std, "flip": self.flip, "shuffle": True}
        if isinstance(self.train, Images):
            return Batches(self.train, crop_padding=self.crop_padding, **options)
        return StreamedBatches(self.train, augment=True, workers=self.workers, **options)

    def batches(self, part: Part, *, batch_size: int) -> Batches | StreamedBatches:
        """Return batches of a part in fixed order, without augmentation.

        Args:
            part: One of the three, or another with images of the same shape.
            batch_size: Samples per step; images in memory come in batches of at least 256, which is faster.
        """
        if isinstance(part, Images):
            return Batches(part, mean=self.mean, std=self.std, batch_size=max(batch_size, 256))
        return StreamedBatches(
            part, mean=self.mean, std=self.std, batch_size=batch_size, workers=self.workers
        )


def split(
    source: Source,
    *,
    seed: int,
    val_size: int | float,
    train_size: int | None = None,
    test_size: int | None = None,
) -> Splits:
    """Divide ``source`` into train, val and test: disjoint, stratified, a pure function of its arguments.

    The validation part comes from the source, or is drawn from the training part. Then ``train_size`` images are drawn
    from the rest, and the test part from the official one. Every class keeps its share as exactly as whole numbers
    allow. The validation part does not depend on ``train_size``. Every class has a training image; a small class may be
    missing in validation.

    Args:
        source: The data set.
        seed: Whole number >= 0.
        val_size: Number of validation images, or their fraction of the training part (a float in (0, 1)); not used if
            the source has a validation part.
        train_size: Number of training images, at least one per class; None for all that validation leaves.
        test_size: Number of test images; None for all.

    Raises:
        InputError: If the sizes do not fit the data set; the message gives both numbers.

    Example:
        >>> from fedlas.lab.data import load_dataset
        >>> splits = split(load_dataset("synthetic", num_train=300), seed=0, val_size=0.2, train_size=100)
        >>> len(splits.train), len(splits.val), len(splits.test)
        (100, 60, 2000)
    """
    # How many images each part gets.
    if not isinstance(source, Source):
        raise InputError("source must be a Source", describe(source), "Load one with load_dataset.")
    check_count("seed", seed, low=0)
    available = len(source.train)
    num_classes = source.num_classes
    val_count = _validation_count(val_size, available) if source.val is None else 0
    largest = available - num_classes
    num_remaining = available - val_count
    expected = f"val_size must leave an image of each of the {num_classes} classes to train on: at most {largest} of "
    require_condition(
        val_count <= largest,
        f"{expected}{available} training images",
        val_size,
        "Choose a smaller val_size.",
    )
    train_count = (
        num_remaining
        if train_size is None
        else check_count("train_size", train_size, low=num_classes)
    )
    require_condition(
        train_count <= num_remaining,
        f"train_size must be at most {num_remaining}: {available} training images less {val_count} for validation",
        train_size,
        "Choose a smaller train_size or val_size.",
    )
    num_test = len(source.test)
    test_count = num_test if test_size is None else check_count("test_size", test_size)
    require_condition(
        test_count <= num_test,
        f"test_size must be at most {num_test}, the images in the test part",
        test_size,
        "Choose a smaller test_size.",
    )

    # Which ones: validation first, so that it does not depend on the size of the training part.
    groups, counts = _shuffle_part(source.train, Purpose.SPLIT_TRAIN, seed, num_classes)
    for_val = allocate_by_class(counts, val_count, low=np.zeros_like(counts), high=counts - 1)
    remaining_counts = counts - for_val
    for_train = allocate_by_class(
        remaining_counts, train_count, low=np.ones_like(counts), high=remaining_counts
    )
    test_groups, counts = _shuffle_part(source.test, Purpose.SPLIT_TEST, seed, num_classes)
    indices = {
        "train": choose_indices(groups, for_train, skip=for_val),
        "val": choose_indices(groups, for_val)
        if source.val is None
        else np.arange(len(source.val)),
        "test": choose_indices(
            test_groups,
            allocate_by_class(counts, test_count, low=np.zeros_like(counts), high=counts),
        ),
    }
    # The parts stay on the device of the source.
    sources = {"val": source.train, **source.parts}
    parts: dict[str, Any] = {
        name: sources[name].take(torch.from_numpy(rows).to(source.train.target.device))
        for name, rows in indices.items()
    }
    mean, std = source.mean, source.std
    if mean is None or std is None:
        mean, std = _part_mean_std(parts["train"])
    return Splits(
        source.name, **parts, indices=indices, mean=mean, std=std, classes=source.classes, flip=source.flip,
        crop_padding=source.crop_padding, mistaken_for=source.mistaken_for,
    )  # fmt: skip


def small_validation_warning(samples: int) -> str:
    """Return a warning if the validation part is too small to choose epoch and temperature, else an empty string."""
    if samples >= MIN_VALIDATION_SAMPLES:
        return ""
    return (
        f"{samples:,} validation images are too few to choose an epoch and a temperature: with fewer than "
        f"{MIN_VALIDATION_SAMPLES}, both are mostly chance. Raise data.val_size, or add images."
    )


def channel_mean_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of ``images (N, channels, ...)``, uint8 or float32.

    For uint8 they are in [0, 1] units and come from exact counts of the 256 values, so they are the same on every
    device; for float32 they are computed in float64 on the CPU. A constant channel gets deviation 1 instead of 0.
    """
    if images.is_floating_point():
        columns = images.cpu().double().transpose(0, 1).flatten(1)
        spreads = columns.std(1, correction=0)
        spreads = torch.where(spreads > 0, spreads, 1.0)
        return tuple(columns.mean(1).tolist()), tuple(spreads.tolist())
    values = torch.arange(256, dtype=torch.float64)
    mean = []
    std = []
    for channel in range(images.shape[1]):
        # Counts of the 256 values are exact integers on every device; sums of floats are not.
        share = torch.bincount(images[:, channel].flatten(), minlength=256).cpu().double()
        share /= share.sum()
        center = float(share @ values)
        spread = float(share @ (values - center) ** 2) ** 0.5
        mean.append(center / 255)
        std.append(spread / 255 if spread > 0 else 1.0)
    return tuple(mean), tuple(std)


def _part_mean_std(part: Part) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of a part in memory; raise InputError for a part on disk."""
    if isinstance(part, Images):
        return channel_mean_std(part.images)
    raise InputError(
        "images on disk must have mean and std set, since computing them would read every file",
        "none",
        "Pass mean and std, each one number in [0, 1] per channel.",
    )


def _validation_count(val_size: object, available: int) -> int:
    """Return the number of validation samples that a count or a fraction asks for."""
    if isinstance(val_size, float):
        if not 0 < val_size < 1 or round(val_size * available) < 1:
            raise InputError(
                f"val_size as a fraction must be in (0, 1) and give at least 1 of {available} training images",
                val_size,
                "Choose a fraction such as 0.1, or a whole number of images.",
            )
        return round(val_size * available)
    if isinstance(val_size, int) and not isinstance(val_size, bool):
        return check_count("val_size", val_size)
    raise InputError(
        "val_size must be a whole number or a fraction", describe(val_size), "Pass e.g. 0.1."
    )


def _shuffle_part(
    part: Part, purpose: Purpose, seed: int, num_classes: int
) -> tuple[list[IntArray], IntArray]:
    """Return the shuffled indices of each class of a part, and the class counts ``(C,)``."""
    target = part.target.cpu().numpy()
    return shuffle_within_classes(
        target, num_classes, seeded_generator(purpose, seed)
    ), np.bincount(target, minlength=num_classes)
