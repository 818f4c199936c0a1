"""Training losses, one paper a file; ``LOSSES`` lists them, and ``LOSSES.build(name, ...)`` makes one by name.

In: logits and target of a batch, and the tensors that a loss names in ``needs``. Out: the loss, a scalar or one value a
position. ``_base`` holds what the files share: the contract, the checked batch, penalties and composites.
"""

from fedlas.losses._base import (
    LOSSES,
    Batch,
    LearnsFromValidation,
    Loss,
    LossOptions,
    LossWithStrength,
    Mixed,
    OnBase,
    Penalized,
    reduce,
)
from fedlas.losses.ablation import FedLASAblation
from fedlas.losses.acls import ACLS
from fedlas.losses.adaface import AdaFace
from fedlas.losses.adafocal import AdaFocal
from fedlas.losses.bcg import BidirectionalCalibrationGate, TopLogitsGate
from fedlas.losses.binary import OneLogit, two_logits
from fedlas.losses.brier import BrierLoss
from fedlas.losses.bsd import BayesianSelfDistillation
from fedlas.losses.cals import CALS
from fedlas.losses.comp_sum import GCE
from fedlas.losses.controlled import Controlled
from fedlas.losses.cpc import CPC
from fedlas.losses.crl import CRL
from fedlas.losses.cross_fitted import CrossFitted
from fedlas.losses.dca import DCA
from fedlas.losses.distance_weighted import BSCEGRA, DualFocalGRA
from fedlas.losses.dual_focal import DualFocalLoss
from fedlas.losses.entropy_penalty import EntropyPenalty
from fedlas.losses.fedlas import FedLAS, FedLASPlus
from fedlas.losses.focal import FLSD53, FocalLoss
from fedlas.losses.instance_smoothing import InstanceSmoothing
from fedlas.losses.label_relaxation import LabelRelaxation
from fedlas.losses.label_smoothing import CrossEntropy, LabelSmoothing, smoothed_cross_entropy
from fedlas.losses.logit_norm import LogitNorm
from fedlas.losses.margin import MbLS
from fedlas.losses.maxsup import MaxSup
from fedlas.losses.mdca import MDCA
from fedlas.losses.mixup import CutMix, Mixup
from fedlas.losses.mmce import MMCE, WeightedMMCE
from fedlas.losses.modulated import Modulated, adaptive_strength
from fedlas.losses.multi_label import MultiLabelFedLAS, MultiLabelLoss, label_pairs
from fedlas.losses.nci import NormConfidenceIndicator
from fedlas.losses.online_label_smoothing import OnlineLabelSmoothing
from fedlas.losses.own_average import OwnAverage
from fedlas.losses.poly import PolyLoss
from fedlas.losses.ps_kd import PSKD
from fedlas.losses.rankmixup import RankMixupMRL, RankMixupNDCG
from fedlas.losses.sphor import SpHOR
from fedlas.losses.tempered import Tempered, TemperedPast
from fedlas.losses.vmf import VMF

__all__ = [
    "ACLS",
    "BSCEGRA",
    "CALS",
    "CPC",
    "CRL",
    "DCA",
    "FLSD53",
    "GCE",
    "LOSSES",
    "MDCA",
    "MMCE",
    "PSKD",
    "VMF",
    "AdaFace",
    "AdaFocal",
    "Batch",
    "BayesianSelfDistillation",
    "BidirectionalCalibrationGate",
    "BrierLoss",
    "Controlled",
    "CrossEntropy",
    "CrossFitted",
    "CutMix",
    "DualFocalGRA",
    "DualFocalLoss",
    "EntropyPenalty",
    "FedLAS",
    "FedLASAblation",
    "FedLASPlus",
    "FocalLoss",
    "InstanceSmoothing",
    "LabelRelaxation",
    "LabelSmoothing",
    "LearnsFromValidation",
    "LogitNorm",
    "Loss",
    "LossOptions",
    "LossWithStrength",
    "MaxSup",
    "MbLS",
    "Mixed",
    "Mixup",
    "Modulated",
    "MultiLabelFedLAS",
    "MultiLabelLoss",
    "NormConfidenceIndicator",
    "OnBase",
    "OneLogit",
    "OnlineLabelSmoothing",
    "OwnAverage",
    "Penalized",
    "PolyLoss",
    "RankMixupMRL",
    "RankMixupNDCG",
    "SpHOR",
    "Tempered",
    "TemperedPast",
    "TopLogitsGate",
    "WeightedMMCE",
    "adaptive_strength",
    "label_pairs",
    "reduce",
    "smoothed_cross_entropy",
    "two_logits",
]
