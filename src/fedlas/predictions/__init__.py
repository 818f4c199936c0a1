"""Predictions: checked logits, labels and features, and the tables they are read from.

In: tensors, data frames, ``.npz``, CSV, JSON lines or Parquet. Out: ``Predictions``, which every package to the right
of a model reads. Every public name is imported at its first use: roles of columns and formats of files need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import PredictionTable
    from fedlas.predictions.language import p_true, token_confidence
    from fedlas.predictions.multi_label import MultiLabel
    from fedlas.predictions.predictions import Predictions
    from fedlas.predictions.read import open_table, read_predictions
    from fedlas.predictions.roles import Columns
    from fedlas.predictions.stated import stated_confidence
    from fedlas.predictions.table import Table
    from fedlas.predictions.top_label import TopLabel

__all__ = [
    "Columns",
    "MultiLabel",
    "PredictionTable",
    "Predictions",
    "Table",
    "TopLabel",
    "open_table",
    "p_true",
    "read_predictions",
    "stated_confidence",
    "token_confidence",
]

_HOMES = {
    "Columns": "roles",
    "MultiLabel": "multi_label",
    "PredictionTable": "any_predictions",
    "Predictions": "predictions",
    "Table": "table",
    "TopLabel": "top_label",
    "open_table": "read",
    "p_true": "language",
    "read_predictions": "read",
    "stated_confidence": "stated",
    "token_confidence": "language",
}
"""The module of each public name."""


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"fedlas.predictions has no {name!r}.")
        value = globals()[name] = getattr(import_module(f"fedlas.predictions.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return __all__
