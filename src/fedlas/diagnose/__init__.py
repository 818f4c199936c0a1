"""Diagnostics of a FedLAS loss, its indicator and its gate, during and after training.

In: scores, directions and strengths of a FedLAS loss, and ``Predictions`` of the same samples. Out: reports with
intervals; a ``GateMonitor`` that adds a record and alarms to each epoch's log.
"""

from fedlas.diagnose.gate import GateReport, gate_report
from fedlas.diagnose.indicator import (
    Associations,
    FailureCases,
    IndicatorReport,
    associations,
    binned_scores,
    failure_cases,
    indicator_numbers,
    indicator_report,
)
from fedlas.diagnose.monitor import GateMonitor, NormMonitor, find_gated, monitors

__all__ = [
    "Associations",
    "FailureCases",
    "GateMonitor",
    "GateReport",
    "IndicatorReport",
    "NormMonitor",
    "associations",
    "binned_scores",
    "failure_cases",
    "find_gated",
    "gate_report",
    "indicator_numbers",
    "indicator_report",
    "monitors",
]
