"""Training losses, one paper a file. ``LOSSES`` lists them; ``LOSSES.build(name, ...)`` makes one by name."""

from fedlas.losses.ablation import FedLASAblation
from fedlas.losses.acls import ACLS, adaptive_penalty
from fedlas.losses.adaface import AdaFace, adaptive_margin
from fedlas.losses.adafocal import AdaFocal, signed_focal
from fedlas.losses.base import LOSSES, Batch, Loss, LossOptions, Mixed
from fedlas.losses.bcg import BidirectionalCalibrationGate
from fedlas.losses.brier import BrierLoss, squared_error
from fedlas.losses.cals import CALS, phr_penalty
from fedlas.losses.cpc import CPC, pairwise_constraints
from fedlas.losses.crl import CRL, ranking_penalty
from fedlas.losses.dca import DCA, confidence_gap
from fedlas.losses.dual_focal import DualFocalLoss
from fedlas.losses.entropy_penalty import EntropyPenalty
from fedlas.losses.fedlas import FedLAS, FedLASPlus
from fedlas.losses.focal import FLSD53, FocalLoss
from fedlas.losses.label_smoothing import CrossEntropy, LabelSmoothing, smoothed_cross_entropy
from fedlas.losses.logit_norm import LogitNorm, normalised_logits
from fedlas.losses.margin import MbLS, margin_penalty
from fedlas.losses.maxsup import MaxSup, top_excess
from fedlas.losses.mdca import MDCA, class_gap
from fedlas.losses.mixup import CutMix, Mixup
from fedlas.losses.mmce import MMCE, WeightedMMCE, kernel_calibration_error
from fedlas.losses.modulated import Modulated, adaptive_strength
from fedlas.losses.nci import NormConfidenceIndicator
from fedlas.losses.poly import PolyLoss
from fedlas.losses.rankmixup import RankMixupMRL, RankMixupNDCG
from fedlas.losses.vmf import VMF, uncertain_cross_entropy
from fedlas.losses.vmf_normaliser import log_mgf, log_normaliser, resultant_rate

__all__ = [
    "ACLS",
    "CALS",
    "CPC",
    "CRL",
    "DCA",
    "FLSD53",
    "LOSSES",
    "MDCA",
    "MMCE",
    "VMF",
    "AdaFace",
    "AdaFocal",
    "Batch",
    "BidirectionalCalibrationGate",
    "BrierLoss",
    "CrossEntropy",
    "CutMix",
    "DualFocalLoss",
    "EntropyPenalty",
    "FedLAS",
    "FedLASAblation",
    "FedLASPlus",
    "FocalLoss",
    "LabelSmoothing",
    "LogitNorm",
    "Loss",
    "LossOptions",
    "MaxSup",
    "MbLS",
    "Mixed",
    "Mixup",
    "Modulated",
    "NormConfidenceIndicator",
    "PolyLoss",
    "RankMixupMRL",
    "RankMixupNDCG",
    "WeightedMMCE",
    "adaptive_margin",
    "adaptive_penalty",
    "adaptive_strength",
    "class_gap",
    "confidence_gap",
    "kernel_calibration_error",
    "log_mgf",
    "log_normaliser",
    "margin_penalty",
    "normalised_logits",
    "pairwise_constraints",
    "phr_penalty",
    "ranking_penalty",
    "resultant_rate",
    "signed_focal",
    "smoothed_cross_entropy",
    "squared_error",
    "top_excess",
    "uncertain_cross_entropy",
]
