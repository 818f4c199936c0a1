"""CALS-ALM: margin-based label smoothing with one multiplier per class, learned by an augmented Lagrangian method.

Source: Liu, Rony, Galdran, Dolz, Ben Ayed 2023, "Class Adaptive Network Calibration", CVPR, section 3
(arXiv 2211.15088). Written from the paper; constants that it leaves open are those of the published configuration.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_count, check_number
from fedlas.losses._base import (
    LOSSES,
    Batch,
    LearnsFromValidation,
    LossOptions,
    PreciseBuffers,
    paper_metadata,
)
from fedlas.predictions import Predictions

_MAX_ELEMENTS = 1 << 22  # validation logits processed at a time


def phr_penalty(logits: Tensor, multipliers: Tensor, rho: Tensor, *, margin: float) -> Tensor:
    """Return the PHR penalty ``mean_k P(h_k, l_k, rho_k)`` per row, with ``h_k = (max_j z_j - z_k) / margin - 1``.

    P is the Powell-Hestenes-Rockafellar function of the constraint ``h_k <= 0``,
    ``(max(0, l + rho h)^2 - l^2) / (2 rho)``: ``l h + rho h^2 / 2`` where ``l + rho h`` is positive, else constant.

    Args:
        logits: ``(N, C)``.
        multipliers: ``l (C,)``, above 0.
        rho: ``(C,)``, above 0.
        margin: Largest logit distance without a penalty, above 0.

    Example:
        >>> phr_penalty(torch.tensor([[30.0, 0.0]]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0]), margin=10.0)
        tensor([2.7500])
    """
    # l + rho h = (l - rho) + (rho / margin) (max_j z_j - z_k)
    active = F.relu(
        (logits.amax(dim=1, keepdim=True) - logits) * (rho / margin) + (multipliers - rho)
    )
    share = 1 / (2 * rho * logits.shape[1])
    return torch.linalg.vecdot(active * share, active) - (multipliers.square() * share).sum()


@LOSSES.register(
    "cals-alm",
    **paper_metadata("Class Adaptive Network Calibration", 2023, "2211.15088"),
    tune={"margin": "1:20", "rho": "0.1:10:log"},
)
class CALS(PreciseBuffers, LearnsFromValidation):
    """CALS-ALM: ``-log p_y + mean_k P(h_k, l_k, rho_k)`` with ``h_k = (max_j z_j - z_k) / margin - 1``.

    The margin of MbLS is a constraint ``h_k <= 0`` for each class k, and the penalty ``P(h, l, rho) = (max(0, l +
    rho h)^2 - l^2) / (2 rho)`` has a multiplier ``l_k`` and a factor ``rho_k`` of the class. After each validation,
    ``l_k`` becomes the mean of ``max(0, l_k + rho_k h_k)`` over the validation set; every ``rho_every`` of them,
    ``rho_k`` grows where the mean ``h_k`` has not fallen to ``tolerance`` times its last value (or below 0).

    Args:
        num_classes: Number of classes C.
        margin: Logit distance that costs nothing, above 0. The paper uses 10.
        rho: Factor of the squared violation at the start, above 0.
        growth: Factor by which rho grows, at least 1; the paper's gamma.
        tolerance: Share of the last violation to which a new one must fall, at least 0; the paper's tau.
        rho_max: Largest rho, at least rho.
        lambda_min: Smallest multiplier, above 0, and the initial one.
        lambda_max: Largest multiplier, at least lambda_min.
        every: Number of validations from one update of the multipliers to the next.
        rho_every: Number of validations from one check of rho to the next; only multiples of ``every`` have an effect.
        **options: Those of every :class:`~fedlas.losses.Loss`. The penalty of a sample is weighted like its
            cross-entropy.

    Attributes:
        multipliers: Buffer, ``l (C,)`` float32.
        rho: Buffer, ``(C,)`` float32.
        violation: Buffer, mean ``h (C,)`` float32 of the validation set at the last update.
        num_updates: Buffer, number of validations so far, scalar int64.

    State:
        Buffers change in :meth:`update_from_validation` only, in place. They stay float32 through ``.half()``. Under
        DDP each rank must pass the same predictions, as the training loop does.

    Raises:
        InputError: If an argument is out of range; in :meth:`update_from_validation`, if the predictions have another
            number of classes. The state is then unchanged.

    Note:
        The penalty is averaged over all C classes, as in published code and as MbLS does, and the gradient flows
        through the maximum. It is negative, by at most the constant ``l^2 / (2 rho)``, where constraints hold with a
        margin.

    Example:
        >>> criterion = CALS(num_classes=2, margin=1.0)
        >>> logits, target = torch.tensor([[3.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0])
        >>> criterion.update_from_validation(Predictions(logits, target))
        >>> criterion.multipliers, criterion.violation
        (tensor([1.0000e-06, 1.5000e+00]), tensor([-1.0000,  1.5000]))
    """

    precise: ClassVar[tuple[str, ...]] = ("multipliers", "rho", "violation")
    num_classes: int
    multipliers: Tensor
    rho: Tensor
    violation: Tensor
    num_updates: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        margin: float = 10.0,
        rho: float = 1.0,
        growth: float = 1.2,
        tolerance: float = 0.9,
        rho_max: float = 10.0,
        lambda_min: float = 1e-6,
        lambda_max: float = 1e6,
        every: int = 1,
        rho_every: int = 10,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.num_classes = check_count("num_classes", num_classes)
        self.margin = check_number("margin", margin, low=0, low_open=True)
        start = check_number("rho", rho, low=0, low_open=True)
        self.growth = check_number("growth", growth, low=1)
        self.tolerance = check_number("tolerance", tolerance, low=0)
        self.rho_max = check_number("rho_max", rho_max, low=start)
        self.lambda_min = check_number("lambda_min", lambda_min, low=0, low_open=True)
        self.lambda_max = check_number("lambda_max", lambda_max, low=self.lambda_min)
        self.every = check_count("every", every)
        self.rho_every = check_count("rho_every", rho_every)
        self.register_buffer(
            "multipliers", torch.full((self.num_classes,), self.lambda_min, dtype=torch.float32)
        )
        self.register_buffer("rho", torch.full((self.num_classes,), start, dtype=torch.float32))
        self.register_buffer("violation", torch.zeros(self.num_classes, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0, dtype=torch.int64))

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        multipliers = self.multipliers.to(batch.logits.dtype)
        rho = self.rho.to(batch.logits.dtype)
        penalty = phr_penalty(batch.logits, multipliers, rho, margin=self.margin)
        return batch.cross_entropy() + batch.apply_class_weights(penalty)

    def learn_from(self, predictions: Predictions) -> None:
        """Update the multipliers from the constraint violations, and rho at every ``rho_every``-th validation.

        Args:
            predictions: Predictions on the validation set after an epoch; never on the test set.
        """
        number = int(self.num_updates) + 1
        self.num_updates.add_(1)
        if number % self.every:
            return
        # Means over the validation set, in float64 and some rows at a time.
        old = self.multipliers.cpu().double()
        rho = self.rho.cpu().double()
        slope = torch.zeros_like(old)
        violation = torch.zeros_like(old)
        for logits in predictions.tensors().logits.split(max(1, _MAX_ELEMENTS // self.num_classes)):
            rows = logits.cpu().double()
            excess = (rows.amax(dim=1, keepdim=True) - rows) / self.margin - 1
            slope += F.relu(old + rho * excess).sum(dim=0)
            violation += excess.sum(dim=0)
        slope = slope / predictions.num_samples
        violation = violation / predictions.num_samples

        # Increase rho where the violation has not fallen enough since the last update, if there was one.
        if number % self.rho_every == 0 and number > self.every:
            bound = self.tolerance * self.violation.cpu().double().clamp(min=0)
            self.rho.copy_(
                torch.where(violation > bound, rho * self.growth, rho).clamp(max=self.rho_max)
            )
        self.multipliers.copy_(slope.clamp(self.lambda_min, self.lambda_max))
        self.violation.copy_(violation)
