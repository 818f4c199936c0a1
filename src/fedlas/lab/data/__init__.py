"""Data sets, their splits and batches.

In it: readers of data sets (``sets``), files, splits and batches, corruptions and label noise (``shift``).
In: a registry name and files on disk. Out: normalized batches ``(x, target, index)``.
"""

from __future__ import annotations

from fedlas.lab.data.base import DATASETS, Images, Source, load_dataset
from fedlas.lab.data.batches import Batches, StreamedBatches
from fedlas.lab.data.check import check_dataset
from fedlas.lab.data.files import ImageFiles, View

# Importing a module registers its data set.
from fedlas.lab.data.sets import archives, embedded, folders, mnist, tables, torchvision_sets  # noqa: F401
from fedlas.lab.data.splits import Splits, split
from fedlas.lab.data.survey import survey_images

__all__ = [
    "DATASETS",
    "Batches",
    "ImageFiles",
    "Images",
    "Source",
    "Splits",
    "StreamedBatches",
    "View",
    "check_dataset",
    "load_dataset",
    "split",
    "survey_images",
]
