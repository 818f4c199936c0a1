"""Confusion calibration: a confusion matrix from predicted classes to labels, fitted by expectation maximization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fedlas._core.check import check_choice, check_number
from fedlas.calibrators._fit.buffers import zeros
from fedlas.calibrators._fit.fit_warnings import attach_warnings, convergence_warning
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights
from fedlas.calibrators._fit.softmax_regression import AffineMap, fit_bias_corrected_temperature
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.affine import temperature_start
from fedlas.calibrators.base import CALIBRATORS, Calibrator

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["ConfusionCalibration"]

Base = Literal["bias-corrected", "temperature", "none"]

_STEPS = 30
"""Steps of expectation maximization; twice as many changed no probability of held-out samples by a percent."""
_MAX_CANDIDATES = 64
"""Most candidate classes per sample: the most probable ones."""
_PSEUDO_COUNT = 0.01
"""Pseudo-count that is added to each class in the label shares."""
_MIN_ENTRY = 1e-5
"""Smaller entries are merged into the part of the row that is spread over all labels."""
_MAX_DENSE_CLASSES = 2048
"""Most classes for which the matrix is stored densely, 32 MiB."""


class ConfusionMap(nn.Module):
    """``log(softmax(base(z)) T)`` with ``T[k, y] = spread_k share_y + S[k, y]``, where ``S`` is sparse.

    Attributes:
        base: An affine map of logits.
        share: Shares of the labels ``(C,)``.
        spread: Weight in each row of ``T`` that is spread over all labels by their shares ``(C,)``.
        source: Rows of the entries of ``S``, ``(M,)`` int64.
        label: Their columns ``(M,)`` int64.
        value: Their values ``(M,)``.
    """

    share: Tensor
    spread: Tensor
    source: Tensor
    label: Tensor
    value: Tensor
    parts: ClassVar = {"base": AffineMap}

    def __init__(
        self,
        base: AffineMap,
        share: Tensor,
        spread: Tensor,
        source: Tensor,
        label: Tensor,
        value: Tensor,
    ) -> None:
        super().__init__()
        self.base = base
        numbers = {"share": share, "spread": spread, "source": source, "label": label}
        for name, number in {**numbers, "value": value}.items():
            self.register_buffer(name, number)
        self._classes = len(share)
        if self._classes <= _MAX_DENSE_CLASSES:
            self.register_buffer("_matrix", self.matrix(), persistent=False)

    def matrix(self) -> Tensor:
        """Return ``T (C, C)``: row k is the distribution of labels given that the model predicts class k."""
        entries = self.source * self._classes + self.label
        flat = self.value.new_zeros(self._classes**2).index_add(0, entries, self.value)
        return self.spread.unsqueeze(1) * self.share + flat.view(self._classes, -1)

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``."""
        probs = self.base(rows).softmax(dim=1)
        if self._classes <= _MAX_DENSE_CLASSES:
            return torch.log(probs @ self._matrix)
        parts = probs.index_select(1, self.source) * self.value
        common = (probs @ self.spread).unsqueeze(1) * self.share
        return torch.log(common.index_add(1, self.label, parts))

    def check(self, classes: int) -> None:
        """Raise ValueError unless the buffers form a matrix whose rows are probability distributions."""
        for name in ("share", "spread"):
            numbers = getattr(self, name)
            fits = numbers.shape == (classes,) and bool((numbers > 0).all())
            require_valid(fits, f"{name} must hold {classes} numbers above 0")
        total = self.spread + zeros(classes).index_add(0, self.source, self.value)
        require_valid(bool((self.value >= 0).all()), "value must be at least 0")
        require_valid(bool(((total - 1).abs() < 1e-6).all()), "rows of the matrix must sum to 1")
        require_valid(abs(float(self.share.sum()) - 1) < 1e-6, "share must sum to 1")


@CALIBRATORS.register(
    "confusion",
    paper="Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm",
    year=1979,
    url="https://doi.org/10.2307/2346806",
)
class ConfusionCalibration(Calibrator):
    """Corrects probabilities by a confusion matrix of labels given the predicted class: ``p'(y) = sum_k p(k) T[k, y]``.

    ``T`` has a row of probabilities for each class of the model. Expectation maximization on validation samples raises
    the posterior of ``T`` under a Dirichlet prior: each row counts ``strength`` samples in which class k was right, and
    one sample whose label is drawn by the shares of the labels. This repairs what no map of logits repairs: a model
    that calls one class what the labels call another, or cuts classes finer than the labels do.

    Args:
        strength: Prior strength: pseudo-samples in which each class is predicted correctly, above 0.
        base: Calibrator that is applied first. ``"bias-corrected"``: temperature scaling with an offset for
            each class. ``"temperature"``, or ``"none"``.

    Attributes:
        confusion: ``T (C, C)``, float64; rows sum to 1.

    Raises:
        InputError: For another base, or a strength that is not above 0.

    Note:
        The 64 most probable classes of a sample are candidates. The others together are taken to mean every label by
        its share; with up to 64 classes there are none. Entries below 1e-5 join what a row spreads over all labels, so
        that a file holds few more numbers than pairs of class and label that occur together. The predicted class can
        change. A label without a validation sample keeps its own class, as far as the prior reaches. Time of a fit: 30
        passes over 64 numbers a sample. Memory: the matrix, up to 2,048 classes.

        Warns (:class:`CalibrationWarning`) when a class has no sample, and when the fit changes nothing.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions(90 * [[2.0, 0.0, 0.0]] + 90 * [[0.0, 2.0, 0.0]] + 90 * [[0.0, 0.0, 2.0]],
        ...     90 * [0] + 90 * [1] + 80 * [1] + 10 * [2])  # most labels call class 2 class 1
        >>> calibrated = ConfusionCalibration(base="none").fit(val).transform(val)
        >>> [round(float(p), 2) for p in calibrated.probs[180]]
        [0.11, 0.73, 0.16]

    Source:
        Dawid and Skene 1979, section 3, for one observer whose answers are probabilities; the prior is ours.
    """

    map_type = ConfusionMap
    enough = (100, 20)

    def __init__(self, strength: float = 10.0, base: Base = "bias-corrected") -> None:
        self.strength = check_number("strength", strength, low=0, low_open=True)
        self.base = check_choice("base", base, get_args(Base))

    @property
    def confusion(self) -> Tensor:
        """``T (C, C)``, float64; row k is the distribution of labels given that the model predicts class k.

        Raises:
            InputError: Before ``fit``.
        """
        matrix: Tensor = self.map.matrix()
        return matrix

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> ConfusionMap:
        """Fit the confusion matrix to ``val``."""
        base, warning = _fit_base(val, self.base)
        classes = val.num_classes
        target = val.tensors().target
        weights = sample_weights(val)
        share = torch.bincount(target, weights, minlength=classes) + _PSEUDO_COUNT
        share = share / share.sum()

        # The most probable classes of each sample (N, J).
        tops = [
            base(rows).softmax(dim=1).topk(min(_MAX_CANDIDATES, classes), dim=1)
            for _, rows in iter_float64_rows(val.tensors().logits)
        ]
        probs = torch.cat([top.values for top in tops])
        source = torch.cat([top.indices for top in tops])
        pair, entry = torch.unique(source * classes + target.unsqueeze(1), return_inverse=True)
        row = pair // classes
        label = pair % classes
        prior = share[label] + self.strength * (row == label)

        others = (1 - probs.sum(dim=1)).clamp(min=0) * share[target]

        # EM counts of class-label pairs; pairs that no sample has are determined by the prior alone.
        count = zeros(len(pair))
        for _ in range(_STEPS):
            total = zeros(classes).index_add(0, row, count) + self.strength + 1
            joint = probs * ((count + prior) / total[row])[entry]
            joint *= (weights / (joint.sum(dim=1) + others)).unsqueeze(1)
            count = zeros(len(pair)).index_add(0, entry.flatten(), joint.flatten())
        return attach_warnings(_build_map(base, share, self.strength, (row, label, count)), warning)


def _build_map(
    base: AffineMap, share: Tensor, strength: float, counts: tuple[Tensor, Tensor, Tensor]
) -> ConfusionMap:
    """Return the map for EM counts ``(row, label, count)`` of class-label pairs, and the prior."""
    row, label, count = counts
    classes = len(share)
    total = zeros(classes).index_add(0, row, count) + strength + 1
    index = torch.arange(classes, device="cpu")
    large = count / total[row] >= _MIN_ENTRY
    row = torch.cat([index, row[large]])
    label = torch.cat([index, label[large]])
    value = torch.cat([strength / total, (count / total[counts[0]])[large]])
    spread = 1 - zeros(classes).index_add(0, row, value)
    return ConfusionMap(base, share, spread, row, label, value)


def _fit_base(val: Predictions, base: Base) -> tuple[AffineMap, str | None]:
    """Fit the base calibrator; return its map, and a warning or None."""
    one = zeros(val.num_classes) + 1
    if base == "none" or val.num_classes == 1:
        return AffineMap(one, 0 * one), None
    start = temperature_start(val)
    if base == "temperature":
        return AffineMap(one * start.scale, 0 * one), start.warning
    affine = fit_bias_corrected_temperature(
        val.tensors().logits,
        val.tensors().target,
        val.tensors().weights,
        scale=start.scale,
        width=start.width,
        prior=1.0,
    )
    return affine, start.warning or convergence_warning(affine.converged)
