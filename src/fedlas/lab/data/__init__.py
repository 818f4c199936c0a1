"""Data sets, their splits, and two pipelines: small images in memory, large ones read from disk."""

from __future__ import annotations

from fedlas.lab.data.base import DATASETS, Images, Loader, Part, Source, load_dataset
from fedlas.lab.data.files import Files
from fedlas.lab.data.pipeline.batches import Batches
from fedlas.lab.data.pipeline.splits import Splits, split
from fedlas.lab.data.pipeline.streamed_batches import StreamedBatches

# Importing a module registers its data set.
from fedlas.lab.data.sets import (  # noqa: F401
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
