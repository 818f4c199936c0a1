"""Cross-validation splits with whole groups and every class in each training part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require


def held_out_split(y: Any, groups: Any, share: float, seed: Any) -> tuple[Any, Any]:
    """Return indices of training and held-out rows, split by class, or by group if there are groups."""
    model_selection = require("sklearn.model_selection", extra="sklearn")
    rows = np.arange(len(y))
    if groups is None:
        return tuple(
            model_selection.train_test_split(rows, test_size=share, stratify=y, random_state=seed)
        )
    splitter = model_selection.GroupShuffleSplit(1, test_size=share, random_state=seed)
    return next(splitter.split(rows, y, groups))


def cross_validation_splits(cv: Any, X: Any, y: Any, groups: Any) -> list[Any]:  # noqa: N803
    """Return the (train, test) splits of ``cv``, checked to hold whole groups and every class in training."""
    model_selection = require("sklearn.model_selection", extra="sklearn")
    if groups is not None and (cv is None or isinstance(cv, int)):
        cv = model_selection.StratifiedGroupKFold(5 if cv is None else cv)
    splits = list(model_selection.check_cv(cv, y, classifier=True).split(X, y, groups))
    if groups is not None:
        _require_whole_groups(splits, groups)
    classes = np.unique(y)
    for number, (train, _) in enumerate(splits):
        missing = np.setdiff1d(classes, np.asarray(y)[train])
        if len(missing):
            names = ", ".join(map(str, missing[:5]))
            raise InputError(
                "the training part of each fold must have samples of every class",
                f"fold {number} without {names}",
                "Use stratified folds, and at least two samples per class.",
            )
    return splits


def _require_whole_groups(splits: Sequence[Any], groups: NDArray[Any]) -> None:
    """Raise InputError if a group is in both the training and the test part of a split."""
    for number, (train, test) in enumerate(splits):
        torn = np.intersect1d(groups[train], groups[test])
        if len(torn):
            raise InputError(
                "cv must not split groups",
                f"group {torn[0]!r} in both parts of fold {number}",
                "Pass a splitter of groups, such as StratifiedGroupKFold(5), or a number of folds.",
            )
