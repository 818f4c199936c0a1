"""Multicalibration: confidence of the predicted class that matches the accuracy in each group, not only overall."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fedlas._core.check import InputError, check_choice, check_count, check_number, describe
from fedlas._core.text import NO_ACTION
from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor
from fedlas.calibrators._fit.confidence_cells import (
    Cells,
    Update,
    select_update_count,
    set_top_class_log_odds,
    top_class_log_odds,
)
from fedlas.calibrators._fit.fit_warnings import attach_warnings, warning_if
from fedlas.calibrators._fit.folds import make_folds
from fedlas.calibrators._fit.state import require_fitted, require_valid
from fedlas.calibrators._fit.temperature_search import BestTemperature, nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions
from fedlas.resample.folds import canonical_order

if TYPE_CHECKING:
    from fedlas.calibrators.layer import CalibrationLayer

__all__ = ["Multicalibration"]

Groups = Literal["predicted", "all"]
Start = Literal["temperature", "none"]

_MAX_UPDATES = 500


class Corrections(BufferModule):
    """Fitted map of multicalibration: a temperature, then corrections of the confidence in order.

    Attributes:
        temperature: The divisor of the logits ``()``.
        num_groups: Number of groups ``()``.
        num_levels: Number of confidence levels ``()``.
        cells: Group and level of each correction ``(U, 2)``.
        shifts: Shifts of the log-odds ``(U,)``.
    """

    shapes: ClassVar = {
        "temperature": "",
        "num_groups": "",
        "num_levels": "",
        "cells": "UB",
        "shifts": "U",
    }

    @property
    def updates(self) -> list[Update]:
        """The corrections, in the order in which they are applied."""
        pairs = zip(self.cells.tolist(), self.shifts.tolist(), strict=True)
        return [Update(group, level, shift) for (group, level), shift in pairs]

    def __init__(self, **numbers: Tensor) -> None:
        if not numbers["cells"].numel():  # nested lists without numbers have neither shape nor type
            numbers["cells"] = torch.zeros(0, 2, dtype=torch.int64, device="cpu")
        super().__init__(**numbers)

    def forward(self, rows: Tensor, groups: Tensor | None = None) -> Tensor:
        """Return calibrated logits for logits ``(n, C)`` and group membership ``(n, G)``; None: predicted classes."""
        groups = predicted_groups(rows, int(self.num_groups)) if groups is None else groups
        cells = Cells(int(self.num_levels))
        members = groups.nonzero()
        temperature = float(self.temperature)
        before = top_class_log_odds(rows, temperature)
        after = before
        for update in self.updates:
            after = cells.apply(after, members, update)
        # Only rows whose confidence moves are rewritten, so that the others keep their scaled logits exactly.
        result = rows / temperature
        changed = (after != before).nonzero().squeeze(1)
        if len(changed):
            result[changed] = set_top_class_log_odds(
                result[changed], before[changed], after[changed]
            )
        return result

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a temperature, group or level out of range."""
        super().check(classes)
        require_valid(self.temperature > 0, "temperature must be above 0")
        limits = torch.stack([self.num_groups, self.num_levels])
        fits = limits.dtype == self.cells.dtype == torch.int64 and bool((limits > 0).all())
        within = bool(((self.cells >= 0) & (self.cells < limits)).all())
        require_valid(
            fits and self.cells.shape[1] == 2 and within,
            "cells must be indices of groups and levels",
        )


def predicted_groups(rows: Tensor, num_groups: int) -> Tensor:
    """Return group membership ``(n, num_groups)`` for logits ``(n, C)``: all rows, then each predicted class."""
    everyone = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
    if num_groups == 1:
        return everyone
    return torch.cat([everyone, one_hot(rows.argmax(dim=1), rows.shape[1]).bool()], dim=1)


@CALIBRATORS.register(
    "multicalibration",
    paper="Multicalibration: Calibration for the (Computationally-Identifiable) Masses",
    year=2018,
    url="https://arxiv.org/abs/1711.08513",
)
class Multicalibration(Calibrator):
    """Corrects the confidence of the predicted class until it matches the accuracy in each group and confidence level.

    A cell is a group of samples whose confidences lie in one of ``num_levels`` levels. As long as the mean confidence
    of a cell of at least ``min_size`` samples differs from its accuracy by more than ``alpha``, the confidences of the
    worst cell are shifted to its accuracy. ``transform`` replays these corrections in order. The arg-max is kept.

    Args:
        groups: ``"predicted"``: all samples, and those of each predicted class; ``"all"``: all samples only; or a
            function from :class:`~fedlas.Predictions` to ``(N, G)`` bool, whose groups may overlap. It sees logits and
            features, but no labels. A calibrator with a function cannot be saved.
        alpha: Tolerated error of a cell, in (0, 1].
        num_levels: Levels of equal width on [0, 1], at least 1.
        min_size: Least size of a cell, at least 1.
        num_folds: Folds of the cross-validation that stops the corrections, at least 2; None: no early stop.
        start: ``"temperature"``: corrections start from temperature scaling; ``"none"``: from the given predictions.

    Raises:
        InputError: For an option out of range, or groups that are not ``(N, G)`` bool.

    Note:
        With ``num_folds=None`` no cell of the validation set ends with an error above ``alpha`` (unless 500 corrections
        do not suffice, which gives a warning). For small cells that says little about new samples. With folds, only as
        many corrections are made as lower the log-loss of held-out samples, and none if the gain is within its standard
        error, so cells may stay uncorrected for lack of evidence.

        The paper corrects binary predictions by adding to the probability, and finally replaces it by the mean of its
        level. Here the log-odds are shifted, which cannot leave (0, 1), and differences within a level stay. A cell
        that is always right, or never, counts as half a sample off that. Where a confidence rises, the other classes
        share the rest in proportion. Where it falls they would overtake the predicted class that way: there all logits
        are divided by a temperature instead. A confidence does not fall below ``1 / C``, so a cell that is right less
        often keeps an error.

        The paper starts from any predictor. Here temperature scaling comes first, because corrections level by level
        would remove an error that all samples share in coarse steps only.

        Samples with equal logits are in one fold, so copies of a sample are no evidence for a correction.

        Warns (:class:`CalibrationWarning`) as :class:`TemperatureScaling` does, when no cell is large enough, when no
        correction is made, and when the fit changes nothing.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(6000, 3, generator=draw, dtype=torch.float64)
        >>> right = torch.where(logits.argmax(1, keepdim=True) == 0, 0.2, 1.0) * logits  # too sure of class 0
        >>> val = Predictions(logits, torch.multinomial(right.softmax(1), 1, generator=draw).squeeze(1))
        >>> fair = Multicalibration().fit(val).transform(val)
        >>> zero = val.predicted == 0
        >>> [round(float(p[zero].mean()), 2) for p in (val.confidence, fair.confidence, val.correct)]
        [0.6, 0.4, 0.39]

    Source:
        Hébert-Johnson, Kim, Reingold and Rothblum 2018 (ICML), section 3 and algorithm 3.2.
    """

    map_type = Corrections
    keeps_argmax = True
    takes_weights = False
    per_class = False

    def __init__(
        self,
        groups: Groups | Callable[[Predictions], Tensor] = "predicted",
        alpha: float = 0.02,
        num_levels: int = 10,
        min_size: int = 50,
        num_folds: int | None = 5,
        start: Start = "temperature",
    ) -> None:
        # A class is callable too, and makes no groups.
        is_function = callable(groups) and not isinstance(groups, type)
        self.groups = groups if is_function else check_choice("groups", groups, get_args(Groups))
        self.alpha = check_number("alpha", alpha, low=0, high=1, low_open=True)
        self.num_levels = check_count("num_levels", num_levels)
        self.min_size = check_count("min_size", min_size)
        self.num_folds = None if num_folds is None else check_count("num_folds", num_folds, low=2)
        self.start = check_choice("start", start, get_args(Start))

    @property
    def updates(self) -> list[Update]:
        """The corrections, in the order in which they are applied.

        Raises:
            InputError: Before ``fit``.
        """
        updates: list[Update] = self.map.updates
        return updates

    @property
    def temperature(self) -> float:
        """The temperature that divides the logits before the corrections; 1 with ``start="none"``.

        Raises:
            InputError: Before ``fit``.
        """
        return float(self.map.temperature)

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Corrections:
        """Fit the temperature and the corrections to ``val``."""
        groups = self._group_membership(val)
        # In one order, because rounding of sums, and so the worst cell, may depend on it.
        order = canonical_order(val.tensors().logits, val.tensors().target)
        ordered = Predictions(val.tensors().logits[order], val.tensors().target[order])
        first = nll_temperature(ordered) if self.start == "temperature" else BestTemperature(1.0)
        temperature = first.value

        log_odds = top_class_log_odds(val.tensors().logits, temperature)[order]
        correct = val.tensors().correct.double()[order]
        groups = groups[order]
        cells = self._make_cells()
        max_updates = _MAX_UPDATES if val.num_classes > 1 else 0
        if self.num_folds is not None and max_updates:
            clusters = None if val.clusters is None else val.clusters[order]
            folds = make_folds(val, self.num_folds).rows(order)
            # A single fold leaves nothing to hold out.
            max_updates = (
                select_update_count(cells, log_odds, correct, groups, folds, max_updates, clusters)
                if folds.count
                else 0
            )
        updates = list(cells.path(log_odds, correct, groups.nonzero(), max_updates))

        too_many = (
            f"cells still have errors above alpha after {_MAX_UPDATES} corrections. "
            "Choose a larger alpha or min_size."
        )
        numbers = {"num_groups": groups.shape[1], "num_levels": self.num_levels}
        row_map = Corrections(
            temperature=float64_tensor(temperature),
            cells=torch.tensor(
                [[each.group, each.level] for each in updates], dtype=torch.int64, device="cpu"
            ),
            shifts=float64_tensor([each.shift for each in updates]),
            **{name: torch.tensor(number, device="cpu") for name, number in numbers.items()},
        )
        return attach_warnings(
            row_map,
            first.warning,
            self._no_update_warning(groups, updates),
            warning_if(len(updates) == _MAX_UPDATES, too_many),
        )

    def _no_update_warning(self, groups: Tensor, updates: list[Update]) -> str | None:
        """Return a warning if no correction was made, with the reason; else None."""
        if updates:
            return None
        largest = int(groups.sum(dim=0).max())
        if largest < self.min_size:
            return f"no group has {self.min_size} samples (the largest has {largest}), so no cell can be corrected."
        suffix = "; the result is temperature scaling" if self.start == "temperature" else ""
        return (
            f"no cell has an error above alpha that held-out samples confirm{suffix}. {NO_ACTION}"
        )

    def _group_membership(self, predictions: Predictions) -> Tensor:
        """Return group membership ``(N, G)``, bool on the CPU; groups may not depend on labels."""
        if not callable(self.groups):
            most = 1 if self.groups == "all" else 1 + predictions.num_classes
            return predicted_groups(predictions.tensors().scores, most).cpu()
        groups: Any = self.groups(predictions.without_target())
        if (
            not isinstance(groups, Tensor)
            or groups.dtype != torch.bool
            or groups.ndim != 2
            or len(groups) != predictions.num_samples
            or groups.shape[1] == 0
        ):
            raise InputError(
                f"groups must return a bool tensor of shape ({predictions.num_samples}, G)",
                describe(groups),
                "Return one row per sample and one column per group.",
            )
        return groups.cpu()

    def _side_inputs(self, predictions: Predictions) -> Tensor | None:
        if not callable(self.groups):
            return None
        groups = self._group_membership(predictions)
        if groups.shape[1] != int(self.map.num_groups):
            raise InputError(
                f"groups must return as many groups as in the fit, {int(self.map.num_groups)}",
                groups.shape[1],
                "Return the same groups for all predictions, including empty ones.",
            )
        return groups

    def module(self) -> CalibrationLayer:
        """Raise InputError: multicalibration cannot be a layer, since the corrections depend on the sample.

        Raises:
            InputError: Always.
        """
        require_fitted(self._map)
        raise InputError(
            "module() requires a calibrator whose map depends on logits and features alone",
            f"{type(self).__name__}, which also depends on groups",
            "Calibrate predictions with transform, or choose another calibrator, such as temperature or vector.",
        )

    def _make_cells(self) -> Cells:
        return Cells(self.num_levels, self.alpha, self.min_size)
