"""Calibrated classifiers in PyTorch: FedLAS, the losses it is compared with, and measurement that can be trusted."""

from fedlas.predictions import Predictions

__version__ = "0.1.0"

__all__ = ["Predictions", "__version__"]
