"""Predictions that others made, from CSV, Parquet, JSON lines or NumPy archives; columns are named, never guessed."""

from fedlas.bench.tabular.columns import Columns
from fedlas.bench.tabular.read import Read, Reader, Table, open_table, read_predictions

__all__ = ["Columns", "Read", "Reader", "Table", "open_table", "read_predictions"]
