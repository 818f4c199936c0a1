"""Training objective (model and criterion as one module), and prediction with a model.

Input: a model, a criterion, batches. Output: a loss to train on, or ``Predictions``.
"""

from fedlas.objective.objective import Objective, param_groups
from fedlas.objective.predict import drifted_predictions, predict

__all__ = ["Objective", "drifted_predictions", "param_groups", "predict"]
