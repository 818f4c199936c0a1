"""Cross-entropy on the label mixed with out-of-fold predictions.

Cross-fitting comes from double machine learning (Chernozhukov et al. 2018); its use as a target next to the label is
this library's. ``data.cross_fit`` of a recipe trains the models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas.losses._base import LOSSES, PredictionMemoryLoss, paper_metadata
from fedlas.predictions.arguments import to_numbers
from fedlas.predictions.probabilities import check_probabilities
from fedlas.predictions.tensors import to_tensor


@LOSSES.register(
    "cross-fitted",
    **paper_metadata(
        "Double/Debiased Machine Learning for Treatment and Structural Parameters",
        2018,
        "1608.00060",
    ),
    dense=False,
    note="cross-fitting is the paper's, its use as a target next to the label this library's",
    tune={"alpha": "0.1:1", "gamma": "0:1"},
)
class CrossFitted(PredictionMemoryLoss):
    """Cross-entropy on ``(1 - alpha) t + alpha q``, where ``q`` is the out-of-fold prediction for the sample.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        alpha: Weight of q, in [0, 1].
        gamma: Above 0, the loss is multiplied by ``||(1 - alpha) t + alpha q - p||^gamma``, through which no gradient
            flows.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        memory: The targets q, which :meth:`set_targets` gives.

    State:
        Changed by :meth:`set_targets` alone. Samples without a target are trained on their label.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Example:
        >>> criterion = CrossFitted(num_samples=1, num_classes=2, alpha=0.5)
        >>> criterion.set_targets(torch.tensor([[0.6, 0.4]]))
        >>> criterion(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), index=torch.tensor([0]))
        tensor(0.5268)
    """

    def set_targets(self, probs: Tensor) -> None:
        """Set the out-of-fold probabilities ``(N, C)`` of all training samples, in the order of ``index``.

        Raises:
            InputError: For a wrong shape, or rows that do not sum to 1. The state is then unchanged.
        """
        expected = (self.memory.num_samples, self.memory.num_classes)
        if not isinstance(probs, Tensor) or tuple(probs.shape) != expected:
            raise InputError(
                f"probs must have shape {expected}",
                describe(probs),
                "Pass out-of-fold probabilities, one row per training sample.",
            )
        probs = to_tensor("probs", check_probabilities(to_numbers("probs", probs), normalize=False))
        device = self.memory.rows.device
        self.memory.record(torch.arange(len(probs), device=device), probs.to(device), None)
