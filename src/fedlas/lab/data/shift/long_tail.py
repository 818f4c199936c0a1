"""Long-tailed training parts: the number of images falls from class to class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fedlas._core.check import check_number
from fedlas._core.streams import Purpose, stream
from fedlas.lab.data.pipeline.splits import Splits
from fedlas.lab.data.pipeline.stratify import choose, shuffled_classes


def long_tailed(splits: Splits, factor: float, *, seed: int) -> Splits:
    """Keep ``n * factor ** (-c / (C - 1))`` training images of class ``c``; validation and test stay as they are.

    Args:
        splits: Made by :func:`fedlas.lab.data.split`.
        factor: Ratio of the images of the first class to those of the last, at least 1.
        seed: Whole number >= 0; decides which images are kept.

    Returns:
        Splits with a smaller training part, sorted, with at least one image per class. ``n`` is the number of images of
        the largest class; a class that has fewer than its share keeps all. Mean and standard deviation do not change.

    Raises:
        InputError: For a factor below 1.

    Example:
        >>> from fedlas.lab.data import load_dataset, split
        >>> splits = split(load_dataset("digits"), seed=0, val_size=197)
        >>> long_tailed(splits, 10, seed=0).train.target.bincount().tolist()
        [99, 78, 61, 47, 36, 28, 21, 17, 13, 10]

    Source:
        Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555, section 5.1.
    """
    check_number("data", "long_tail", factor, low=1)
    target = splits.train.target.cpu().numpy()
    counts = np.bincount(target, minlength=splits.num_classes)
    # 1e-9: a share that is a whole number must not round down.
    share = float(factor) ** (-np.arange(splits.num_classes) / (splits.num_classes - 1))
    amounts = np.minimum(counts, np.maximum(1, np.floor(counts.max() * share + 1e-9).astype(np.int64)))
    rows = choose(shuffled_classes(target, splits.num_classes, stream(Purpose.LONG_TAIL, seed)), amounts)
    train = splits.train.take(torch.from_numpy(rows).to(splits.train.target.device))
    return replace(splits, train=train, indices={**splits.indices, "train": splits.indices["train"][rows]})
