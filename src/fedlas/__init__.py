"""Train and measure calibrated classifiers in PyTorch: FedLAS, other losses, metrics and calibrators."""

from fedlas import checks, errors
from fedlas.features import FeatureTap, find_head
from fedlas.metrics import evaluate
from fedlas.objective import Objective, param_groups, predict
from fedlas.predictions import Predictions, TopLabel
from fedlas.stats import estimates
from fedlas.stats.two_models import compare

__version__ = "0.1.0"

__all__ = [
    "FeatureTap",
    "Objective",
    "Predictions",
    "TopLabel",
    "__version__",
    "checks",
    "compare",
    "errors",
    "estimates",
    "evaluate",
    "find_head",
    "param_groups",
    "predict",
]
