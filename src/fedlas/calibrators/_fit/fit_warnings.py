"""Texts of the warnings after a fit; functions return None if there is nothing to warn about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

from fedlas._core.text import NO_ACTION
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.predictions.tensors import softmax
from fedlas.resample.effective import effective_sample_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlas.predictions import Predictions

M = TypeVar("M", bound="nn.Module")

# Smaller changes of probabilities are invisible in reports.
_MIN_CHANGE = 1e-4
_FIRST_ROWS = 256
_MAX_COLUMNS = 64
"""More columns are taken for an embedding, whose values do not repeat, and not checked."""
_MIN_VALUES = 10
_ROWS_PER_COMBINATION = 3
_MAX_COMBINATION_RATIO = 1.2
"""Most combinations per value of the column with more values."""
LOGITS_ADVICE = "Check that these are logits, and that the validation set is large enough and not training data."


def warning_if(condition: object, text: str) -> str | None:
    """Return the warning text if the condition is true, else None."""
    return text if condition else None


def attach_warnings(row_map: M, *messages: str | None) -> M:
    """Attach the warning texts to a fitted map and return the map; ``fit`` emits them."""
    texts = tuple(doubt for doubt in messages if doubt is not None)
    row_map.doubts = texts  # type: ignore[assignment]  # torch declares module attributes as tensors or modules
    return row_map


def join_warnings(*messages: str | None) -> str | None:
    """Return the warning texts joined into one, or None if all are None.

    Example:
        >>> join_warnings("one thing. Do this.", None, "another thing.")
        'one thing. Do this. Another thing.'
    """
    texts = [doubt for doubt in messages if doubt is not None]
    return " ".join([*texts[:1], *(doubt[0].upper() + doubt[1:] for doubt in texts[1:])]) or None


def cluster_warning(val: Predictions, features: Tensor | None) -> str | None:
    """Return a warning if all samples are in one cluster, or repeated columns suggest unnamed clusters; else None."""
    clusters = val.tensors().clusters
    if clusters is None:
        names = () if val.covariates is None else val.covariates.names
        return None if features is None else repeated_columns_warning(features, names)
    return warning_if(
        len(clusters) > 1 and bool((clusters == clusters[0]).all()),
        "all samples are in one cluster, so held-out samples cannot show how the fit does on another cluster. Use "
        "samples of more images, patients or users.",
    )


def repeated_columns_warning(features: Tensor, column_names: Sequence[str] = ()) -> str | None:
    """Return a warning if columns repeat together, as the columns of one patient over several visits; else None.

    Two columns repeat together if both have at least 10 values but hardly more combinations than values, and each
    combination has three rows or more on average. ``column_names`` are the column names, if known.
    """
    import torch

    if features.shape[1] > _MAX_COLUMNS:
        return None
    codes = [torch.unique(column, return_inverse=True)[1] for column in features.cpu().T]
    value_counts = [int(number.max()) + 1 for number in codes]
    max_values = len(features) // _ROWS_PER_COMBINATION
    columns = [
        place for place, size in enumerate(value_counts) if _MIN_VALUES <= size <= max_values
    ]
    for first, second in combinations(columns, 2):
        num_combinations = len(torch.unique(codes[first] * value_counts[second] + codes[second]))
        if num_combinations <= _MAX_COMBINATION_RATIO * max(
            value_counts[first], value_counts[second]
        ):
            pair = (
                f"{column_names[first]} and {column_names[second]}"
                if column_names
                else f"features {first} and {second}"
            )
            return (
                f"{pair} repeat together: {num_combinations:,} combinations in {len(features):,} rows. "
                "If the rows of a combination belong to one patient or user, pass that id as clusters=; otherwise the "
                "fit is validated on patients or users that it has seen, and can be harmful for new ones."
            )
    return None


def bound_warning(*bounds: str, objective: str = "NLL", advice: str = LOGITS_ADVICE) -> str | None:
    """Return a warning if a search ended at a bound, or None.

    Args:
        *bounds: Bounds that were reached, such as ``"temperature 100"``.
        objective: Name of the objective that was minimized.
        advice: Advice at the end of the warning.
    """
    return warning_if(
        bounds,
        f"the {objective} is lowest at a bound of the search, {' and '.join(bounds)}. {advice}".rstrip(),
    )


def no_change_warning(
    val: Predictions, calibrated: Callable[..., Tensor] | Tensor, features: Tensor | None = None
) -> str | None:
    """Return a warning if no probability of ``val`` changes by 1e-4 or more, or None.

    Args:
        val: The predictions that the calibrator was fitted on.
        calibrated: Their calibrated logits ``(N, C)``, or the function of rows ``(n, C)`` that computes them.
        features: Second input of the function ``(N, D)``, or None.
    """
    from torch import Tensor

    for logits in (
        val.tensors().logits[:_FIRST_ROWS],
        val.tensors().logits,
    ):  # the first rows decide in nearly all cases
        for part, rows in iter_float64_rows(logits):
            if isinstance(calibrated, Tensor):
                after = calibrated[part].cpu().double()
            else:
                after = calibrated(
                    rows, *(() if features is None else (features[part].cpu().double(),))
                )
            if bool(((softmax(after) - softmax(rows)).abs() >= _MIN_CHANGE).any()):
                return None
    return f"the fit changes no validation probability by 1e-4 or more. {NO_ACTION}"


def accuracy_drop_warning(val: Predictions, calibrated: Tensor, advice: str) -> str | None:
    """Return a warning if the accuracy on ``val`` falls by more than one standard error, or None.

    Args:
        val: The predictions that the calibrator was fitted on.
        calibrated: Their calibrated logits ``(N, C)``, float64 on the CPU.
        advice: Reason and remedy, at the end of the warning.
    """
    from torch.nn.functional import cross_entropy

    before = val.tensors().correct
    target = val.tensors().target
    after = calibrated.argmax(dim=1) == target
    lost = int((before & ~after).sum())
    gained = int((after & ~before).sum())
    if lost - gained <= math.sqrt(lost + gained):
        return None
    nll = [
        float(cross_entropy(rows, target)) for rows in (val.tensors().logits.double(), calibrated)
    ]
    return (
        f"the accuracy on the validation samples falls from {before.double().mean():.3f} to "
        f"{after.double().mean():.3f} (the NLL from {nll[0]:.3f} to {nll[1]:.3f}): {advice}"
    )


def convergence_warning(converged: bool) -> str | None:
    """Return a warning if a fit did not converge, or None."""
    return warning_if(
        not converged,
        "the fit did not converge. Check the logits for extreme values.",
    )


def absent_classes_warning(val: Predictions) -> str | None:
    """Return a warning if a class has no validation sample, or None."""
    import torch

    count = torch.bincount(val.tensors().target, sample_weights(val), minlength=val.num_classes)
    absent = (count == 0).nonzero().squeeze(1).tolist()
    return warning_if(
        absent,
        f"{format_classes(absent, val.classes)} of {len(count)} without a validation sample: the calibrated "
        f"{'probability is' if len(absent) == 1 else 'probabilities are'} unreliable. Use a larger validation set, or "
        "temperature scaling.",
    )


def format_classes(
    classes: list[int],
    names: Sequence[str] | None = None,
    noun: tuple[str, str] = ("class", "classes"),
) -> str:
    """Return class indices or names as text: "class 3", or the count and the first five classes.

    Args:
        classes: Indices of the classes to list.
        names: Names of all classes, or None.
        noun: Singular and plural of the noun.

    Example:
        >>> format_classes([3]), format_classes(list(range(12))), format_classes([0, 2], ["cat", "dog", "owl"])
        ('class 3', '12 classes (0, 1, 2, 3, 4, ...)', '2 classes (cat, owl)')
    """
    texts = [str(number) if names is None else names[number] for number in classes[:5]]
    if len(classes) == 1:
        return f"{noun[0]} {texts[0]}"
    return f"{len(classes)} {noun[1]} ({', '.join(texts)}{', ...' if len(classes) > 5 else ''})"


def few_samples_warning(val: Predictions, enough: int, enough_per_class: int) -> str | None:
    """Return the warning that there are fewer samples than ``enough``, or than enough for each class."""
    samples = effective_sample_size(sample_weights(val))
    most = max(enough, enough_per_class * val.num_classes)
    return warning_if(
        val.num_classes > 1 and samples < most,
        f"{samples:.4g} samples are few: with fewer than about {most:,} the NLL of new samples can get worse. "
        "Use more samples, or auto, which does the least harm.",
    )
