"""Drift monitoring of live predictions: sequential tests against a calibration card, in constant memory.

In: a card, and files of predictions with or without labels. Out: the result and history of each test.
"""

from fedlas.deploy.monitor.look import ALARM_EXIT_STATUS, Monitor, monitor
from fedlas.deploy.monitor.state import StreamState

__all__ = ["ALARM_EXIT_STATUS", "Monitor", "StreamState", "monitor"]
