"""Uncertainty baselines on finished runs; each makes a folder like that of a run."""

# Importing a module registers its methods.
from fedlas.lab.studies.uncertainty import single, ensembles, two_stage  # noqa: F401, I001
from fedlas.lab.studies.uncertainty.apply import (
    UNCERTAINTY,
    Derived,
    Method,
    MethodResult,
    apply_method,
    plan_method,
)

__all__ = ["UNCERTAINTY", "Derived", "Method", "MethodResult", "apply_method", "plan_method"]
