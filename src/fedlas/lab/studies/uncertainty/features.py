"""Features of a run's parts: what a method for the head alone is fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedlas.lab.runs.load import Trained
from fedlas.lab.runs.measure import held_out_predictions, predictions_of
from fedlas.predictions import Predictions


@dataclass(frozen=True)
class Parts:
    """Predictions of a run's model on each part, with features.

    Attributes:
        train: On the training part, without augmentation.
        val: On the validation part.
        test: On the test part.
    """

    train: Predictions
    val: Predictions
    test: Predictions

    def held_out(self, predict: Callable[[Predictions], Predictions]) -> tuple[Predictions, Predictions]:
        """What ``predict`` makes of the test and of the validation part, without the features.

        The new logits are no linear function of the features, and the run's own files hold them.
        """
        test, val = (replace(predict(part), features=None) for part in (self.test, self.val))
        return test, val


def parts_of(trained: Trained) -> Parts:
    """Predict every part of a finished run with dropout off; no file keeps the features of the training part."""
    splits, batch_size = trained.splits, trained.run.recipe.train.batch_size
    train = predictions_of(trained.objective, splits, splits.train, batch_size=batch_size, features=True)
    return Parts(train, *held_out_predictions(trained.run, splits, trained.objective, features=True))


def num_parameters(trained: Trained) -> int:
    """Number of the model's parameters."""
    return sum(parameter.numel() for parameter in trained.objective.model.parameters())
