"""Resizing and cropping of large images: one rule for training, one for everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.extras import require

TrainCrop = Literal["random-resized", "random", "center"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class View:
    """Resizing and cropping of the images of one data set.

    Args:
        resize: Shorter side in pixels before a crop, at least ``crop``.
        crop: Height and width of what the model gets.
        train_crop: Crop of training images. ``"random-resized"`` crops a random area and aspect ratio and resizes it
            (Szegedy et al. 2015); ``"random"`` resizes as for testing and crops at a random place; ``"center"`` is the
            crop of testing.
        squash: Resize to a square of ``resize`` pixels whatever the aspect ratio, instead of the shorter side.
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
        check_count("data", "crop", self.crop)
        check_count("data", "resize", self.resize)
        if self.resize < self.crop:
            raise InputError(
                "data",
                f"resize must be at least crop={self.crop}",
                self.resize,
                "Choose a larger resize, e.g. 8/7 of crop, or a smaller crop.",
            )
        check_choice("data", "train_crop", self.train_crop, get_args(TrainCrop))
        check_choice("data", "interpolation", self.interpolation, get_args(Interpolation))
        check_number("data", "min_area", self.min_area, low=0, high=1, low_open=True)
        check_count("data", "cut_bottom", self.cut_bottom, low=0)

    def pipeline(self, *, augment: bool, flip: bool) -> Callable[[Any], Tensor]:
        """A function from a PIL image to uint8 ``(channels, crop, crop)``, built from torchvision's v2 transforms.

        Args:
            augment: Crop as for training; otherwise as for testing, without randomness.
            flip: Mirror left to right with probability 1/2; only with ``augment``.

        State:
            With ``augment`` it draws from torch's global generator, as torchvision's transforms do.
        """
        v2: Any = require("torchvision.transforms.v2", extra="data")
        mode = getattr(v2.InterpolationMode, self.interpolation.upper())
        size = (self.resize, self.resize) if self.squash else self.resize
        resized = v2.Resize(size, interpolation=mode)
        # Held-out images are cut in the middle, whatever training does.
        cut = {
            "random-resized": [v2.RandomResizedCrop(self.crop, scale=(self.min_area, 1.0), interpolation=mode)],
            "random": [resized, v2.RandomCrop(self.crop)],
            "center": [resized, v2.CenterCrop(self.crop)],
        }[self.train_crop if augment else "center"]
        steps = v2.Compose([*cut, *([v2.RandomHorizontalFlip()] if augment and flip else []), v2.PILToTensor()])

        def view(image: Any) -> Tensor:
            # The strip is removed before anything is resized, because its height is in pixels of the file.
            if self.cut_bottom:
                image = image.crop((0, 0, image.width, max(1, image.height - self.cut_bottom)))
            pixels: Tensor = steps(image)
            return pixels

        return view
