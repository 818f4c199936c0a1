"""Predictions: checked logits, labels and features, and the tables they are read from.

In: tensors, ``.npz``, CSV, JSON lines or Parquet. Out: ``Predictions``, which every package to the right of a model
reads.
"""

from fedlas.predictions.columns import Columns
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.read import Read, Reader, open_table, read_predictions
from fedlas.predictions.table import Table
from fedlas.predictions.top_label import TopLabel

__all__ = ["Columns", "Predictions", "Read", "Reader", "Table", "TopLabel", "open_table", "read_predictions"]
