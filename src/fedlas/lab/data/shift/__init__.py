"""Changes of a data set: corruptions, label noise, long tails and held-out classes. None needs a download."""

from __future__ import annotations

# Importing a module registers its corruptions.
from fedlas.lab.data.shift import corruptions  # noqa: F401
from fedlas.lab.data.shift.base import CORRUPTIONS, SEVERITIES, Corruption

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption"]
