"""Calibration of each class's probability, and of the predicted class in groups of samples."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, check_count, check_dense, describe, is_tensor
from fedlas._core.kinds import check_argument_types
from fedlas.metrics.accumulator import Accumulator
from fedlas.metrics.classwise import ClasswiseSums, class_errors
from fedlas.metrics.equal_width import equal_width_index
from fedlas.metrics.scan import Chunk, scan
from fedlas.metrics.sums import CellSums, nonzero
from fedlas.predictions.any_predictions import (
    AnyPredictions,
    require_predictions,
    require_top_label,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.predictions import Predictions, TopLabel


@dataclass(frozen=True)
class ClassCalibration:
    """Calibration of one class's probability against the class's frequency.

    Attributes:
        label: The class.
        num_labels: Samples of the class, those of weight 0 left out.
        frequency: Their share of all samples, by weight if there are weights, as all that follows.
        mean_probability: Mean probability of the class over all samples.
        ece: ECE of the probability; the mean over all classes is the classwise ECE.
    """

    label: int
    num_labels: int
    frequency: float
    mean_probability: float
    ece: float

    @property
    def gap(self) -> float:
        """``mean_probability - frequency``: positive if the class is predicted too often on average."""
        return self.mean_probability - self.frequency


@dataclass(frozen=True)
class GroupCalibration:
    """Accuracy and calibration of the predicted class in one group of samples.

    Attributes:
        num_samples: Samples in the group, those of weight 0 left out.
        accuracy: Share of correct predictions, by weight if there are weights, as all that follows.
        confidence: Mean confidence.
        ece: ECE within the group.
        o_ece: Its part from bins that are too confident.
        u_ece: Its part from the others.
    """

    num_samples: int
    accuracy: float
    confidence: float
    ece: float
    o_ece: float
    u_ece: float

    @property
    def gap(self) -> float:
        """``confidence - accuracy``: positive if the model is overconfident."""
        return self.confidence - self.accuracy


def calibration_by_class(
    predictions: Predictions, *, num_bins: int = 15
) -> dict[int, ClassCalibration]:
    """Measure the calibration of each class's probability against the class's frequency.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1.

    Returns:
        One entry for each of the ``C`` classes, in their order, those without labels included.

    Raises:
        InputError: If ``num_bins`` is below 1.

    Note:
        All samples count for every class, so these numbers are as noisy as ``N`` makes them. For the calibration of
        what is predicted as a class, group by that: ``calibration_by_group(predictions, predictions.predicted)``.

    Example:
        >>> from fedlas import Predictions
        >>> table = calibration_by_class(Predictions([[0.0, 0.0], [0.0, 0.0]], [1, 1]))
        >>> table[1].frequency, table[1].mean_probability, table[1].ece
        (1.0, 0.5, 0.5)
    """
    predictions = require_predictions(predictions)
    sums = ClasswiseSums(predictions, check_count("num_bins", num_bins))
    scan(predictions, [sums])
    return calibration_from_sums(sums)


def calibration_from_sums(sums: ClasswiseSums) -> dict[int, ClassCalibration]:
    """Return the calibration of each class from accumulated sums."""
    table = sums.table()
    labels, probs = (
        each.reshape(sums.shape).sum(axis=1) / table.num_samples
        for each in (table.labels, table.probs)
    )
    columns = (sums.num_labels.long(), labels, probs, class_errors(table))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {label: ClassCalibration(label, *row) for label, row in enumerate(rows)}


def calibration_by_group(
    predictions: Predictions | TopLabel,
    groups: Tensor | np.ndarray[Any, Any] | Sequence[Any],
    *,
    num_bins: int = 15,
) -> dict[Any, GroupCalibration]:
    """Measure accuracy and calibration of the predicted class in each group of samples.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``.
        groups: Group of each sample ``(N,)``: integers, strings or anything else NumPy can sort, such as a hospital, a
            camera, ``predictions.predicted`` or ``predictions.target``. Floats are measurements and no groups.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1; the same for all groups.

    Returns:
        One entry for each group that occurs, sorted by group.

    Raises:
        InputError: If there is not one group for each sample, groups are floats or cannot be sorted, or ``num_bins`` is
            below 1.

    Note:
        Small groups have a large ECE by chance alone: compare it between groups of like size, or with the noise floor;
        ``gap`` has no such bias. A calibrated model is calibrated in groups made of its inputs only if it knows what
        distinguishes them, and never in groups made of the label: it cannot know that.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0], [9.0, 0.0], [9.0, 0.0]], [1, 0, 0])
        >>> table = calibration_by_group(p, ["hard", "easy", "easy"])
        >>> list(table), table["hard"].gap, table["hard"].num_samples
        (['easy', 'hard'], 0.5, 1)
    """
    import torch

    predictions = require_top_label(predictions)
    check_count("num_bins", num_bins)
    names, number = factorize_groups(predictions, groups)
    sums = GroupSums(len(names), num_bins)
    scan(predictions, [GroupSumsFiller(torch.from_numpy(number), sums)])
    return sums.by_name(names)


def factorize_groups(
    predictions: AnyPredictions, groups: object
) -> tuple[list[Any], NDArray[np.int64]]:
    """Return sorted group names, and each sample's group as an integer code ``(N,)``."""
    if is_tensor(groups):
        check_dense("groups", groups)
        groups = groups.detach().cpu()
    try:
        labels = to_label_array(groups)
    except (
        TypeError,
        ValueError,
    ):  # a float type of PyTorch that has no array, or rows of unequal length
        labels = np.zeros(())
    if labels.dtype.kind in "fc":
        raise InputError(
            "groups must be labels, such as integers or strings",
            describe(groups),
            "Cut measurements into ranges first, e.g. numpy.digitize(groups, edges); cast labels to integers.",
        )
    if labels.shape != (predictions.num_samples,):
        raise InputError(
            f"groups must have shape ({predictions.num_samples},), one per sample",
            describe(labels),
            "Pass the group of every sample, in the order of the logits.",
        )
    try:
        names, number = np.unique(labels, return_inverse=True)
    except TypeError as error:  # objects without an order
        raise InputError(
            "groups must be sortable",
            str(error),
            "Pass all groups as integers, or all as strings.",
        ) from error
    return names.tolist(), number


def check_group_sizes(names: Any, samples: int) -> None:
    """Raise InputError if groups hold fewer than two samples on average."""
    if len(names) > max(2, samples // 2):
        raise InputError(
            "groups must hold at least two samples on average",
            f"{len(names):,} groups of {samples:,} samples",
            "Cut measurements into ranges, and do not pass a unique name per sample.",
        )


def to_label_array(groups: object) -> NDArray[Any]:
    """Return groups as an array, with strings as objects, since NumPy would pad them to the longest."""
    texts = isinstance(groups, list | tuple) and all(isinstance(name, str) for name in groups)
    return np.array(groups, dtype=object) if texts else np.asarray(groups)


class GroupSums:
    """Sums over equal-width bins of confidence, for each group of samples."""

    def __init__(self, num_groups: int, num_bins: int) -> None:
        self.shape = (num_groups, num_bins)
        self._cells = CellSums(num_groups * num_bins, "right", "confidence", "rows")

    def add(self, chunk: Chunk, codes: Tensor) -> None:
        """Add the rows of ``chunk``, with group codes ``(n,)`` int64."""
        weights = chunk.weights
        cell = codes * self.shape[1] + equal_width_index(chunk.confidence, self.shape[1])
        terms = (weights * chunk.correct, weights * chunk.confidence, (weights > 0).double())
        self._cells.add(cell, weights, *terms)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums ``(4, G B)``."""
        return {"sums": self._cells.values}

    def is_consistent(self, samples: float, *, weighted: bool) -> bool:
        """Return whether the sums are consistent with this number of samples."""
        return self._cells.is_consistent(samples, weighted=weighted)

    def table(self) -> list[GroupCalibration]:
        """Return the calibration of every group, in the order of the codes."""
        count, right, confidence, rows = self._cells.arrays().reshape(4, *self.shape)
        gaps = confidence - right
        parts = (right, confidence, np.abs(gaps), np.maximum(gaps, 0.0), np.maximum(-gaps, 0.0))
        samples = nonzero(count.sum(axis=1))
        means = np.stack([part.sum(axis=1) / samples for part in parts], axis=1).tolist()
        numbers = rows.sum(axis=1).astype(np.int64).tolist()
        return [GroupCalibration(number, *row) for number, row in zip(numbers, means, strict=True)]

    def by_name(self, names: Sequence[Any]) -> dict[Any, GroupCalibration]:
        """Return the calibration of each group that has samples, by name."""
        rows = zip(names, self.table(), strict=True)
        return {name: each for name, each in rows if each.num_samples}


class GroupSumsFiller:
    """Adds chunks of rows to :class:`GroupSums`, with group codes ``(N,)`` in the order of the rows."""

    def __init__(self, codes: Tensor, sums: GroupSums) -> None:
        self._sums = sums
        self._group = codes

    def update(self, chunk: Chunk) -> None:
        """Add the rows of ``chunk``."""
        rows = len(chunk.confidence)
        self._sums.add(chunk, self._group[:rows])
        self._group = self._group[rows:]


class StreamingGroups(Accumulator):
    """Streaming version of :func:`~fedlas.metrics.calibration_by_group`; results agree within 1e-12.

    Args:
        groups: Every group there can be, hashable, such as ``["site A", "site B"]`` or ``range(10)``; all processes
            must name the same ones in the same order.
        num_bins: Number of bins of equal width over ``[0, 1]``, at least 1; the same for all groups.
        weighted: Whether every sample comes with a weight, see :class:`~fedlas.metrics.StreamingMetrics`.

    Raises:
        InputError: If there is no group, one is there twice, or ``num_bins`` is below 1.

    State:
        ``O(G B)`` float64 sums, as there. Their names hold a digest of the groups' ``repr`` and the bins, so that a
        state of others is not taken for one of these.

    Example:
        >>> import torch
        >>> streaming = StreamingGroups(["easy", "hard"])
        >>> streaming.update(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([1, 0]), groups=["hard", "easy"])
        >>> streaming.compute()["hard"].gap
        0.5
    """

    @check_argument_types
    def __init__(
        self, groups: Sequence[Hashable], *, num_bins: int = 15, weighted: bool = False
    ) -> None:
        super().__init__(weighted=weighted)
        self.groups = _to_list(groups)
        self.num_bins = check_count("num_bins", num_bins)
        self._number: dict[Hashable, int] = {}
        with self._catch_unhashable():
            self._number.update((name, number) for number, name in enumerate(self.groups))
        if not self.groups or len(self._number) < len(self.groups):
            raise InputError(
                "groups must be a non-empty list of unique names",
                f"{len(self.groups)} names, {len(self._number)} of them unique",
                "Pass each group name once.",
            )
        self._by_group = GroupSums(len(self.groups), num_bins)
        mark = sha256(repr((self.groups, num_bins)).encode()).hexdigest()[:12]
        self._register_sums(self._by_group, "{}." + mark)

    def update(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        groups: Tensor | np.ndarray[Any, Any] | Sequence[Hashable],
        weights: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            logits: ``(N, C)``, finite, on any device.
            target: Labels ``(N,)``.
            groups: The group of each sample ``(N,)``, each one of those it was made with.
            weights: As in :meth:`~fedlas.metrics.StreamingMetrics.update`.

        Raises:
            InputError: As :meth:`~fedlas.metrics.StreamingMetrics.update`, or if a group is unknown or there is not one
                a sample.
        """
        batch = self._make_batch(logits, target, weights)
        number = self._group_codes(groups, batch.num_samples)
        self._accumulate(batch, [GroupSumsFiller(number, self._by_group)])

    def compute(self) -> dict[Any, GroupCalibration]:
        """Return the calibration of each group that has samples, in the order of the constructor's names.

        Raises:
            InputError: If there are no samples.
        """
        self._require_samples()
        return self._by_group.by_name(self.groups)

    def _group_codes(self, groups: object, samples: int) -> Tensor:
        import torch

        names = _to_list(groups)
        if len(names) != samples or getattr(groups, "ndim", 1) != 1:
            raise InputError(
                f"groups must have shape ({samples},), one per sample",
                describe(groups),
                "Pass the group of every sample, in the order of the logits.",
            )
        with self._catch_unhashable():
            numbers = [self._number.get(name, -1) for name in names]
        if -1 in numbers:
            expected = f"groups must be among {', '.join(map(repr, self.groups[:10]))}"
            more = f" and {len(self.groups) - 10} more" if len(self.groups) > 10 else ""
            raise InputError(
                expected + more,
                repr(names[numbers.index(-1)]),
                "Pass all possible groups to the constructor.",
            )
        return torch.tensor(numbers, dtype=torch.int64, device="cpu")

    @contextmanager
    def _catch_unhashable(self) -> Iterator[None]:
        try:
            yield
        except TypeError as error:
            raise InputError(
                "every group must be hashable", str(error), "Pass strings, numbers or tuples."
            ) from error

    @property
    def _arguments(self) -> dict[str, Any]:
        return {"groups": self.groups, "num_bins": self.num_bins}


def _to_list(groups: object) -> list[Any]:
    """Return a list of Python objects, which hash and compare as the group names do."""
    from torch import Tensor

    if isinstance(groups, Tensor):
        check_dense("groups", groups)
    names = groups.tolist() if isinstance(groups, Tensor | np.ndarray) else groups
    if isinstance(names, Iterable):
        return list(names)
    raise InputError(
        "groups must be a sequence", describe(groups), "Pass one name per group or sample."
    )
