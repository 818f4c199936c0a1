"""Data sets, their splits, and two pipelines: small images in memory, large ones read from disk."""

from __future__ import annotations

# Importing a module registers its data set.
from fedlas.data import (  # noqa: F401
    aircraft,
    cifar,
    cub,
    digits,
    fashion_mnist,
    folder,
    image_folder,
    imagenet,
    mnist,
    npz,
    svhn,
    synthetic,
    tiny_imagenet,
)
from fedlas.data.base import DATASETS, Images, Loader, Part, Source, load_dataset
from fedlas.data.files import Files
from fedlas.data.pipeline import Batches
from fedlas.data.splits import Splits, split
from fedlas.data.streamed import StreamedBatches

__all__ = [
    "DATASETS",
    "Batches",
    "Files",
    "Images",
    "Loader",
    "Part",
    "Source",
    "Splits",
    "StreamedBatches",
    "load_dataset",
    "split",
]
