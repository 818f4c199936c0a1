"""Watches over a stream of predictions, in constant memory: has anything changed since the card was written?

In: a card, and files of predictions with or without labels. Out: what each watch found, and its history.
"""

from fedlas.deploy.monitor.look import ALARM, Monitor, monitor
from fedlas.deploy.monitor.state import Watched

__all__ = ["ALARM", "Monitor", "Watched", "monitor"]
