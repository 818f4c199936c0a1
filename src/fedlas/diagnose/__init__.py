"""What the indicator tracks and what the gate does, for a finished model and while one trains.

In: scores, directions and strengths of a FedLAS loss, and ``Predictions`` of the same samples. Out: reports with
intervals; a ``Monitor`` that adds a record and alarms to each epoch's log.
"""

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
from fedlas.diagnose.monitor import (
    Monitor,
    NormMonitor,
    alarm_kind,
    find_gated,
    gate_outputs,
    monitors,
)

__all__ = [
    "Associations",
    "Decisions",
    "FailureCases",
    "GateReport",
    "IndicatorReport",
    "Monitor",
    "NormMonitor",
    "alarm_kind",
    "associations",
    "binned_scores",
    "failure_cases",
    "find_gated",
    "flip_share",
    "gate_outputs",
    "gate_report",
    "indicator_numbers",
    "indicator_report",
    "monitors",
]
