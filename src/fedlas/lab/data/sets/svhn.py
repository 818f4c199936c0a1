"""SVHN, cropped digits, from the published Matlab files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fedlas._core.check import InputError, describe
from fedlas.lab.data.base import DATASETS, Images, Source
from fedlas.lab.data.readers.expected import Expected
from fedlas.lab.data.readers.layout import Layout
from fedlas.lab.data.readers.matlab import read_mat

_FETCH = "torchvision.datasets.SVHN(FOLDER, split='train', download=True), and split='test', fetch them."
_LAYOUT = Layout("svhn", ("train_32x32.mat", "test_32x32.mat"), ("svhn", "SVHN"), (), _FETCH)


@DATASETS.register(
    "svhn",
    paper="Netzer et al. 2011",
    url="http://ufldl.stanford.edu/housenumbers/",
    files="train_32x32.mat and test_32x32.mat",
    expected=Expected(train=73_257, test=26_032, classes=10, per_class=(4659, 13861)),
)
def load_svhn(root: str | None = None, *, extra: bool = False) -> Source:
    """99,289 color photographs of house numbers, 32 x 32 pixels in 10 classes: 73,257 to train, 26,032 to test.

    Args:
        root: Folder (None: ``$FEDLAS_DATA``) with ``train_32x32.mat`` and ``test_32x32.mat``, in itself or in ``svhn``
            below it.
        extra: Train on the 531,131 easier images of ``extra_32x32.mat`` too.

    Returns:
        A source whose labels are the digits (in the files the digit 0 is class 10), with crops of padding 4 and no
        flips.

    Raises:
        InputError: If the files are missing or damaged.
    """
    folder = _LAYOUT.locate(root)
    train, test = (_read(folder / f"{part}_32x32.mat") for part in ("train", "test"))
    if extra:
        more = _read(folder / "extra_32x32.mat")
        train = Images(torch.cat([train.images, more.images]), torch.cat([train.target, more.target]))
    classes = tuple(str(digit) for digit in range(10))
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    return Source("svhn", train, test, classes, crop_padding=4, mean=mean, std=std)


def _read(path: Path) -> Images:
    images, labels = read_mat("svhn", path, ("X", "y"), _FETCH)
    target = np.asarray(labels).reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3) or not len(target):
        raise InputError("svhn", "X must be uint8 (32, 32, 3, N)", f"{describe(images)} in {path}", _FETCH)
    if len(target) != images.shape[3] or not 1 <= target.min() <= target.max() <= 10:
        got = f"{len(target)} from {target.min()} to {target.max()} in {path}"
        raise InputError("svhn", f"y must hold {images.shape[3]} labels from 1 to 10", got, _FETCH)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1)))
    return Images(pixels, torch.from_numpy(target.astype(np.int64) % 10))
