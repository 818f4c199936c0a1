"""A fitted calibrator with the notes of its fit, shared by calibrated models, tables, classifiers and cards."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fedlas._core.check import InputError, check_choice, describe
from fedlas.calibrators import CALIBRATORS, Calibrator, MultiLabelCalibration
from fedlas.calibrators.base import registry_name
from fedlas.calibrators.multilabel import MULTI_LABEL_FORMAT
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import AnyPredictions

if TYPE_CHECKING:
    from torch import Tensor, nn

AnyCalibrator = Calibrator | MultiLabelCalibration
P = TypeVar("P", bound=AnyPredictions | MultiLabel)
NONE = "none"
FITTED_ON = "the validation part"
"""Default name of the samples that a calibration is fitted on."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted calibrator with the notes of its fit.

    Attributes:
        calibrator: Of classes, of right and wrong, or of several labels a sample; None leaves predictions unchanged.
        notes: Sentences on the fit.
        fitted_on: Name of the samples of the fit.
    """

    calibrator: AnyCalibrator | None
    notes: tuple[str, ...] = ()
    fitted_on: str = FITTED_ON

    def __str__(self) -> str:
        """Return the method with its temperature, the weights of a mixture or the number of labels."""
        if self.temperature is not None:
            return f"{self.method} {self.temperature:.4g}"
        if self.multi_label:
            return f"{self.method}, {self.num_classes:,} labels"
        weights = getattr(self.calibrator, "weights", None)
        if not isinstance(weights, Mapping):
            return self.method
        ordered = sorted(weights.items(), key=lambda pair: -pair[1])
        parts = ", ".join(f"{name} {weight:.2f}" for name, weight in ordered if weight >= 0.005)
        return f"{self.method} ({parts})"

    @property
    def required_calibrator(self) -> AnyCalibrator:
        """The calibrator.

        Raises:
            InputError: If there is none.
        """
        if self.calibrator is None:
            raise InputError(
                "the calibration must have a calibrator",
                NONE,
                "Fit one, e.g. TemperatureScaling().",
            )
        return self.calibrator

    @property
    def method(self) -> str:
        """Registry name of the calibrator, or of each label's calibrator; ``"none"`` without one."""
        if isinstance(self.calibrator, MultiLabelCalibration):
            return self.calibrator.method
        return NONE if self.calibrator is None else registry_name(self.calibrator)

    @property
    def temperature(self) -> float | None:
        """The fitted temperature, or None if the method is not temperature scaling."""
        from fedlas.calibrators import TemperatureScaling

        return (
            self.calibrator.temperature if isinstance(self.calibrator, TemperatureScaling) else None
        )

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several labels, each with a sigmoid probability."""
        return isinstance(self.calibrator, MultiLabelCalibration)

    @property
    def num_classes(self) -> int:
        """Number of classes or labels; 0 for confidences alone or without a calibrator."""
        if self.calibrator is None or self.calibrator.top_label:
            return 0
        return self.calibrator.num_classes or 0

    @property
    def uses_features(self) -> bool:
        """Whether the calibrator was fitted on features and needs them to transform predictions."""
        return self.calibrator is not None and self.calibrator.num_features is not None

    @property
    def is_fitted_on_validation(self) -> bool:
        """Whether the calibrator was fitted on the validation samples that the thresholds are chosen on."""
        return self.calibrator is not None and self.fitted_on == FITTED_ON

    def __call__(self, logits: Tensor) -> Tensor:
        """Return calibrated logits ``(n, C)``, or of several labels ``(n, L)``, of the same dtype."""
        if isinstance(self.calibrator, MultiLabelCalibration):
            return self.calibrator.transform(logits)
        return self.transform(Predictions(logits)).tensors().logits

    def transform(self, predictions: P) -> P:
        """Return calibrated predictions of the same samples."""
        calibrator: Any = self.calibrator
        calibrated: P = predictions if calibrator is None else calibrator.transform(predictions)
        return calibrated

    def module(self) -> nn.Module:
        """Return the calibrator as a layer from logits (and features) to calibrated logits."""
        from torch import nn

        return nn.Identity() if self.calibrator is None else self.calibrator.module()

    def probs(self, logits: Tensor) -> Tensor:
        """Return the softmax of calibrated logits ``(n, C, ...)``, or the sigmoids of several labels ``(n, L)``."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def saved_parameters(self) -> dict[str, Any]:
        """Return all parameters of the calibrator as a dict for a saved file; empty without a calibrator."""
        return {} if self.calibrator is None else self.calibrator.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for a card or an exported file: the method with its temperature or all parameters."""
        whole = self.saved_parameters()
        if self.multi_label:
            return {"method": self.method, **whole}
        if not whole or (
            self.temperature is not None and not whole.keys() & {"top_label", "least_log"}
        ):
            return {"method": self.method, "temperature": self.temperature}
        return {"method": self.method, "calibrator": whole}

    @classmethod
    def from_dict(
        cls,
        content: object,
        *,
        source: object = "plain values",
        notes: tuple[str, ...] = (),
        fitted_on: str = FITTED_ON,
    ) -> Calibration:
        """Return the calibration from a dict that :meth:`saved_parameters` returned.

        Args:
            content: Plain values.
            source: Where they are from, for messages.
            notes: Sentences on the fit.
            fitted_on: Name of the samples of the fit.

        Raises:
            InputError: If they describe none.
        """
        several = isinstance(content, dict) and content.get("format") == MULTI_LABEL_FORMAT
        kind: Any = MultiLabelCalibration if several else Calibrator
        return cls(kind.from_dict(content, source=source), notes, fitted_on)


def unfitted_calibrator(method: object, *, multi_label: bool | None = None) -> AnyCalibrator:
    """Return an unfitted calibrator for a registered name, or a copy of a calibrator.

    Args:
        method: A registered name or a calibrator.
        multi_label: Whether it is for several labels a sample; None: if the calibrator that is passed is.

    Raises:
        InputError: For an unknown name, a calibrator that is fitted on other data than held-out samples, or one of
            several labels where classes are calibrated.
    """
    if multi_label:
        return MultiLabelCalibration.from_method(method)
    if isinstance(method, MultiLabelCalibration) and multi_label is False:
        raise InputError(
            "method must calibrate classes",
            "a MultiLabelCalibration",
            "Use fedlas.calibrate for several labels, or calibrate one label at a time.",
        )
    if isinstance(method, Calibrator | MultiLabelCalibration):
        return copy.deepcopy(method)
    if not isinstance(method, str):
        name = method.__name__ if isinstance(method, type) else ""
        raise InputError(
            "method must be a name or a calibrator",
            f"the class {name}" if name else describe(method),
            f"Pass {name or 'TemperatureScaling'}().",
        )
    # all are imported for the error alone
    entry = (
        CALIBRATORS.get(method) or CALIBRATORS[check_choice("method", method, list(CALIBRATORS))]
    )
    part = entry.metadata.get("part", "val")
    if part != "val":
        raise InputError(
            "method must be fitted on the samples of the loader",
            f"{entry.name}, which is fitted on increasingly noisy inputs",
            f"Fit {entry.value.__name__}() on fedlas.objective.drifted_predictions(model, loader), and pass it to "
            "fedlas.CalibratedModel(model, calibrator).",
        )
    calibrator: Calibrator = entry.value()
    return calibrator
