"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from fedlas._core.check import InputError, check_count
from fedlas._core.extras import require
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.base import DATASETS, Images, Source, no_root
from fedlas.lab.data.pipeline.stratify import hold_out

_NUM_IMAGES, _NUM_CLASSES = 1797, 10


@DATASETS.register("digits", paper="Alpaydin and Kaynak 1998", url="https://doi.org/10.24432/C50P49")
def load_digits(root: str | None = None, *, num_test: int = 600) -> Source:
    """1,797 gray digits of 8 x 8 pixels, embedded in scikit-learn: 1,197 to train, 600 to test.

    Args:
        root: Must be None: the data set needs no files.
        num_test: Size of the test part; the rest is the training part. Both need an image of every class.

    Returns:
        A source with ten classes; gray levels 0..16 are scaled to 0..255. It has no flips and no crops, which would
        change the digits.

    Note:
        scikit-learn has no official test part; this one is stratified and the same for every seed.
    """
    no_root("digits", root)
    size = check_count("digits", "num_test", num_test, low=_NUM_CLASSES)
    if size > _NUM_IMAGES - _NUM_CLASSES:
        expected = f"num_test must be at most {_NUM_IMAGES - _NUM_CLASSES} of {_NUM_IMAGES}"
        raise InputError("digits", expected, num_test, "Leave an image of each class to train on.")
    bunch = require("sklearn.datasets", extra="data").load_digits()
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None])
    target = bunch.target.astype(np.int64)
    classes = tuple(str(digit) for digit in range(_NUM_CLASSES))
    kept, held_out = hold_out("digits", target, size, classes, stream(Purpose.FIXED_TEST))
    both = Images(images, torch.from_numpy(target))
    return Source("digits", both.take(torch.from_numpy(kept)), both.take(torch.from_numpy(held_out)), classes)
