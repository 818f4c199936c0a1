"""Parts that are read on demand: image files, and samples of a torch ``Dataset``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number, describe
from fedlas._core.extras import require
from fedlas.lab.data.disk import open_image
from fedlas.lab.data.shift.base import Corruption

TrainCrop = Literal["random-resized", "random", "center"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class View:
    """Resizing and cropping of the images of a data set.

    Args:
        resize: Shorter side in pixels before a crop, at least ``crop``.
        crop: Height and width of the model's input.
        train_crop: Crop of training images. ``"random-resized"`` crops a random area and aspect ratio and resizes it
            (Szegedy et al. 2015); ``"random"`` resizes as for testing and crops at a random place; ``"center"`` is the
            crop of testing.
        squash: Resize to a square of ``resize`` pixels, ignoring the aspect ratio, instead of the shorter side.
        min_area: Least share of the image's area that ``"random-resized"`` keeps, in (0, 1].
        interpolation: ``"bilinear"`` or ``"bicubic"``, both with antialiasing.
        cut_bottom: Rows of pixels to remove first at the bottom of each image (a banner).
        upright: Apply the EXIF rotation.

    Raises:
        InputError: For a value out of range.

    Example:
        >>> View(resize=448, crop=384, train_crop="random").crop
        384
    """

    resize: int = 256
    crop: int = 224
    train_crop: TrainCrop = "random-resized"
    squash: bool = False
    min_area: float = 0.08
    interpolation: Interpolation = "bilinear"
    cut_bottom: int = 0
    upright: bool = False

    def __post_init__(self) -> None:
        check_count("crop", self.crop)
        check_count("resize", self.resize)
        if self.resize < self.crop:
            raise InputError(
                f"resize must be at least crop={self.crop}",
                self.resize,
                "Choose a larger resize, e.g. 8/7 of crop, or a smaller crop.",
            )
        check_choice("train_crop", self.train_crop, get_args(TrainCrop))
        check_choice("interpolation", self.interpolation, get_args(Interpolation))
        check_number("min_area", self.min_area, low=0, high=1, low_open=True)
        check_count("cut_bottom", self.cut_bottom, low=0)

    def build_transform(self, *, augment: bool, flip: bool) -> Callable[[Any], Tensor]:
        """Return a torchvision transform from a PIL image to uint8 ``(channels, crop, crop)``.

        Args:
            augment: Crop as for training; otherwise as for testing, without randomness.
            flip: Mirror left to right with probability 1/2; only with ``augment``.

        State:
            With ``augment`` it draws from torch's global generator, as torchvision's transforms do.
        """
        v2: Any = require("torchvision.transforms.v2", extra="bench")
        mode = getattr(v2.InterpolationMode, self.interpolation.upper())
        size = (self.resize, self.resize) if self.squash else self.resize
        resize = v2.Resize(size, interpolation=mode)
        # Held-out images always get a center crop.
        crop_steps = {
            "random-resized": [
                v2.RandomResizedCrop(self.crop, scale=(self.min_area, 1.0), interpolation=mode)
            ],
            "random": [resize, v2.RandomCrop(self.crop)],
            "center": [resize, v2.CenterCrop(self.crop)],
        }[self.train_crop if augment else "center"]
        steps = v2.Compose(
            [
                *crop_steps,
                *([v2.RandomHorizontalFlip()] if augment and flip else []),
                v2.PILToTensor(),
            ]
        )

        def transform(image: Any) -> Tensor:
            # The strip is removed before anything is resized, because its height is in pixels of the file.
            if self.cut_bottom:
                image = image.crop((0, 0, image.width, max(1, image.height - self.cut_bottom)))
            pixels: Tensor = steps(image)
            return pixels

        return transform


def add_view_options(default: View) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a data set loader one option per field of :class:`View`, in place of ``view``.

    Args:
        default: View without options. ``cut_bottom`` and ``upright`` depend on the files and are no options.
    """
    names = [each.name for each in fields(View) if each.name not in ("cut_bottom", "upright")]

    def decorate(load: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(load)
        def loader(root: str | None = None, **options: Any) -> Any:
            """Load the data set with the view that the options describe."""
            chosen = {name: options.pop(name) for name in names if name in options}
            return load(root, view=replace(default, **chosen), **options)

        others = [each for each in signature(load).parameters.values() if each.name != "view"]
        views = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(default, name))
            for name in names
        ]
        loader.__signature__ = Signature([*others, *views])  # type: ignore[attr-defined]  # inspect reads it
        return loader

    return decorate


class _StreamedPart:
    """Base class of parts that are read on demand, with their labels in memory."""

    target: Tensor
    """Class of each sample, ``(N,)`` int64, on the device of the batches."""

    def __len__(self) -> int:
        return int(self.target.shape[0])

    @property
    def label_probs(self) -> None:
        """Always None, since true class probabilities are unknown."""
        return None

    def to(self, device: torch.device | str) -> Self:
        """Return the same part with its labels, and so its batches, on ``device``."""
        return self.with_target(self.target.to(device))

    def with_target(self, target: Tensor) -> Self:
        """Return the same samples with new labels ``(N,)`` int64."""
        return replace(self, target=target)  # type: ignore[type-var]  # every subclass is a dataclass


@dataclass(frozen=True, eq=False)
class ImageFiles(_StreamedPart):
    """Image files and labels of one part, read on demand; for images that do not fit into memory.

    Args:
        folder: Folder that the names are relative to.
        names: File names ``(N,)``, as bytes, which take a tenth of the memory of Python strings.
        target: Class of each image, ``(N,)`` int64, on the device of the batches.
        view: Resizing and cropping.
        channels: 3 for color, 1 for gray.
        corruption: Applied to each image after it is cropped; None for none.

    Raises:
        InputError: If names and target differ in length, or are empty.

    Example:
        >>> part = ImageFiles.from_lists(Path("photos"), ["cat/1.jpg", "dog/1.jpg"], [0, 1], View(resize=256, crop=224))
        >>> len(part), part.shape, part.path(1).as_posix()
        (2, (3, 224, 224), 'photos/dog/1.jpg')
    """

    folder: Path
    names: NDArray[np.bytes_]
    target: Tensor
    view: View
    channels: int = 3
    corruption: Corruption | None = None

    def __post_init__(self) -> None:
        if (
            self.target.shape != (len(self.names),)
            or self.target.dtype != torch.int64
            or not len(self.names)
        ):
            raise InputError(
                f"target must be int64 ({len(self.names)},), one class index per name, and not empty",
                describe(self.target),
                "Pass one class index per file.",
            )

    @classmethod
    def from_lists(
        cls,
        folder: Path,
        names: Sequence[str],
        target: Sequence[int],
        view: View,
        *,
        channels: int = 3,
    ) -> ImageFiles:
        """Return a part from a list of names and a list of labels."""
        encoded = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
        return cls(folder, encoded, torch.tensor(target, dtype=torch.int64), view, channels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(channels, H, W)`` of an image after cropping."""
        return self.channels, self.view.crop, self.view.crop

    def path(self, index: int) -> Path:
        """Return the path of the image at an index."""
        return self.folder / os.fsdecode(bytes(self.names[index]))

    def open(self, index: int) -> Any:
        """Return the image at an index as a decoded PIL image, neither resized nor cropped.

        Raises:
            InputError: If it cannot be read; the message names the file.
        """
        return open_image(self.path(index), channels=self.channels, upright=self.view.upright)

    def make_reader(self, *, augment: bool, flip: bool) -> Callable[[int], Tensor]:
        """Return a function that reads, crops and corrupts the image at an index; see :meth:`View.pipeline`."""
        pipeline = self.view.build_transform(augment=augment, flip=flip)

        def read(row: int) -> Tensor:
            pixels = pipeline(self.open(row))
            return pixels if self.corruption is None else self.corruption(pixels, row)

        return read

    def image(self, index: int) -> Tensor:
        """Return one image as uint8 ``(channels, H, W)``, cropped as in testing and not normalized.

        Raises:
            InputError: If it cannot be read.
        """
        return self.make_reader(augment=False, flip=False)(index)

    def take(self, indices: Tensor) -> ImageFiles:
        """Return the files at ``indices`` (int64), in that order."""
        rows = indices.cpu()  # names are on the CPU, labels maybe not
        return replace(
            self, names=self.names[rows.numpy()], target=self.target[indices.to(self.target.device)]
        )

    def sizes(self) -> NDArray[np.int64]:
        """Return the file sizes in bytes, ``(N,)``, which identify a download without reading it.

        Raises:
            InputError: If a file is missing.
        """
        try:
            return np.array(
                [self.path(row).stat().st_size for row in range(len(self))], dtype=np.int64
            )
        except OSError as error:
            raise InputError(
                "every image file must exist", error, "Extract the archive again."
            ) from error


def scale_to_uint8(inputs: Tensor) -> Tensor:
    """Return numbers scaled to uint8 from minimum to maximum; uint8 is returned unchanged."""
    if inputs.dtype == torch.uint8:
        return inputs
    spread = (inputs - inputs.min()) / (inputs.max() - inputs.min()).clamp(min=1e-12)
    return (255 * spread).round().to(torch.uint8)


@dataclass(frozen=True, eq=False)
class DatasetItems(_StreamedPart):
    """Samples of a torch ``Dataset`` whose items are ``(input, label)``.

    Args:
        dataset: Map-style ``Dataset``; its inputs are tensors of one shape.
        rows: Indices in the data set, ``(N,)`` int64.
        target: Class of each sample, ``(N,)`` int64, on the device of the batches.
        shape: Shape of an input.
    """

    dataset: Any
    rows: Tensor
    target: Tensor
    shape: tuple[int, ...]

    @classmethod
    def from_dataset(cls, dataset: object, name: str) -> DatasetItems:
        """Return all samples of a data set, with labels from its ``targets`` or else from each item.

        Raises:
            InputError: If it is empty or has no length, or an item is not a tensor with a class index.
        """
        expected = f"{name} must be a pair of arrays, or a Dataset of (tensor, class index)"
        fix = "Convert inputs with a transform, and number the classes from 0."
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise InputError(expected, type(dataset).__name__, fix)
        count = len(dataset)
        first, *_ = dataset[0] if count else (None,)
        if not isinstance(first, Tensor):
            raise InputError(expected, f"{count} items, the first of {describe(first)}", fix)
        labels = getattr(dataset, "targets", None)
        if labels is None or len(labels) != count:
            labels = [dataset[row][1] for row in range(count)]
        try:
            target = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(expected, f"labels that are not numbers ({error})", fix) from error
        if target.shape != (count,) or target.is_floating_point() or target.is_complex():
            raise InputError(expected, f"labels of {describe(target)}", fix)
        return cls(dataset, torch.arange(count), target.long(), tuple(first.shape))

    def make_reader(self, **_: bool) -> Callable[[int], Tensor]:
        """Return a function that reads the input at an index; augmentation is up to the data set."""
        return lambda row: self.dataset[int(self.rows[row])][0]

    def image(self, index: int) -> Tensor:
        """Return one input for display, scaled to uint8 from minimum to maximum."""
        return scale_to_uint8(self.make_reader()(index))

    def take(self, indices: Tensor) -> DatasetItems:
        """Return the samples at ``indices`` (int64), in that order."""
        return replace(
            self, rows=self.rows[indices.cpu()], target=self.target[indices.to(self.target.device)]
        )
