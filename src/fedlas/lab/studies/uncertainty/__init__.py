"""Uncertainty baselines on runs that are finished; what comes out is a folder like any run's."""

# Importing a module registers its methods.
from fedlas.lab.studies.uncertainty import draws, ensembles, heads, two_stage  # noqa: F401
from fedlas.lab.studies.uncertainty.apply import Derived, apply_method, plan_method
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Method, Result

__all__ = ["UNCERTAINTY", "Derived", "Method", "Result", "apply_method", "plan_method"]
