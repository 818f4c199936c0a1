"""What the indicator tracks and what the gate does, from predictions, features and logs."""

from fedlas.diagnose.association import Associations, associations
from fedlas.diagnose.gate import Decisions, GateReport, flip_share, gate_report
from fedlas.diagnose.indicator import (
    FailureCases,
    IndicatorReport,
    binned_scores,
    failure_cases,
    indicator_numbers,
    indicator_report,
)
from fedlas.diagnose.monitor import Monitor, alarm_kind, asked, gated, monitor_of
from fedlas.diagnose.norms import NormMonitor, monitors

__all__ = [
    "Associations",
    "Decisions",
    "FailureCases",
    "GateReport",
    "IndicatorReport",
    "Monitor",
    "NormMonitor",
    "alarm_kind",
    "asked",
    "associations",
    "binned_scores",
    "failure_cases",
    "flip_share",
    "gate_report",
    "gated",
    "indicator_numbers",
    "indicator_report",
    "monitor_of",
    "monitors",
]
