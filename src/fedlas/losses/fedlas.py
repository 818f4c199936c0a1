"""FedLAS and FedLAS+: label smoothing whose strength depends on each sample's feature norm.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654,
ECCV 2026). Its code spells the method FeDLaS and calls the gate DCG.
"""

from __future__ import annotations

from typing import Unpack

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES
from fedlas.losses.label_smoothing import LabelSmoothing
from fedlas.losses.margin import MbLS
from fedlas.losses.modulated import PAPER_METADATA, Modulated, ModulatedOptions


@LOSSES.register(
    "fedlas",
    **PAPER_METADATA,
    tune={"alpha": "0.005:0.3:log", "beta": "0.25:16:log", "momentum": "0.001:1:log"},
)
class FedLAS(Modulated):
    """FedLAS: ``(1 - alpha_i) (-log p_y) + alpha_i mean_k(-log p_k)`` with a separate strength for every sample.

    ``alpha_i = 2 alpha sigmoid(beta psi_i Z_i)``: ``Z_i`` is the standardized feature norm
    (:class:`~fedlas.losses.NormConfidenceIndicator`), ``psi_i`` in {-1, 0, +1} the gate's direction
    (:class:`~fedlas.losses.BidirectionalCalibrationGate`).

    Args:
        num_classes: Number of classes C.
        alpha: Strength at the mean feature norm, in [0, 0.5].
        beta: Sensitivity to the standardized norm, at least 0; 0 is plain label smoothing.
        momentum: NCI's weight of the new batch, in (0, 1].
        norm_p: Order of the feature norm, at least 1.
        variant: ``"paper"`` or ``"reference"``, the start values of published code; see :class:`Modulated`.
        gate_top: Number of largest logits that the gate reads, for many classes; None: all (:class:`TopLogitsGate`).
        nci: Replaces the indicator; called as ``nci(features (N, D), valid=(N,) bool | None) -> (N,)``.
        gate: Replaces the gate; called as ``gate(logits (N, C)) -> (N,)`` in [-1, 1].
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions affect neither NCI, gate nor mean.

    Attributes:
        nci: The indicator; holds the running moments.
        gate: The gate; its parameters must be given to the optimizer (``fedlas.param_groups`` does).

    Raises:
        InputError: If an argument is out of range.

    Note:
        Dense logits with features per image have one strength an image, from the mean logits of its valid positions.
        NormConfidenceIndicator names the differences from the published code.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> criterion = FedLAS(num_classes=3, alpha=0.1)
        >>> logits, features = torch.randn(4, 3), torch.randn(4, 8)
        >>> loss = criterion(logits, torch.tensor([0, 1, 2, 0]), features=features)
        >>> criterion.smoothing(logits, features).shape
        torch.Size([4])
    """

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 0.05,
        beta: float = 4.0,
        **options: Unpack[ModulatedOptions],
    ) -> None:
        base = LabelSmoothing(alpha=check_number("alpha", alpha, low=0, high=0.5))
        super().__init__(num_classes=num_classes, base=base, beta=beta, **options)


@LOSSES.register(
    "fedlas+",
    **PAPER_METADATA,
    tune={
        "alpha": "0.01:0.5:log",
        "beta": "0.25:16:log",
        "margin": "0:20",
        "momentum": "0.001:1:log",
    },
)
class FedLASPlus(Modulated):
    """FedLAS+: ``(1 - alpha_i) (-log p_y) + alpha_i mean_k relu(max_j z_j - z_k - margin)``.

    FedLAS on margin-based label smoothing; :class:`FedLAS` defines ``alpha_i``.

    Args:
        num_classes: Number of classes C.
        alpha: Strength at the mean feature norm, in [0, 0.5].
        beta: Sensitivity to the standardized norm, at least 0.
        margin: Logit distance that costs nothing, at least 0.
        momentum: NCI's weight of the new batch, in (0, 1].
        norm_p: Order of the feature norm, at least 1.
        variant: ``"paper"`` or ``"reference"``, the start values of published code; see :class:`Modulated`.
        gate_top: Number of largest logits that the gate reads, for many classes; None: all (:class:`TopLogitsGate`).
        nci: Replaces the indicator; called as ``nci(features (N, D), valid=(N,) bool | None) -> (N,)``.
        gate: Replaces the gate; called as ``gate(logits (N, C)) -> (N,)`` in [-1, 1].
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions affect neither NCI, gate, penalty nor
            mean. The penalty of a sample is weighted like its cross-entropy.

    Raises:
        InputError: If an argument is out of range.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> criterion = FedLASPlus(num_classes=3)
        >>> loss = criterion(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), features=torch.randn(4, 8))
    """

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 0.1,
        beta: float = 0.5,
        margin: float = 6.0,
        **options: Unpack[ModulatedOptions],
    ) -> None:
        check_number("alpha", alpha, low=0, high=0.5)
        check_number("margin", margin, low=0)
        base = MbLS(alpha=alpha, margin=margin, form="convex")
        super().__init__(num_classes=num_classes, base=base, beta=beta, **options)
        self.margin = base.margin
