"""PS-KD: the label mixed with the previous prediction for the sample, with a weight that grows over epochs.

Source: Kim, Ji, Yoon, Hwang 2021, "Self-Knowledge Distillation with Progressive Refinement of Targets", ICCV
(arXiv 2006.12000). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.losses._base import LOSSES, Batch, LossOptions, PredictionMemoryLoss, paper_metadata


@LOSSES.register(
    "ps-kd",
    **paper_metadata(
        "Self-Knowledge Distillation with Progressive Refinement of Targets", 2021, "2006.12000"
    ),
    dense=False,
    tune={"alpha": "0.1:1", "keep": "0:0.98"},
)
class PSKD(PredictionMemoryLoss):
    """PS-KD: ``CE((1 - a_t) t + a_t q, p)``, q the previous prediction for the sample, ``a_t = alpha t / T``.

    Args:
        num_classes: Number of classes C.
        num_samples: Size of the training set that ``index`` points into.
        num_epochs: T, the epochs over which the weight of q rises to alpha; a recipe passes the length of its
            training, and your own loop must.
        alpha: Weight of q in the last epoch, in [0, 1].
        keep: Weight of the old average, in [0, 1), if q is a running average over visits; up to
            ``1 / (1 - keep)`` visits it is their mean. 0: q is the last prediction, as in the paper.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        memory: The prediction at the previous visit or the average, and the number of visits.

    State:
        In training mode with gradients enabled a batch uses the memory, then replaces its rows; never in ``eval()``.

    Raises:
        InputError: If an argument is out of range; for dense logits; on CPU for an index outside the training set.

    Note:
        The epoch of a sample is counted by its visits. The paper keeps last epoch's network instead; with one visit an
        epoch that is the same but for the network's state within the epoch, and for augmentation: the remembered
        prediction saw another random crop. Under another loss that sets the strength, alpha does not rise.

    Example:
        >>> import torch
        >>> criterion = PSKD(num_samples=2, num_classes=2, num_epochs=2)
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> first, second = (criterion(logits, target, index=torch.tensor([0, 1])) for _ in range(2))
        >>> first, second
        (tensor(0.7201), tensor(0.5231))
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_samples: int,
        num_epochs: int,
        alpha: float = 0.8,
        keep: float = 0.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(num_classes=num_classes, num_samples=num_samples, alpha=alpha, **options)
        self.keep = check_number("keep", keep, low=0, high=1, high_open=True)
        self.num_epochs = check_count("num_epochs", num_epochs)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        if batch.index is None:
            return self.with_strength(batch, self.alpha)
        epoch = self.memory.visits[batch.require("index").clamp(0, self.memory.num_samples - 1)] + 1
        return self.with_strength(
            batch, self.alpha * (epoch / self.num_epochs).clamp(max=1).to(batch.logits.dtype)
        )

    def new_memory_rows(self, rows: Tensor, visits: Tensor, probs: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the current prediction per sample, ``(M, C)``, or the updated running average."""
        # v / (v + 1) makes it the exact mean of the first visits: the first prediction weighs no more than others.
        keep = (visits / (visits + 1)).to(probs.dtype).clamp(max=self.keep)
        return torch.lerp(probs, rows, keep[:, None])
