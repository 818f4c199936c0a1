"""Model and criterion as one module, and the predictions of a model."""

from fedlas.objective.objective import Objective, logits_of, param_groups
from fedlas.objective.perturbed import drifted_predictions
from fedlas.objective.predict import predict

__all__ = ["Objective", "drifted_predictions", "logits_of", "param_groups", "predict"]
