"""Calibration of multi-label predictions, one sigmoid per label: pooled curves, or a calibrator per label."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from fedlas._core.check import InputError, check_choice, check_dense, check_logits, describe
from fedlas._core.files import write_json
from fedlas._core.kinds import check_argument_types
from fedlas._core.outputs import check_output_path, json_kind
from fedlas.calibrators._fit.state import read_saved_json, require_fitted
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions.multi_label import MultiLabel, require_known_labels

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlas.calibrators.partial_pooling import LabelCurves

__all__ = ["MultiLabelCalibration"]

MULTI_LABEL_FORMAT = "fedlas.multilabel/1"
"""Format name in the file."""
_MIN_FEATURE_SAMPLES = 1000
"""From this many samples on, features help a label more than pooling with other labels (``results/labels``)."""


class MultiLabelCalibration:
    """Calibrates each of ``L`` independent labels as a two-class problem with logits ``(0, z)``.

    Args:
        method: Registered name, or an unfitted calibrator, of which each label gets a copy. None, the default, fits the
            curves of all labels together, so that rare labels learn from the others (:class:`PartialPooling`); with
            features of at least 1,000 samples, ``auto`` for each label, which uses them.
        shared: Whether all labels share one calibrator, fitted on all of them.

    Raises:
        InputError: For an unknown calibrator, or one with ``keep_class=True``, which would hold each probability on its
            side of 1/2.

    Example:
        >>> import torch
        >>> logits = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> target = torch.bernoulli(logits.sigmoid(), generator=torch.Generator().manual_seed(1))
        >>> calibration = MultiLabelCalibration("temperature").fit(torch.tensor([3.0, 0.5]) * logits, target)
        >>> [round(calibrator.temperature, 1) for calibrator in calibration.calibrators]
        [3.1, 0.5]
    """

    @check_argument_types
    def __init__(self, method: str | Calibrator | None = None, *, shared: bool = False) -> None:
        calibrator = "partial-pooling" if method is None else method
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
                "calibrators of labels must have keep_class=False", "keep_class=True", fix
            )
        self.calibrator = calibrator
        self.shared = shared
        self._uses_features = method is None and not shared
        self._fitted: list[Calibrator] | None = None

    @classmethod
    def from_method(cls, method: object) -> Self:
        """Return a calibration of several labels for a method name or a calibrator.

        ``"auto"`` is the default: the curves of all labels together, and ``auto`` for each with features of at least
        1,000 samples. Of a ``MultiLabelCalibration`` a copy is returned.

        Raises:
            InputError: As the constructor.

        Example:
            >>> MultiLabelCalibration.from_method("auto"), MultiLabelCalibration.from_method("isotonic")
            (MultiLabelCalibration(PartialPooling()), MultiLabelCalibration(IsotonicCalibration()))
        """
        if isinstance(method, cls):
            return copy.deepcopy(method)
        each: Any = None if isinstance(method, str) and method == "auto" else method
        return cls(each)

    @property
    def num_classes(self) -> int | None:
        """Number of labels ``L``; None before ``fit``."""
        return None if self._fitted is None else len(self._fitted)

    @property
    def calibrators(self) -> list[Calibrator]:
        """The fitted calibrator of each label.

        Raises:
            InputError: Before ``fit``.
        """
        return require_fitted(self._fitted)

    needs: frozenset[str] = frozenset()
    top_label = False

    @property
    def wants(self) -> frozenset[str]:
        """Optional fields that a fit uses if they are there: ``{"features"}`` or empty."""
        by_default = {"features"} if self._uses_features else set()
        return self.calibrator.wants | self.calibrator.needs | by_default

    @property
    def num_features(self) -> int | None:
        """Number of features ``D`` if a label's calibrator uses features, else None."""
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
        """Fit to held-out logits ``(N, L)`` and labels 0 or 1 ``(N, L)``; a label of -100 is unknown.

        Args:
            logits: ``(N, L)``; or a :class:`~fedlas.MultiLabel`, which holds all else.
            target: ``(N, L)``.
            features: Features ``(N, D)``, for calibrators that use them.
            weights: Weight of each sample ``(N,)``; None: all count alike.
            clusters: Cluster of each sample ``(N,)``; samples of one are not independent. None: each is one of its own.
            time: Time of each sample ``(N,)``: held-out samples are then never earlier than the samples fitted to.

        Raises:
            InputError: For other shapes or labels, or as the calibrator's ``fit``.
        """
        from fedlas.calibrators.auto import AutoCalibration

        values = (features, clusters, weights, time)
        if isinstance(logits, MultiLabel):
            if any(value is not None for value in (target, *values)):
                fix = "Pass the MultiLabel alone."
                raise InputError(
                    "a MultiLabel must be the only argument of fit", "further arguments", fix
                )
            val = require_known_labels(logits)
        else:
            val = require_known_labels(MultiLabel(logits, target, None, *values))
        use_auto = val.features is not None and len(val.logits) >= _MIN_FEATURE_SAMPLES
        calibrator = (
            AutoCalibration()
            if self._uses_features and use_auto
            else copy.deepcopy(self.calibrator)
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
        import torch

        if isinstance(logits, MultiLabel):
            after = self.transform(
                logits.tensors().logits, logits.tensors().features if self.num_features else None
            )
            return logits.with_logits(after)
        logits = check_logits(logits)
        labels = len(self.calibrators)
        if logits.ndim != 2 or logits.shape[1] != labels:
            expected = f"logits must have shape (N, {labels}), one column per label"
            fix = "Pass logits of the model that was calibrated."
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
        """Registry name of the calibrator that each label uses.

        Raises:
            InputError: Before ``fit``.
        """
        return str(self.calibrators[0].to_dict()["calibrator"])

    @property
    def curves(self) -> LabelCurves | None:
        """The pooled curves of all labels as one map of logits ``(N, L)``; None for other calibrators.

        Raises:
            InputError: Before ``fit``.
        """
        import torch

        from fedlas.calibrators.partial_pooling import LabelCurves, PooledMap

        maps = [calibrator.map for calibrator in self.calibrators]
        if not all(isinstance(each, PooledMap) for each in maps):
            return None
        return LabelCurves(numbers=torch.stack([each.numbers[1] for each in maps]))

    def module(self) -> nn.Module:
        """Return the fitted maps as a layer that maps logits ``(N, L)`` (and features) to calibrated logits.

        Raises:
            InputError: Before ``fit``, or if a map is no function of logits alone.
        """
        from fedlas.calibrators.layer import CalibrationLayer, LabelwiseLayers

        if (curves := self.curves) is not None:
            # One layer, since thousands of them take long to run and to export.
            return CalibrationLayer(curves, num_classes=len(self.calibrators)).eval()
        return LabelwiseLayers([calibrator.module() for calibrator in self.calibrators]).eval()

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrators to ``path`` as JSON.

        Raises:
            InputError: Before ``fit``, if another file than one of calibrators of labels is there, or the folder is not
                writable.
        """
        content = self.to_dict()
        kind = json_kind("a file of calibrators of labels", MULTI_LABEL_FORMAT).with_any_suffix
        return write_json(check_output_path("path", path, kind), content)

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as a dict that JSON can hold; :meth:`from_dict` reads it.

        Raises:
            InputError: Before ``fit``.
        """
        labels = [each.to_dict() for each in self.calibrators]
        return {"format": MULTI_LABEL_FORMAT, "shared": self.shared, "labels": labels}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibration file written by :meth:`save`.

        Raises:
            InputError: If it is no such file.
        """
        return cls.from_dict(read_saved_json(path, _OWNER), source=path)

    @classmethod
    def from_dict(cls, content: Any, *, source: object = "plain values") -> Self:
        """Return the calibration stored in a dict of :meth:`to_dict`; ``source`` is named in errors.

        Raises:
            InputError: If it is something else.
        """
        try:
            if content["format"] != MULTI_LABEL_FORMAT:
                raise ValueError(f"format is not {MULTI_LABEL_FORMAT!r}")
            each = [Calibrator.from_dict(plain, source=source) for plain in content["labels"]]
            calibration = cls(each[0], shared=content.get("shared", False))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            expected = "the file must be JSON written by MultiLabelCalibration.save"
            raise InputError(
                expected, f"{source} ({error})", "Save the calibration again."
            ) from error
        calibration._fitted = each
        return calibration


_OWNER = "MultiLabelCalibration"
