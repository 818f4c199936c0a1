"""Calibration of independent labels, each with a sigmoid of its own: curves fitted together, or a calibrator each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self, overload

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_dense, check_logits, describe
from fedlas._core.files import write_json
from fedlas._core.kinds import check_kinds
from fedlas._core.outputs import check_place, json_kind
from fedlas._core.renamed import renamed
from fedlas.calibrators._fit.state import fitted, read_saved
from fedlas.calibrators.auto import AutoCalibration
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.calibrators.layer import CalibrationLayer
from fedlas.calibrators.partial_pooling import LabelCurves, PooledMap
from fedlas.predictions.multi_label import MultiLabel, check_known
from fedlas.predictions.probabilities import logits_of_log_odds

__all__ = ["MultiLabelCalibration"]

MULTI_LABEL = "fedlas.multilabel/1"
"""Format of the file."""
_ENOUGH_FOR_FEATURES = 1000
"""Samples from which on features tell more of a label than other labels do (``results/labels``)."""


class LabelLayers(nn.Module):
    """Calibrated logits of logits ``(N, L)`` and features ``(N, D)``, one layer a label."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Return calibrated logits ``(N, L)``, whose sigmoids are the probabilities.

        Args:
            logits: ``(N, L)``.
            features: ``(N, D)``, if a layer uses them.

        Raises:
            InputError: For another number of labels.
        """
        columns = logits.unbind(dim=1)
        if len(columns) != len(self.layers):
            expected = f"logits must be (N, {len(self.layers)}), a column a label"
            raise InputError(expected, describe(logits), "Pass the logits of the same model.")
        pairs = [
            layer(logits_of_log_odds(column), None if layer.num_features is None else features)
            for layer, column in zip(self.layers, columns, strict=True)
        ]
        return torch.stack([pair[:, 1] - pair[:, 0] for pair in pairs], dim=1)


class MultiLabelCalibration:
    """Calibrates each of ``L`` independent labels as the second of two classes with logits ``(0, z)``.

    Args:
        method: Registered name, or an unfitted calibrator, of which each label gets a copy. None, the default, fits the
            curves of all labels together, so that rare labels learn from the others (:class:`PartialPooling`); with
            features of at least 1,000 samples, ``auto`` for each label, which uses them.
        shared: Whether all labels share one calibrator, fitted on all of them.

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

    @renamed(calibrator="method")
    @check_kinds
    def __init__(self, method: str | Calibrator | None = None, *, shared: bool = False) -> None:
        calibrator = method or "partial-pooling"
        if not isinstance(calibrator, Calibrator):
            # all are imported for the error alone
            entry = (
                CALIBRATORS.get(calibrator)
                or CALIBRATORS[check_choice("method", calibrator, list(CALIBRATORS))]
            )
            calibrator = entry.value()
        if getattr(calibrator, "keep_class", False):
            fix = "Leave keep_class out."
            raise InputError(
                "no label has a class to keep: it is there or not", "keep_class=True", fix
            )
        self.calibrator = calibrator
        self.shared = shared
        self._uses_features = method is None and not shared
        self._fitted: list[Calibrator] | None = None

    @classmethod
    def of_method(cls, method: object) -> Self:
        """Return what calibrates several labels by the name of a method, or by a calibrator for each label.

        ``"auto"`` is the default: the curves of all labels together, and ``auto`` for each with features of at least
        1,000 samples. Of a ``MultiLabelCalibration`` a copy is returned.

        Raises:
            InputError: As the constructor.

        Example:
            >>> MultiLabelCalibration.of_method("auto"), MultiLabelCalibration.of_method("isotonic")
            (MultiLabelCalibration(PartialPooling()), MultiLabelCalibration(IsotonicCalibration()))
        """
        if isinstance(method, cls):
            return copy.deepcopy(method)
        each: Any = None if method == "auto" else method
        return cls(each)

    @property
    def num_classes(self) -> int | None:
        """``L``, the number of labels; None before ``fit``."""
        return None if self._fitted is None else len(self._fitted)

    @property
    def calibrators(self) -> list[Calibrator]:
        """The fitted calibrator of each label.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted(self._fitted)

    needs: frozenset[str] = frozenset()
    top_label = False

    @property
    def wants(self) -> frozenset[str]:
        """What a fit uses if it is there, as the calibrator of each label."""
        by_default = {"features"} if self._uses_features else set()
        return self.calibrator.wants | self.calibrator.needs | by_default

    @property
    def num_features(self) -> int | None:
        """``D`` of the features if a label's calibrator used them, else None."""
        widths = [each.num_features for each in self.calibrators if each.num_features is not None]
        return widths[0] if widths else None

    def __repr__(self) -> str:
        return f"{_OWNER}({self.calibrator!r}{', shared=True' * self.shared})"

    def fit(
        self,
        logits: Tensor | MultiLabel,
        target: Tensor | None = None,
        features: Tensor | None = None,
        weights: Tensor | None = None,
        clusters: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Self:
        """Fit on held-out logits ``(N, L)`` and labels 0 or 1 ``(N, L)``; -100 is an unknown label.

        Args:
            logits: ``(N, L)``; or a :class:`~fedlas.MultiLabel`, which holds all else.
            target: ``(N, L)``.
            features: Side information ``(N, D)`` of calibrators that use it.
            weights: Weight of each sample ``(N,)``; None: all count alike.
            clusters: Cluster of each sample ``(N,)``; samples of one are not independent. None: each is one of its own.
            time: Time of each sample ``(N,)``: where the calibrator holds samples out, none is judged by later ones.

        Raises:
            InputError: For other shapes or labels, or as the calibrator's ``fit``.
        """
        values = (features, clusters, weights, time)
        if isinstance(logits, MultiLabel):
            if any(value is not None for value in (target, *values)):
                fix = "Pass the MultiLabel alone."
                raise InputError("a MultiLabel holds all that a fit uses", "further arguments", fix)
            val = check_known(logits)
        else:
            val = check_known(MultiLabel(logits, target, None, *values))
        enough = val.features is not None and len(val.logits) >= _ENOUGH_FOR_FEATURES
        calibrator = (
            AutoCalibration() if self._uses_features and enough else copy.deepcopy(self.calibrator)
        )
        self._fitted = (
            [calibrator.fit(val.pooled())] * val.num_labels
            if self.shared
            else calibrator.fit_labels(val)
        )
        return self

    @overload
    def transform(self, logits: MultiLabel, features: None = None) -> MultiLabel: ...

    @overload
    def transform(self, logits: Tensor, features: Tensor | None = None) -> Tensor: ...

    def transform(
        self, logits: Tensor | MultiLabel, features: Tensor | None = None
    ) -> Tensor | MultiLabel:
        """Return calibrated logits ``(N, L)``; their sigmoids are the probabilities.

        Args:
            logits: ``(N, L)``; or a :class:`~fedlas.MultiLabel`, which is returned with calibrated logits.
            features: ``(N, D)``, if the fit used them.

        Raises:
            InputError: Before ``fit``, for another number of labels, or for other features than the fit used.
        """
        if isinstance(logits, MultiLabel):
            after = self.transform(logits.logits, logits.features if self.num_features else None)
            return logits.with_logits(after)
        logits = check_logits(logits)
        labels = len(self.calibrators)
        if logits.ndim != 2 or logits.shape[1] != labels:
            expected = f"logits must be (N, {labels})"
            fix = "Pass the logits of the same model."
            raise InputError(expected, describe(logits), fix)
        check_dense("logits", logits)
        calibrated: Tensor
        with torch.no_grad():
            if (curves := self.curves) is None:
                calibrated = self.module()(logits, features)
            else:  # in the precision of the fit; a layer of a model has that of most models
                calibrated = curves(logits.double()).to(logits.dtype)
        return calibrated

    @property
    def method(self) -> str:
        """Registry name of the calibrator of each label.

        Raises:
            InputError: Before ``fit``.
        """
        return str(self.calibrators[0].plain()["calibrator"])

    @property
    def curves(self) -> LabelCurves | None:
        """The curves of all labels in one map, from logits ``(N, L)``; None for other calibrators.

        Raises:
            InputError: Before ``fit``.
        """
        maps = [calibrator.map for calibrator in self.calibrators]
        if not all(isinstance(each, PooledMap) for each in maps):
            return None
        return LabelCurves(numbers=torch.stack([each.numbers[1] for each in maps]))

    def module(self) -> nn.Module:
        """Return the fitted maps as a layer that follows a model, of logits ``(N, L)`` and perhaps features ``(N, D)``.

        Raises:
            InputError: Before ``fit``, or if a map is no function of logits alone.
        """
        if (curves := self.curves) is not None:
            # One layer, since thousands of them take long to run and to export.
            return CalibrationLayer(curves, num_classes=len(self.calibrators)).eval()
        return LabelLayers([calibrator.module() for calibrator in self.calibrators]).eval()

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrators to ``path`` as JSON.

        Raises:
            InputError: Before ``fit``, if another file than one of calibrators of labels is there, or the folder is not
                writable.
        """
        content = self.plain()
        kind = json_kind("a file of calibrators of labels", MULTI_LABEL).of_any_name
        return write_json(check_place("path", path, kind), content)

    def plain(self) -> dict[str, Any]:
        """Return the plain values for JSON that :meth:`save` writes and :meth:`from_plain` reads.

        Raises:
            InputError: Before ``fit``.
        """
        labels = [each.plain() for each in self.calibrators]
        return {"format": MULTI_LABEL, "shared": self.shared, "labels": labels}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: If it is no such file.
        """
        return cls.from_plain(read_saved(path, _OWNER), source=path)

    @classmethod
    def from_plain(cls, content: Any, *, source: object = "plain values") -> Self:
        """Return the calibration that :meth:`plain` describes; ``source`` is named in errors.

        Raises:
            InputError: If it is something else.
        """
        try:
            if content["format"] != MULTI_LABEL:
                raise ValueError("another format")
            each = [Calibrator.from_plain(plain, source=source) for plain in content["labels"]]
            calibration = cls(each[0], shared=content.get("shared", False))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            expected = "the file must be JSON that MultiLabelCalibration.save wrote"
            raise InputError(expected, f"{source} ({error})", "Save it again.") from error
        calibration._fitted = each
        return calibration


_OWNER = "MultiLabelCalibration"
