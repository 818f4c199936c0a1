"""Model and criterion as one module, and the predictions of a model.

In: a model, a criterion, batches. Out: a loss to train on, or ``Predictions``.
"""

from fedlas.objective.objective import Objective, param_groups
from fedlas.objective.predict import drifted_predictions, predict

__all__ = ["Objective", "drifted_predictions", "param_groups", "predict"]
