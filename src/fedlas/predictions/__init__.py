"""Predictions: checked logits and labels, and the tables they are read from."""

from fedlas.predictions.columns import Columns
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.read import Read, Reader, Table, open_table, read_predictions

__all__ = ["Columns", "Predictions", "Read", "Reader", "Table", "open_table", "read_predictions"]
