"""Defaults that the command line shows in its help, which imports no torch, and that the library uses."""

from collections.abc import Sequence
from typing import Literal

METHOD = "auto"
"""The calibrator where none is named."""
REPLICATES = 1000
"""Replicates of every interval and every noise floor, where nothing else is asked for."""
CONFIDENCE_LEVEL = 0.95
"""Level of the intervals."""
RISKS: Sequence[float] = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of wrong answers for which a card has a threshold."""
ExportFormat = Literal["onnx", "torch-export", "torchscript", "sql"]
"""What a model is exported to, by its name on the command line."""
SqlDialect = Literal["duckdb", "postgres", "sqlite", "bigquery", "spark"]
"""The database that a statement is for."""
