"""Rows of a table as predictions."""

from __future__ import annotations

import torch

from fedlas._core.check import Argument, InputError
from fedlas.predictions import Columns, Predictions, TopLabel
from fedlas.predictions.covariates import Covariates
from fedlas.predictions.predictions import AnyPredictions
from fedlas.predictions.probabilities import are_probabilities
from fedlas.predictions.table import Samples


def predictions_of(
    samples: Samples, columns: Columns, covariates: Covariates | None = None
) -> AnyPredictions:
    """Return the predictions of some rows; top labels without an outcome count as wrong, which nothing reads."""
    if columns.kind == "confidence":
        outcome = samples.outcome
        outcome = torch.zeros(len(samples.scores), dtype=torch.bool) if outcome is None else outcome
        return TopLabel(
            samples.scores,
            outcome,
            samples.weights,
            samples.features,
            samples.clusters,
            covariates,
        )
    return Predictions.of_samples(samples, are_probs=columns.kind == "probs", covariates=covariates)


def check_logits(columns: Columns, samples: Samples, label: str) -> None:
    """Refuse probabilities that are named as logits."""
    if columns.kind == "logits" and are_probabilities(samples.scores):
        raise InputError(
            "columns of logits must hold logits",
            f"probabilities in {label}",
            ["write logits, as fit and apply read one kind", ("name them by ", Argument("probs"))],
        )


def with_effect(columns: Columns) -> Columns:
    """Return the columns, or refuse one that would have no effect on a calibration."""
    if columns.label_probs is not None:
        raise InputError(
            ("a calibration must be fitted without ", Argument("label_probs")),
            "one, which would have no effect on it",
            ("Leave it out: it is for ", "fedlas.report and fedlas evaluate."),
        )
    return columns
