"""Data sets, their splits, and the fast in-memory pipeline for small images."""

from __future__ import annotations

# Importing a module registers its data set.
from fedlas.data import cifar, digits, fashion_mnist, folder, npz, synthetic  # noqa: F401
from fedlas.data.base import DATASETS, Images, Loader, Source, load_dataset
from fedlas.data.pipeline import Batches
from fedlas.data.splits import Splits, split

__all__ = ["DATASETS", "Batches", "Images", "Loader", "Source", "Splits", "load_dataset", "split"]
