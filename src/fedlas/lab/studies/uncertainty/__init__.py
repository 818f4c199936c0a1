"""Uncertainty baselines on runs that are finished; what comes out is a folder like any run's."""

from __future__ import annotations

# Importing a module registers its method.
from fedlas.lab.studies.uncertainty import (  # noqa: F401
    bayes_by_backprop,
    deep_ensemble,
    hyper_ensemble,
    last_layer_laplace,
    linear_head,
    matrix_gaussian,
    mc_dropout,
    orthogonal_ensemble,
    post_hoc,
    probabilistic_backprop,
    two_stage,
)
from fedlas.lab.studies.uncertainty.apply import Derived, apply_method, plan_method
from fedlas.lab.studies.uncertainty.base import UNCERTAINTY, Method, Result

__all__ = ["UNCERTAINTY", "Derived", "Method", "Result", "apply_method", "plan_method"]
