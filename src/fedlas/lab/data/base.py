"""Data sets: ``Images`` (a part in memory), ``Source`` (the parts of a data set), and the registry of data sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_number, describe, suggestion
from fedlas._core.pixels import is_valid_normalization
from fedlas._core.registry import Registry
from fedlas.lab.data.files import DatasetItems, ImageFiles, scale_to_uint8

Flip = bool | Literal["alternating"]


def require_condition(condition: bool, expected: str, got: object, fix: str) -> None:
    """Raise InputError unless ``condition``."""
    if not condition:
        raise InputError(expected, got, fix)


@dataclass(frozen=True, eq=False)
class Images:
    """Inputs and labels of one part in memory: images, or rows of features.

    Args:
        images: ``(N, channels, H, W)`` uint8; or float32 ``(N, D, ...)``, images or rows of ``D`` features, finite.
        target: Class of each input, ``(N,)`` int64.
        label_probs: True class probabilities ``(N, C)`` float32 if they are known (synthetic data), else None.

    Raises:
        InputError: For any other shape or dtype, no inputs at all, or a number that is not finite.

    Example:
        >>> part = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        >>> len(part), part.take(torch.tensor([1, 3])).target.tolist()
        (4, [1, 1])
    """

    images: Tensor
    target: Tensor
    label_probs: Tensor | None = None

    def __post_init__(self) -> None:
        images = self.images
        target = self.target
        probs = self.label_probs
        for name, value in (("images", images), ("target", target), ("label_probs", probs)):
            is_tensor = isinstance(value, Tensor) or (value is None and name == "label_probs")
            require_condition(
                is_tensor, f"{name} must be a tensor", type(value).__name__, "Use torch.from_numpy."
            )
        has_valid_shape = images.ndim == 4 if images.dtype == torch.uint8 else images.ndim >= 2
        has_valid_shape = (
            has_valid_shape
            and images.dtype in (torch.uint8, torch.float32)
            and 0 not in images.shape
        )
        expected = (
            "images must be uint8 (N, channels, H, W) or float32 (N, D, ...), at least one image"
        )
        fix = "Convert to uint8 of 0..255, or to float32, and put the channels second."
        require_condition(has_valid_shape, expected, describe(images), fix)
        if images.is_floating_point():
            fix = "Replace or remove missing numbers first."
            require_condition(
                bool(images.isfinite().all()), "inputs must be finite", describe(images), fix
            )
        count = len(images)
        is_valid = target.shape == (count,) and target.dtype == torch.int64
        expected = f"target must be int64 ({count},) like the {count} images"
        require_condition(is_valid, expected, describe(target), "Pass one class index per image.")
        if probs is not None:
            is_valid = probs.ndim == 2 and len(probs) == count and probs.dtype == torch.float32
            fix = "Pass one row of class probabilities per image."
            require_condition(
                is_valid, f"label_probs must be float32 ({count}, C)", describe(probs), fix
            )

    def __len__(self) -> int:
        return int(self.target.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: ``(channels, H, W)`` for images, ``(D,)`` for rows of features."""
        return tuple(self.images.shape[1:])

    def image(self, index: int) -> Tensor:
        """Return one image for display, uint8 ``(channels, H, W)``; floats are scaled from minimum to maximum."""
        return scale_to_uint8(self.images[index])

    def take(self, indices: Tensor) -> Images:
        """Return a copy of the samples at ``indices`` (int64), in that order."""
        return self._map_tensors(lambda tensor: tensor[indices])

    def to(self, device: torch.device | str) -> Images:
        """Return this part on ``device``; nothing is copied if it is already there."""
        return self._map_tensors(lambda tensor: tensor.to(device))

    def with_target(self, target: Tensor) -> Images:
        """Return the same inputs with new labels ``(N,)`` int64 and without label probabilities."""
        return Images(self.images, target)

    def _map_tensors(self, transform: Callable[[Tensor], Tensor]) -> Images:
        """Return this part with ``transform`` applied to each tensor."""
        probs = self.label_probs
        return Images(
            transform(self.images),
            transform(self.target),
            None if probs is None else transform(probs),
        )


Part = Images | ImageFiles | DatasetItems
"""One part of a data set: in memory, files on disk, or samples of a torch ``Dataset``."""


@dataclass(frozen=True)
class PublishedCounts:
    """Published image and class counts of a data set, which ``fedlas data check`` compares with.

    Attributes:
        train: Number of images outside the test part.
        test: Number of images of the test part.
        classes: Number of classes.
        per_class: Fewest and most training images of a class; None if unknown.
    """

    train: int
    test: int
    classes: int
    per_class: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """Data set with a training and a test part, and a validation part if the data set defines one.

    Args:
        name: Registry name or path, for messages and reports.
        train: Training part, from which :func:`fedlas.lab.data.split` takes validation images.
        test: Official test part.
        classes: Class names, ``C`` of them, in the order of the labels.
        flip: Whether training images may be mirrored left to right; ``"alternating"`` mirrors each in every other epoch
            instead of with probability 1/2 (images in memory only).
        crop_padding: Black pixels added on each side before a random crop to the original size; 0 for no crop. For
            images in memory; those on disk have a :class:`~fedlas.lab.data.files.View`.
        mean: Mean of each channel or feature; of uint8 images in [0, 1] units. None computes it from the training
            samples in use; with an empty tuple, inputs are not normalized.
        std: Standard deviation of each, in the same units; None or empty exactly when ``mean`` is.
        mistaken_for: Pairs of class names for asymmetric label noise: a class, and the class it is mistaken for.
        val: Validation part; None: a seed draws it from the training part.

    Raises:
        InputError: If the parts differ in shape, images are not square, labels are outside ``[0, C)``, there are
            fewer than two classes, or a class has no training image.

    Example:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> part = Images(images, torch.tensor([0, 1, 0, 1]))
        >>> source = Source("mine", train=part, test=part, classes=("cat", "dog"))
        >>> sorted(source.parts), len(source.train)
        (['test', 'train'], 4)
    """

    name: str
    train: Part
    test: Part
    classes: tuple[str, ...]
    flip: Flip = False
    crop_padding: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    mistaken_for: tuple[tuple[str, str], ...] = ()
    val: Part | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """Parts by name; ``val`` only if the data set defines one."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def __post_init__(self) -> None:
        # Classes and shapes.
        shape = self.train.shape
        count = len(self.classes)
        fix = "Add images of another class."
        got = f"{count} ({', '.join(self.classes)})"
        require_condition(count >= 2, "a data set must have at least two classes", got, fix)
        same_shape = all(part.shape == shape for part in self.parts.values())
        same_shape = same_shape and (len(shape) != 3 or shape[1] == shape[2])
        got = ", ".join(f"{name} {part.shape}" for name, part in self.parts.items())
        fix = "Crop or resize them first (the folder loader does it with image_size)."
        require_condition(
            same_shape, "all inputs must have the same shape, and images must be square", got, fix
        )
        dtypes = {part.images.dtype for part in self.parts.values() if isinstance(part, Images)}
        got = ", ".join(map(str, dtypes))
        fix = "Convert all to uint8, or all to float32."
        require_condition(len(dtypes) <= 1, "all parts must have the same dtype", got, fix)
        # Labels.
        for part, images in self.parts.items():
            low = int(images.target.min())
            high = int(images.target.max())
            expected = f"{part} labels must be in [0, {count}) for {count} classes"
            fix = "Number the classes from 0, or name all of them."
            require_condition(
                0 <= low <= high < count, expected, f"values from {low} to {high}", fix
            )
            probs = images.label_probs
            expected = f"{part} label_probs must have {count} columns, one per class"
            has_all_columns = probs is None or probs.shape[1] == count
            require_condition(has_all_columns, expected, describe(probs), "Name all classes.")
        missing_classes = (
            (torch.bincount(self.train.target, minlength=count) == 0).nonzero().flatten().tolist()
        )
        got = (
            f"none for {len(missing_classes)} of {count} classes, the first {self.classes[missing_classes[0]]!r}"
            if missing_classes
            else ""
        )
        fix = "Add images of these classes, or number the labels without gaps."
        require_condition(not missing_classes, "every class must have training images", got, fix)
        # Augmentation and normalization.
        check_count("crop_padding", self.crop_padding, low=0)
        is_augmented = (self.flip or self.crop_padding) and len(shape) != 3
        fix = "Leave both out."
        require_condition(
            not is_augmented,
            "flip and crop_padding must be set for images only",
            f"inputs of {shape}",
            fix,
        )
        if isinstance(self.train, ImageFiles):
            choice = self.flip if self.flip == "alternating" else self.crop_padding
            expected = "images on disk must have no crop_padding and no alternating flips"
            require_condition(
                not choice, expected, choice, "Choose resize, crop and train_crop, and flip=true."
            )
        channels = shape[0] if shape else 1
        is_valid = not self.mean and self.mean == self.std
        is_valid = is_valid or is_valid_normalization(self.mean or (), self.std or (), channels)
        expected = (
            f"mean and std must both be None, or have {channels} finite numbers each, std above 0"
        )
        fix = (
            "Give one number per channel in [0, 1] units, or leave both out to have them computed."
        )
        require_condition(is_valid, expected, f"mean {self.mean}, std {self.std}", fix)

    @property
    def num_classes(self) -> int:
        """Number of classes ``C``."""
        return len(self.classes)


Loader = Callable[..., Source]
"""``load(root: str | None = None, *, option=default, ...) -> Source``; without ``root`` if it needs no files."""

DATASETS: Registry[Loader] = Registry("data set")
"""Data sets by name; each is registered by its own module. Metadata ``files`` describes the content of ``root``; a data
set without it needs no files."""


def option_names(name: str) -> list[str]:
    """Return the names of a data set's options, including the options common to all data sets."""
    return [
        *(each for each in inspect.signature(DATASETS[name].value).parameters if each != "root"),
        *COMMON_OPTIONS,
    ]


def load_dataset(name: str, root: str | None = None, **options: Any) -> Source:
    """Load the data set registered as ``name``.

    Args:
        name: A name in :data:`DATASETS`.
        root: Folder or file of the data set; None for ``$FEDLAS_DATA`` or the loader's usual places.
        options: Options of that loader. Every data set also takes ``flip``, ``crop_padding``, ``mean`` and ``std``,
            which replace its usual augmentation and normalization.

    Raises:
        InputError: For an unknown name or option (the message names the closest one), or wrong files.

    Example:
        >>> source = load_dataset("synthetic", num_train=20, num_test=10, num_classes=3)
        >>> source.num_classes, len(source.train), len(source.test)
        (3, 20, 10)
    """
    for option in options:
        if option not in (names := option_names(name)):
            raise InputError(
                f"every option must be an option of the data set {name}",
                repr(option),
                suggestion(option, names),
            )
    # Augmentation and statistics are checked first, since reading the files may take minutes.
    common = {key: options.pop(key) for key in COMMON_OPTIONS if key in options}
    flip = common.get("flip", False)
    is_valid_flip = flip in (True, False, "alternating")
    expected = "flip must be true, false or alternating"
    require_condition(is_valid_flip, expected, describe(flip), "Choose one.")
    check_count("crop_padding", common.get("crop_padding", 0), low=0)
    for key in ("mean", "std"):
        if common.get(key) is not None:
            common[key] = parse_channel_statistics(key, common[key])
    needs_files = "files" in DATASETS[name].metadata
    fix = "Leave root out."
    require_condition(
        needs_files or root is None,
        f"the data set {name} must have no root, since it needs no files",
        repr(root),
        fix,
    )
    source: Source = DATASETS.build(name, options, root=root)
    return replace(source, **common)


def parse_channel_statistics(name: str, value: object) -> tuple[float, ...]:
    """Return the channel means or standard deviations in an option value, as a tuple.

    Args:
        name: Name of the option; if it ends in ``std``, the numbers must be above 0.
        value: A list of numbers.

    Raises:
        InputError: If it is not a list, is empty, or a number is not finite or not above 0.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InputError(
            f"{name} must be a list of numbers", describe(value), "Pass one number per channel."
        )
    is_std = name.endswith("std")
    low = 0.0 if is_std else float("-inf")
    return tuple(check_number(name, number, low=low, low_open=is_std) for number in value)


COMMON_OPTIONS = ("flip", "crop_padding", "mean", "std")
"""Options of every data set."""
