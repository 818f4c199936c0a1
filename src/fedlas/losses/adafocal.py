"""AdaFocal: focal loss with an exponent per confidence bin, adapted to the calibration on the validation set.

Source: Ghosh, Schaaf, Gormley 2022, "AdaFocal: Calibration-aware Adaptive Focal Loss", NeurIPS, section 5 and
Algorithm 1 (arXiv 2211.11838). Written from the paper.
"""

from __future__ import annotations

from typing import ClassVar, Unpack

import torch
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


def signed_focal_loss(nll: Tensor, gamma: Tensor) -> Tensor:
    """Return the focal loss for ``gamma >= 0`` and the inverse focal loss for ``gamma < 0``, from ``nll = -log p``.

    ``(1 - p)^gamma nll`` and ``(1 + p)^|gamma| nll``: samples that are already likely get less weight from the
    first and more from the second.

    Args:
        nll: Any shape.
        gamma: Like ``nll``, of any sign.

    Example:
        >>> signed_focal_loss(torch.tensor([0.6931, 0.6931]), torch.tensor([2.0, -2.0]))
        tensor([0.1733, 1.5595])
    """
    # 1 - p without cancellation; the bound below keeps a power's slope finite where p is 1.
    missing = -torch.expm1(-nll)
    bracket = torch.where(gamma < 0, 2 - missing, missing.clamp(min=torch.finfo(nll.dtype).tiny))
    return bracket.pow(gamma.abs()) * nll


@LOSSES.register(
    "adafocal",
    **paper_metadata("AdaFocal: Calibration-aware Adaptive Focal Loss", 2022, "2211.11838"),
    signed=("gamma", "gamma_min"),
    tune={"rate": "0.1:10:log", "switch": "0.05:1:log"},
)
class AdaFocal(PreciseBuffers, LearnsFromValidation):
    """AdaFocal: focal loss with one exponent per confidence bin, adapted to the validation set.

    A sample whose true class has probability ``p`` uses the exponent ``g_b`` of the bin b that contains ``p``:
    ``-(1 - p)^g_b log p``, or ``-(1 + p)^|g_b| log p`` where ``g_b < 0``. After each validation, with mean confidence
    ``C_b`` and accuracy ``A_b`` of its predictions in bin b, ``g_b <- g_b exp(+-rate (C_b - A_b))``, plus for
    ``g_b > 0`` and minus below, so that the loss becomes more focal where the model is overconfident. An exponent with
    ``|g_b| < switch`` changes sides: to ``-switch`` if it was positive, else to ``switch``. Finally it is clipped.

    Args:
        num_bins: Number of bins of equal mass; the paper uses 15.
        gamma: Exponent of every bin at the start, in ``[gamma_min, gamma_max]``.
        rate: How fast exponents follow the calibration gap, at least 0; the paper's lambda.
        switch: Size of an exponent below which it changes sign, at least 0; the paper's S_th.
        gamma_min: Smallest exponent, at most 0.
        gamma_max: Largest exponent, at least 0.
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Attributes:
        gammas: Buffer, exponent of each bin ``(num_bins,)`` float32.
        edges: Buffer, upper edges ``(num_bins - 1,)`` float32 of all bins but the last.

    State:
        Buffers change in :meth:`update_from_validation` only, in place. They stay float32 through ``.half()``. Under
        DDP each rank must pass the same predictions, as the training loop does.

    Raises:
        InputError: If an argument is out of range.

    Note:
        Bins are those of the last validation's confidences. A validation bin that ties leave empty keeps its exponent.
        No gradient flows through the choice of the exponent. Soft targets: each class contributes its share with the
        exponent of its own probability.

    Example:
        >>> criterion = AdaFocal(num_bins=2)
        >>> logits, target = torch.tensor([[2.0, 0.0], [0.2, 0.0]]), torch.tensor([1, 0])
        >>> criterion.update_from_validation(Predictions(logits, target))  # confident and wrong, unsure and right
        >>> criterion.gammas
        tensor([0.6375, 2.4128])
    """

    masked_classes = True
    precise: ClassVar[tuple[str, ...]] = ("gammas", "edges")
    gammas: Tensor
    edges: Tensor

    def __init__(
        self,
        *,
        num_bins: int = 15,
        gamma: float = 1.0,
        rate: float = 1.0,
        switch: float = 0.2,
        gamma_min: float = -2.0,
        gamma_max: float = 20.0,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.num_bins = check_count("num_bins", num_bins)
        self.rate = check_number("rate", rate, low=0)
        self.switch = check_number("switch", switch, low=0)
        self.gamma_min = check_number("gamma_min", gamma_min, high=0)
        self.gamma_max = check_number("gamma_max", gamma_max, low=0)
        self.gamma = check_number("gamma", gamma, low=self.gamma_min, high=self.gamma_max)
        self.register_buffer(
            "gammas", torch.full((self.num_bins,), self.gamma, dtype=torch.float32)
        )
        self.register_buffer(
            "edges", torch.arange(1, self.num_bins, dtype=torch.float32) / self.num_bins
        )

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        return batch.target_cost(
            lambda nll: signed_focal_loss(nll, self.sample_exponents((-nll.detach()).exp()))
        )

    def sample_exponents(self, probs: Tensor) -> Tensor:
        """Return the focal exponent for each probability of the true class, in the shape and dtype of ``probs``."""
        return self.gammas[torch.bucketize(probs, self.edges.to(probs.dtype))].to(probs.dtype)

    def learn_from(self, predictions: Predictions) -> None:
        """Recompute equal-mass bins of the validation confidences, and update the exponent of each bin.

        Args:
            predictions: Predictions on the validation set after an epoch; never on the test set.
        """
        confidence = predictions.tensors().confidence.float()
        correct = predictions.tensors().correct
        edges = _equal_mass_edges(confidence, self.num_bins)
        gap, filled = _calibration_gaps(
            torch.bucketize(confidence, edges), confidence, correct, self.num_bins
        )
        old = self.gammas.cpu().double()
        new = old * (self.rate * torch.where(old > 0, gap, -gap)).exp()
        # An exponent that is too small changes sides, or it could never leave 0 by multiplication.
        other_side = torch.where(new > 0, -self.switch, self.switch)
        new = torch.where(new.abs() < self.switch, other_side, new).clamp(
            self.gamma_min, self.gamma_max
        )
        self.gammas.copy_(torch.where(filled, new, old))
        self.edges.copy_(edges)


def _equal_mass_edges(values: Tensor, num_bins: int) -> Tensor:
    """Return the inner edges ``(num_bins - 1,)`` of bins of equal mass of ``values (N,)``, as far as ties allow."""
    # how many values lie below each edge
    below = torch.arange(1, num_bins, device="cpu") * len(values) // num_bins
    return values.sort().values[(below - 1).clamp(min=0)]


def _calibration_gaps(
    bin_index: Tensor, confidence: Tensor, correct: Tensor, num_bins: int
) -> tuple[Tensor, Tensor]:
    """Return confidence minus accuracy per bin, ``(num_bins,)`` float64, and a mask of non-empty bins."""
    count = torch.bincount(bin_index, minlength=num_bins)
    excess = torch.bincount(
        bin_index, weights=confidence.double() - correct.double(), minlength=num_bins
    )
    return excess / count.clamp(min=1), count > 0
