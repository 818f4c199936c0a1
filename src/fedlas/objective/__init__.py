"""Model and criterion as one module, and the predictions of a model.

In: a model, a criterion, batches. Out: a loss to train on, or ``Predictions``.
"""

from fedlas.objective.objective import Objective, param_groups
from fedlas.objective.perturbed import drifted_predictions
from fedlas.objective.predict import predict

__all__ = ["Objective", "drifted_predictions", "param_groups", "predict"]
