"""Figures of predictions and logs.

Each function draws on the Axes it is given, or on a new figure, and returns the Axes; none changes global state.
Save a figure with ``ax.figure.savefig("name.svg")``.
"""

from fedlas.plots.reliability import reliability_diagram
from fedlas.plots.theme import DARK, LIGHT, Theme, new_axes
from fedlas.plots.training import training_curves

__all__ = ["DARK", "LIGHT", "Theme", "new_axes", "reliability_diagram", "training_curves"]
