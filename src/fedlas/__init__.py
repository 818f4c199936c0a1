"""Train and measure calibrated classifiers in PyTorch: FedLAS, other losses, metrics and calibrators."""

from fedlas import checks, errors
from fedlas.calibrated import CalibratedModel, calibrate
from fedlas.features import FeatureTap, find_head
from fedlas.metrics import evaluate
from fedlas.objective import Objective, param_groups, predict
from fedlas.predictions import Predictions
from fedlas.stats import estimates

__version__ = "0.1.0"

__all__ = [
    "CalibratedModel",
    "FeatureTap",
    "Objective",
    "Predictions",
    "__version__",
    "calibrate",
    "checks",
    "errors",
    "estimates",
    "evaluate",
    "find_head",
    "param_groups",
    "predict",
]
