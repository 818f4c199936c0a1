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
    indicator_report,
    indicator_statistics,
)
from fedlas.diagnose.monitor import GateMonitor, NormMonitor, find_gated_loss, make_monitors

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
    "find_gated_loss",
    "gate_report",
    "indicator_report",
    "indicator_statistics",
    "make_monitors",
]
