"""Predictions: validated logits, labels and features, and the readers of tables of predictions.

In: tensors, data frames, ``.npz``, CSV, JSON lines or Parquet. Out: ``Predictions``, which every package to the right
of a model reads. Every public name is imported at its first use: roles of columns and formats of files need no torch.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import PredictionTable, one_per_cluster
    from fedlas.predictions.covariates import Covariates
    from fedlas.predictions.language.log_probabilities import p_true, token_confidence
    from fedlas.predictions.language.phrases import stated_phrase
    from fedlas.predictions.language.stated import stated_confidence
    from fedlas.predictions.language.votes import (
        SelfConsistency,
        normalize_answer,
        self_consistency,
    )
    from fedlas.predictions.multi_label import MultiLabel
    from fedlas.predictions.predictions import Predictions
    from fedlas.predictions.tables.read import open_table, read_predictions
    from fedlas.predictions.tables.roles import Columns
    from fedlas.predictions.tables.table import ScoreTable
    from fedlas.predictions.top_label import TopLabel

__all__ = [
    "Columns",
    "Covariates",
    "MultiLabel",
    "PredictionTable",
    "Predictions",
    "ScoreTable",
    "SelfConsistency",
    "TopLabel",
    "normalize_answer",
    "one_per_cluster",
    "open_table",
    "p_true",
    "read_predictions",
    "self_consistency",
    "stated_confidence",
    "stated_phrase",
    "token_confidence",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "any_predictions": "PredictionTable one_per_cluster",
            "covariates": "Covariates",
            "language.log_probabilities": "p_true token_confidence",
            "language.votes": "SelfConsistency normalize_answer self_consistency",
            "multi_label": "MultiLabel",
            "predictions": "Predictions",
            "tables.read": "open_table read_predictions",
            "tables.roles": "Columns",
            "language.phrases": "stated_phrase",
            "language.stated": "stated_confidence",
            "tables.table": "ScoreTable",
            "top_label": "TopLabel",
        },
    )

    def __dir__() -> list[str]:
        return __all__
