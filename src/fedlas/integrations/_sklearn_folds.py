"""Rows that a scikit-learn model holds out: folds with every class in each training part, of whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require


def held_out(y: Any, groups: Any, share: float, seed: Any) -> tuple[Any, Any]:
    """Return rows to train on and a held-out share of the rows by class, or of the groups."""
    model_selection = require("sklearn.model_selection", extra="sklearn")
    rows = np.arange(len(y))
    if groups is None:
        return tuple(
            model_selection.train_test_split(rows, test_size=share, stratify=y, random_state=seed)
        )
    splitter = model_selection.GroupShuffleSplit(1, test_size=share, random_state=seed)
    return next(splitter.split(rows, y, groups))


def splits_of(cv: Any, X: Any, y: Any, groups: Any) -> list[Any]:  # noqa: N803
    """Return the folds, each with every class in its training part; of whole groups unless ``cv`` has its own."""
    model_selection = require("sklearn.model_selection", extra="sklearn")
    if groups is not None and (cv is None or isinstance(cv, int)):
        cv = model_selection.StratifiedGroupKFold(5 if cv is None else cv)
    splits = list(model_selection.check_cv(cv, y, classifier=True).split(X, y, groups))
    if groups is not None:
        _check_whole(splits, groups)
    classes = np.unique(y)
    for number, (train, _) in enumerate(splits):
        missing = np.setdiff1d(classes, np.asarray(y)[train])
        if len(missing):
            names = ", ".join(map(str, missing[:5]))
            raise InputError(
                "each training fold must have samples of every class",
                f"fold {number} without {names}",
                "Use stratified folds, and at least two samples a class.",
            )
    return splits


def _check_whole(splits: Sequence[Any], groups: NDArray[Any]) -> None:
    """Refuse folds that tear groups apart."""
    for number, (train, test) in enumerate(splits):
        torn = np.intersect1d(groups[train], groups[test])
        if len(torn):
            raise InputError(
                "cv must hold whole groups",
                f"group {torn[0]!r} in both parts of fold {number}",
                "Pass a splitter of groups, such as StratifiedGroupKFold(5), or a number of folds.",
            )
