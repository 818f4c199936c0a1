"""Calibration of independent labels, each with a sigmoid of its own: a calibrator a label, or one for all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedlas._core.check import (
    InputError,
    check_choice,
    check_dense,
    check_kinds,
    check_logits,
    describe,
    is_dense,
)
from fedlas._core.files import read_json, write_json
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions import Predictions

__all__ = ["MultiLabelCalibration"]

_FORMAT = "fedlas.multilabel/1"


class LabelLayers(nn.Module):
    """Calibrated logits of logits ``(N, L)``, one layer a label."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits ``(N, L)``, whose sigmoids are the probabilities."""
        pairs = [
            layer(two_classes(column))
            for layer, column in zip(self.layers, logits.unbind(dim=1), strict=True)
        ]
        return torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], dim=1)


class MultiLabelCalibration:
    """Calibrates each of ``L`` independent labels as the second of two classes with logits ``(0, z)``.

    Args:
        calibrator: Registered name, or an unfitted calibrator, of which each label gets a copy.
        shared: Whether all labels share one calibrator, fitted on all of them: for labels with few positive samples.

    Raises:
        InputError: For an unknown calibrator, or one with ``keep_class=True``, which would hold each probability on its
            side of 1/2.

    Example:
        >>> logits = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> calibration = MultiLabelCalibration("temperature").fit(torch.tensor([3.0, 0.5]) * logits, target)
        >>> [round(calibrator.temperature, 1) for calibrator in calibration.calibrators]
        [3.1, 0.5]
    """

    @check_kinds
    def __init__(self, calibrator: str | Calibrator = "auto", *, shared: bool = False) -> None:
        if not isinstance(calibrator, Calibrator):
            calibrator = CALIBRATORS[
                check_choice("calibrator", calibrator, list(CALIBRATORS))
            ].value()
        if getattr(calibrator, "keep_class", False):
            fix = "Leave keep_class out."
            raise InputError(
                "no label has a class to keep: it is there or not", "keep_class=True", fix
            )
        self.calibrator = calibrator
        self.shared = shared
        self._fitted: list[Calibrator] | None = None

    @property
    def calibrators(self) -> list[Calibrator]:
        """The fitted calibrator of each label.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(self._fitted)

    def fit(self, logits: Tensor, target: Tensor) -> Self:
        """Fit on held-out logits ``(N, L)`` and labels 0 or 1 ``(N, L)``.

        Raises:
            InputError: For other shapes or labels, or as the calibrator's ``fit``.
        """
        logits = check_logits(logits)
        check_dense("logits", logits)
        right = (
            is_dense(target)
            and not target.is_meta
            and target.shape == logits.shape
            and logits.ndim == 2
        )
        if not right or not bool(((target == 0) | (target == 1)).all()):
            expected = f"target must be 0 or 1 for each label, {tuple(logits.shape)}"
            raise InputError(expected, describe(target), "Pass a column a label.")
        columns = (
            [(logits.reshape(-1), target.reshape(-1))]
            if self.shared
            else zip(logits.T, target.T, strict=True)
        )
        each = [
            copy.deepcopy(self.calibrator).fit(Predictions(two_classes(column), labels.long()))
            for column, labels in columns
        ]
        self._fitted = each * (logits.shape[1] if self.shared else 1)
        return self

    def transform(self, logits: Tensor) -> Tensor:
        """Return calibrated logits ``(N, L)``; their sigmoids are the probabilities.

        Raises:
            InputError: Before ``fit``, or for another number of labels.
        """
        logits = check_logits(logits)
        labels = len(self.calibrators)
        if logits.ndim != 2 or logits.shape[1] != labels:
            expected = f"logits must be (N, {labels})"
            fix = "Pass the logits of the same model."
            raise InputError(expected, describe(logits), fix)
        check_dense("logits", logits)
        with torch.no_grad():
            calibrated: Tensor = self.module()(logits)
        return calibrated

    def module(self) -> nn.Module:
        """Return the fitted maps as a layer that follows a model, ``(N, L)`` to ``(N, L)``.

        Raises:
            InputError: Before ``fit``, or if a map is no function of logits alone.
        """
        return LabelLayers([calibrator.module() for calibrator in self.calibrators]).eval()

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrators to ``path`` as JSON.

        Raises:
            InputError: Before ``fit``, or if the folder is not writable.
        """
        labels = [each.plain() for each in self.calibrators]
        return write_json(path, {"format": _FORMAT, "shared": self.shared, "labels": labels})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: If it is no such file.
        """
        try:
            content: Any = read_json(path)
            if content["format"] != _FORMAT:
                raise ValueError("another format")
            each = [Calibrator.from_plain(plain, source=path) for plain in content["labels"]]
            calibration = cls(each[0], shared=content.get("shared", False))
        except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
            expected = "the file must be JSON that MultiLabelCalibration.save wrote"
            raise InputError(expected, f"{path} ({error})", "Save it again.") from error
        calibration._fitted = each
        return calibration


def two_classes(column: Tensor) -> Tensor:
    """Return logits ``(N,)`` of an event as those of two classes ``(N, 2)``."""
    return torch.stack([torch.zeros_like(column), column], dim=1)
