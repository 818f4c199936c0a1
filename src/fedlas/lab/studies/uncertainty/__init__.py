"""Uncertainty methods on finished runs; each writes its result as a run folder."""

# Importing a module registers its methods.
from fedlas.lab.studies.uncertainty import single, ensembles, two_stage  # noqa: F401, I001
from fedlas.lab.studies.uncertainty.apply import (
    UNCERTAINTY,
    DerivedRun,
    Method,
    MethodResult,
    apply_method,
    plan_method,
)

__all__ = ["UNCERTAINTY", "DerivedRun", "Method", "MethodResult", "apply_method", "plan_method"]
