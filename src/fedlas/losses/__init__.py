"""Training losses, one paper a file. ``LOSSES`` lists them; ``LOSSES.build(name, ...)`` makes one by name."""

from fedlas.losses.acls import ACLS, adaptive_penalty
from fedlas.losses.base import LOSSES, Batch, Loss
from fedlas.losses.bcg import BidirectionalCalibrationGate
from fedlas.losses.dual_focal import DualFocalLoss
from fedlas.losses.entropy_penalty import EntropyPenalty
from fedlas.losses.fedlas import FeatureModulated, FedLAS, FedLASPlus, adaptive_strength
from fedlas.losses.focal import FLSD53, FocalLoss
from fedlas.losses.label_smoothing import CrossEntropy, LabelSmoothing, smoothed_cross_entropy
from fedlas.losses.margin import MbLS, margin_penalty
from fedlas.losses.nci import NormConfidenceIndicator

__all__ = [
    "ACLS",
    "FLSD53",
    "LOSSES",
    "Batch",
    "BidirectionalCalibrationGate",
    "CrossEntropy",
    "DualFocalLoss",
    "EntropyPenalty",
    "FeatureModulated",
    "FedLAS",
    "FedLASPlus",
    "FocalLoss",
    "LabelSmoothing",
    "Loss",
    "MbLS",
    "NormConfidenceIndicator",
    "adaptive_penalty",
    "adaptive_strength",
    "margin_penalty",
    "smoothed_cross_entropy",
]
