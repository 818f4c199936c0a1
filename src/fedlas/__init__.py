"""Train and measure calibrated classifiers in PyTorch: FedLAS, other losses, metrics and calibrators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedlas import calibrators as calibrators
from fedlas import checks, errors
from fedlas.calibrated import CalibratedModel, calibrate
from fedlas.features import FeatureTap, find_head
from fedlas.metrics import evaluate
from fedlas.objective import Objective, param_groups, predict
from fedlas.predictions import Predictions, TopLabel
from fedlas.stats import estimates
from fedlas.stats.two_models import compare

if TYPE_CHECKING:
    from fedlas import binary as binary
    from fedlas import deploy as deploy
    from fedlas import diagnose as diagnose
    from fedlas import integrations as integrations
    from fedlas import plots as plots
    from fedlas import zoo as zoo

__version__ = "0.1.0"

__all__ = [
    "CalibratedModel",
    "FeatureTap",
    "Objective",
    "Predictions",
    "TopLabel",
    "__version__",
    "calibrate",
    "checks",
    "compare",
    "errors",
    "estimates",
    "evaluate",
    "find_head",
    "param_groups",
    "predict",
]

_AT_FIRST_USE = ("binary", "deploy", "diagnose", "integrations", "plots", "zoo")
"""Packages that ``import fedlas`` does not import; the other public ones it needs itself."""


if not TYPE_CHECKING:  # a type checker would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name in _AT_FIRST_USE:
            return import_module(f"fedlas.{name}")
        raise AttributeError(f"module 'fedlas' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_AT_FIRST_USE})
