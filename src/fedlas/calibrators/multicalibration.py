"""Multicalibration: the confidence of the predicted class is right on average in each group, not only overall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fedlas._core.check import InputError, check_choice, check_count, check_number, describe
from fedlas.calibrators._fit.confidence_cells import (
    Cells,
    Update,
    held_out_length,
    predicted_log_odds,
    with_log_odds,
)
from fedlas.calibrators._fit.doubts import joined, unchanged, when
from fedlas.calibrators._fit.folds import canonical_order, stratified_folds
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators._fit.rowwise import double_rows
from fedlas.calibrators._fit.temperature_search import BestTemperature, nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["Multicalibration"]

Groups = Literal["predicted", "all"]
Start = Literal["temperature", "none"]

_MOST_UPDATES = 500


@CALIBRATORS.register(
    "multicalibration",
    title="Multicalibration",
    paper="Multicalibration: Calibration for the (Computationally-Identifiable) Masses",
    year=2018,
    url="https://arxiv.org/abs/1711.08513",
)
class Multicalibration(Calibrator):
    """Corrects the confidence of the predicted class until it is right on average in each cell of groups and levels.

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
        >>> [round(float(p[zero].double().mean()), 2) for p in (val.confidence, fair.confidence, val.correct)]
        [0.6, 0.4, 0.39]

    Source:
        Hébert-Johnson, Kim, Reingold and Rothblum 2018 (ICML), section 3 and algorithm 3.2.
    """

    keeps_argmax = True

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
        self._updates: list[Update] | None = None
        self._num_groups = 0
        self._temperature = 1.0

    @property
    def updates(self) -> list[Update]:
        """The corrections, in order.

        Raises:
            InputError: Before ``fit``.
        """
        return list(fitted(self._updates))

    @property
    def temperature(self) -> float:
        """The divisor of the logits before the corrections; 1 with ``start="none"``.

        Raises:
            InputError: Before ``fit``.
        """
        fitted(self._updates)
        return self._temperature

    def _fit(self, val: Predictions) -> str | None:
        groups = self._membership(val)
        # In one order, because rounding of sums, and so the worst cell, may depend on it.
        order = canonical_order(val.logits, val.target)
        ordered = Predictions(val.logits.cpu()[order], val.target.cpu()[order])
        start = nll_temperature(ordered) if self.start == "temperature" else BestTemperature(1.0)
        temperature = start.value

        log_odds = predicted_log_odds(val.logits, temperature)[order]
        correct = val.correct.cpu().double()[order]
        groups = groups[order]
        cells = self._cells()
        most = _MOST_UPDATES if val.num_classes > 1 else 0
        if self.num_folds is not None and most:
            folds = stratified_folds(val.logits, val.target, self.num_folds)[order]
            # A single fold leaves nothing to hold out.
            most = (
                held_out_length(cells, log_odds, correct, groups, folds, most)
                if int(folds.max())
                else 0
            )
        updates = list(cells.path(log_odds, correct, groups.nonzero(), most))

        self._num_groups = groups.shape[1]
        self._temperature = temperature
        self._updates = updates
        too_many = f"{_MOST_UPDATES} corrections do not suffice: cells are still off. Choose a larger alpha or min_size."
        return joined(
            start.doubt,
            self._no_update(groups, updates),
            when(len(updates) == _MOST_UPDATES, too_many),
            unchanged(val, self._transform_predictions(val)),
        )

    def _no_update(self, groups: Tensor, updates: list[Update]) -> str | None:
        if updates:
            return None
        largest = int(groups.sum(dim=0).max())
        if largest < self.min_size:
            return f"no group has {self.min_size} samples (the largest {largest}), so there is no cell to correct."
        rest = ", so this is temperature scaling" if self.start == "temperature" else ""
        return f"no cell is off by more than alpha, or than held-out samples confirm{rest}. Nothing need be done."

    def _membership(self, predictions: Predictions) -> Tensor:
        """Return the groups of each sample, ``(N, G)`` bool on the CPU; they are assigned without the labels."""
        if callable(self.groups):
            groups = self.groups(predictions.without_target())
        else:
            groups = torch.ones(
                predictions.num_samples, 1, dtype=torch.bool, device=predictions.logits.device
            )
            if self.groups == "predicted":
                classes = one_hot(predictions.predicted, predictions.num_classes).bool()
                groups = torch.cat([groups, classes], dim=1)
        if (
            not isinstance(groups, Tensor)
            or groups.dtype != torch.bool
            or groups.ndim != 2
            or len(groups) != predictions.num_samples
            or groups.shape[1] == 0
        ):
            raise InputError(
                f"groups must be a bool tensor ({predictions.num_samples}, G)",
                describe(groups),
                "Return a row for each sample and a column for each group.",
            )
        return groups.cpu()

    def _transform_predictions(self, test: Predictions) -> Tensor:
        updates = fitted(self._updates)
        groups = self._membership(test)
        if groups.shape[1] != self._num_groups:
            raise InputError(
                f"groups must be as many as in the fit, {self._num_groups}",
                groups.shape[1],
                "Return the same groups for all predictions, including empty ones.",
            )
        cells = self._cells()
        members = groups.nonzero()
        before = predicted_log_odds(test.logits, self._temperature)
        after = before
        for update in updates:
            after = cells.apply(after, members, update)
        result = test.logits / self._temperature
        for part, rows in double_rows(test.logits):
            # Only rows whose confidence moves are rewritten, so that the others keep their scaled logits exactly.
            moved = (after[part] != before[part]).nonzero().squeeze(1)
            if len(moved):
                corrected = with_log_odds(
                    rows[moved] / self._temperature, before[part][moved], after[part][moved]
                )
                result[part.start + moved.to(result.device)] = corrected.to(result)
        return result

    def _cells(self) -> Cells:
        return Cells(self.num_levels, self.alpha, self.min_size)

    def _options(self) -> dict[str, Any]:
        if callable(self.groups):
            raise InputError(
                f"groups must have a name ({', '.join(get_args(Groups))})",
                "a function, which a file cannot hold",
                "Keep the calibrator in memory, or fit it again with the same function.",
            )
        return super()._options()

    def _state(self) -> dict[str, Any]:
        updates = [[update.group, update.level, update.shift] for update in self.updates]
        return {
            "temperature": self._temperature,
            "num_groups": self._num_groups,
            "updates": updates,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        temperature = check_number("temperature", state["temperature"], low=0, low_open=True)
        num_groups = check_count("num_groups", state["num_groups"])
        updates = []
        for group, level, shift in state["updates"]:
            update = Update(
                check_count("group", group, low=0),
                check_count("level", level, low=0),
                check_number("shift", shift),
            )
            if update.group >= num_groups or update.level >= self.num_levels:
                raise ValueError(f"update {update} is outside the groups or levels")
            updates.append(update)
        self._temperature = temperature
        self._num_groups = num_groups
        self._updates = updates
