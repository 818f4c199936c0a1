"""The warnings after a fit, each worded once; a doubt is a text, or None if there is nothing to warn about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas.calibrators._fit.rowwise import double_rows, weights_of
from fedlas.predictions import Predictions
from fedlas.predictions.probabilities import softmax

M = TypeVar("M", bound=nn.Module)

# Probabilities that change by less than this look the same in every report.
_UNCHANGED = 1e-4
_FEW = 256
_MOST_COLUMNS = 64
"""Embeddings have more columns, and do not repeat."""
_FEWEST_VALUES = 10
_ROWS_A_COMBINATION = 3
_ALIKE = 1.2
"""Combinations for each value of the column that has more values."""
CHECK = "Check that these are logits, and that the validation set is large enough and not training data."


def when(condition: object, text: str) -> str | None:
    """Return ``text`` as a doubt if the condition is true."""
    return text if condition else None


def with_doubts(row_map: M, *doubts: str | None) -> M:
    """Return the map, which then carries these doubts to the fit that warns of them."""
    texts = tuple(doubt for doubt in doubts if doubt is not None)
    row_map.doubts = texts  # type: ignore[assignment]  # torch declares that modules hold tensors and modules alone
    return row_map


def joined(*doubts: str | None) -> str | None:
    """Return all doubts as one text, None if there are none.

    Example:
        >>> joined("one thing. Do this.", None, "another thing.")
        'one thing. Do this. Another thing.'
    """
    texts = [doubt for doubt in doubts if doubt is not None]
    return " ".join([*texts[:1], *(doubt[0].upper() + doubt[1:] for doubt in texts[1:])]) or None


def clustered(val: Predictions, features: Tensor | None) -> str | None:
    """Return a doubt if all samples are of one cluster, or seem to be of clusters that nobody named."""
    clusters = val.clusters
    if clusters is None:
        names = () if val.covariates is None else val.covariates.names
        return None if features is None else repeated_columns(features, names)
    return when(
        len(clusters) > 1 and bool((clusters == clusters[0]).all()),
        "all samples are of one cluster, so held-out samples show nothing of another. Use samples of more images, "
        "patients or users.",
    )


def repeated_columns(features: Tensor, names: Sequence[str] = ()) -> str | None:
    """Return a doubt if several columns of numbers repeat together, as those of a patient do at each visit.

    That is where columns of at least 10 values each have hardly more combinations than values, and each combination
    stands for three rows or more. ``names`` are those of the columns, where they have some.
    """
    if features.shape[1] > _MOST_COLUMNS:
        return None
    numbers = [torch.unique(column, return_inverse=True)[1] for column in features.cpu().T]
    sizes = [int(number.max()) + 1 for number in numbers]
    most = len(features) // _ROWS_A_COMBINATION
    columns = [place for place, size in enumerate(sizes) if _FEWEST_VALUES <= size <= most]
    for first, second in combinations(columns, 2):
        together = len(torch.unique(numbers[first] * sizes[second] + numbers[second]))
        if together <= _ALIKE * max(sizes[first], sizes[second]):
            pair = (
                f"{names[first]} and {names[second]}" if names else f"features {first} and {second}"
            )
            return (
                f"{pair} repeat together: {together:,} combinations in {len(features):,} rows. "
                "If rows of one combination are of one patient or user, name it by clusters=: otherwise rows of the "
                "same one judge the fit, which new ones may find worse than none."
            )
    return None


def at_bound(*ends: str, objective: str = "NLL", check: str = CHECK) -> str | None:
    """Return a doubt if a search ended at a bound.

    Args:
        *ends: The bounds that were reached, such as ``"temperature 100"``.
        objective: Name of what was minimized.
        check: What to do about it.
    """
    return when(
        ends,
        f"the {objective} is lowest at a bound of the search, {' and '.join(ends)}. {check}".rstrip(),
    )


def unchanged(
    val: Predictions, calibrated: Callable[..., Tensor] | Tensor, features: Tensor | None = None
) -> str | None:
    """Return a doubt if no probability of ``val`` changes by 1e-4 or more.

    Args:
        val: The predictions that the calibrator was fitted on.
        calibrated: Their calibrated logits ``(N, C)``, or the function of rows ``(n, C)`` that computes them.
        features: ``(N, D)`` that the function takes too, or None.
    """
    for logits in (val.logits[:_FEW], val.logits):  # the first rows decide in nearly all cases
        for part, rows in double_rows(logits):
            if isinstance(calibrated, Tensor):
                after = calibrated[part].cpu().double()
            else:
                after = calibrated(
                    rows, *(() if features is None else (features[part].cpu().double(),))
                )
            if bool(((softmax(after) - softmax(rows)).abs() >= _UNCHANGED).any()):
                return None
    return "no validation probability changes by 1e-4 or more, so predictions stay as they are. Nothing need be done."


def less_accurate(val: Predictions, calibrated: Tensor, advice: str) -> str | None:
    """Return a doubt if the accuracy on ``val`` falls by more than a standard error of the fall.

    Args:
        val: The predictions that the calibrator was fitted on.
        calibrated: Their calibrated logits ``(N, C)``, float64 on the CPU.
        advice: Why that is, and what to do about it.
    """
    before = val.correct.cpu()
    target = val.target.cpu()
    after = calibrated.argmax(dim=1) == target
    lost = int((before & ~after).sum())
    gained = int((after & ~before).sum())
    if lost - gained <= math.sqrt(lost + gained):
        return None
    nll = [float(cross_entropy(rows, target)) for rows in (val.logits.cpu().double(), calibrated)]
    return (
        f"the accuracy on the validation samples falls from {before.double().mean():.3f} to "
        f"{after.double().mean():.3f} (the NLL from {nll[0]:.3f} to {nll[1]:.3f}): {advice}"
    )


def unconverged(converged: bool) -> str | None:
    """Return a doubt if a search ended before the gradient vanished."""
    return when(
        not converged,
        "the fit stopped before the gradient vanished. Check the logits for extreme values.",
    )


def absent_classes(val: Predictions) -> str | None:
    """Return a doubt if a class has no validation sample, for calibrators with parameters for each class."""
    count = torch.bincount(val.target.cpu(), weights_of(val), minlength=val.num_classes)
    absent = (count == 0).nonzero().squeeze(1).tolist()
    return when(
        absent,
        f"{some(absent, val.classes)} of {len(count)} without a validation sample: nothing is known of "
        f"{'its probability' if len(absent) == 1 else 'their probabilities'}. Use a larger validation set, or "
        "temperature scaling.",
    )


def some(
    classes: list[int],
    names: Sequence[str] | None = None,
    noun: tuple[str, str] = ("class", "classes"),
) -> str:
    """Return the classes as text, by their names if they have some; of many, their count and the first five.

    Args:
        classes: Their indices.
        names: Of all classes.
        noun: What one of them, and several, are called.

    Example:
        >>> some([3]), some(list(range(12))), some([0, 2], ["cat", "dog", "owl"])
        ('class 3', '12 classes (0, 1, 2, 3, 4, ...)', '2 classes (cat, owl)')
    """
    texts = [str(number) if names is None else names[number] for number in classes[:5]]
    if len(classes) == 1:
        return f"{noun[0]} {texts[0]}"
    return f"{len(classes)} {noun[1]} ({', '.join(texts)}{', ...' if len(classes) > 5 else ''})"
