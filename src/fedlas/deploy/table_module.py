"""The calibration of a table as a module, which is exported like a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedlas.calibrated import TableCalibration
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.probabilities import FLOOR

_ROWS = 256
"""Rows that a file is compared on."""


class TableModule(nn.Module):
    """From the scores of a table, and its covariates, to calibrated logits and probabilities.

    Args:
        calibration: The calibration.

    State:
        In float64, the precision of a CSV.
    """

    def __init__(self, calibration: TableCalibration) -> None:
        super().__init__()
        self.layer = calibration.calibrator.module()
        self.kind = calibration.columns.kind
        self.single = len(calibration.scores) == 1 and not calibration.in_lists
        self.calibration = calibration

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``(N, C)`` of scores ``(N, columns)`` and covariates ``(N, D)``.

        Where one column holds the second of two classes, or the confidence of a top label, there are two classes.
        """
        scores = inputs[0]
        if self.kind == "logits":
            logits = torch.cat([torch.zeros_like(scores), scores], dim=1) if self.single else scores
        else:
            probs = torch.cat([1.0 - scores, scores], dim=1) if self.single else scores
            logits = probs.clamp(min=FLOOR).log()
        calibrated = self.layer(logits, *inputs[1:])
        return calibrated, calibrated.softmax(dim=1)

    def example(self) -> dict[str, Tensor]:
        """Return scores of every size, and covariates, to compare a file with the calibration."""
        random = torch.Generator().manual_seed(0)
        classes = 2 if self.single else int(self.calibration.calibrator.num_classes or 2)
        spread = torch.linspace(0.1, 12.0, _ROWS, dtype=torch.float64).unsqueeze(1)
        logits = spread * torch.randn(_ROWS, classes, generator=random, dtype=torch.float64)
        scores = logits if self.kind == "logits" else logits.softmax(1)
        inputs = {"scores": scores[:, 1:] if self.single else scores}
        if self.calibration.covariates is not None:
            width = len(self.calibration.covariates.names)
            inputs["covariates"] = torch.randn(_ROWS, width, generator=random, dtype=torch.float64)
        return inputs

    def expected(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the probabilities that the calibrator itself gives."""
        scores = inputs["scores"]
        features = inputs.get("covariates")
        transform = self.calibration.calibrator.transform
        if self.kind == "confidence":
            unknown = torch.zeros(len(scores), dtype=torch.bool)
            after = transform(TopLabel(scores[:, 0], unknown)).confidence
            return torch.stack([1.0 - after, after], dim=1)
        if self.kind == "logits":
            both = torch.cat([torch.zeros_like(scores), scores], dim=1) if self.single else scores
            return transform(Predictions(both, features=features)).probs
        return transform(
            Predictions.from_probs(scores[:, 0] if self.single else scores, features=features)
        ).probs
