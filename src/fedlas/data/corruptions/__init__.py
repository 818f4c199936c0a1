"""Fifteen common corruptions in five severities, for calibration under shift; none needs a download."""

from __future__ import annotations

# Importing a module registers its corruptions.
from fedlas.data.corruptions import blur, digital, noise, weather  # noqa: F401
from fedlas.data.corruptions.base import CORRUPTIONS, SEVERITIES, Corruption

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption"]
