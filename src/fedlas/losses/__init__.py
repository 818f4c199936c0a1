"""Training losses, one paper per file; ``LOSSES`` lists all of them, ``LOSSES.build(name, ...)`` builds one by name.

In: logits and target of a batch, and the tensors that a loss names in ``needs``. Out: the loss, a scalar or one value
per position. ``_base`` holds the base classes, the validated batch and the wrappers. Names are imported at first use.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.losses._base import (
        LOSSES,
        Batch,
        LearnsFromValidation,
        Loss,
        LossOptions,
        LossWithStrength,
        LossWrapper,
        Mixed,
        PenalizedLoss,
        reduce,
    )
    from fedlas.losses.ablation import FedLASAblation
    from fedlas.losses.acls import ACLS
    from fedlas.losses.adaface import AdaFace
    from fedlas.losses.adafocal import AdaFocal
    from fedlas.losses.bcg import BidirectionalCalibrationGate, TopLogitsGate
    from fedlas.losses.binary import OneLogit, to_two_logits
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
    from fedlas.losses.multi_label import MultiLabelFedLAS, MultiLabelLoss, labels_as_two_classes
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
    "LossWrapper",
    "MaxSup",
    "MbLS",
    "Mixed",
    "Mixup",
    "Modulated",
    "MultiLabelFedLAS",
    "MultiLabelLoss",
    "NormConfidenceIndicator",
    "OneLogit",
    "OnlineLabelSmoothing",
    "OwnAverage",
    "PenalizedLoss",
    "PolyLoss",
    "RankMixupMRL",
    "RankMixupNDCG",
    "SpHOR",
    "Tempered",
    "TemperedPast",
    "TopLogitsGate",
    "WeightedMMCE",
    "adaptive_strength",
    "labels_as_two_classes",
    "reduce",
    "smoothed_cross_entropy",
    "to_two_logits",
]

HOMES = {
    "_base": "Batch LearnsFromValidation Loss LossOptions LossWithStrength LOSSES Mixed LossWrapper PenalizedLoss "
    "reduce",
    "label_smoothing": "CrossEntropy LabelSmoothing smoothed_cross_entropy",
    "margin": "MbLS",
    "modulated": "Modulated adaptive_strength",
    "fedlas": "FedLAS FedLASPlus",
    "ablation": "FedLASAblation",
    "acls": "ACLS",
    "adaface": "AdaFace",
    "adafocal": "AdaFocal",
    "bcg": "BidirectionalCalibrationGate TopLogitsGate",
    "binary": "OneLogit to_two_logits",
    "brier": "BrierLoss",
    "bsd": "BayesianSelfDistillation",
    "cals": "CALS",
    "comp_sum": "GCE",
    "controlled": "Controlled",
    "cpc": "CPC",
    "crl": "CRL",
    "cross_fitted": "CrossFitted",
    "dca": "DCA",
    "focal": "FLSD53 FocalLoss",
    "dual_focal": "DualFocalLoss",
    "distance_weighted": "BSCEGRA DualFocalGRA",
    "entropy_penalty": "EntropyPenalty",
    "instance_smoothing": "InstanceSmoothing",
    "label_relaxation": "LabelRelaxation",
    "logit_norm": "LogitNorm",
    "maxsup": "MaxSup",
    "mdca": "MDCA",
    "mixup": "CutMix Mixup",
    "mmce": "MMCE WeightedMMCE",
    "multi_label": "MultiLabelFedLAS MultiLabelLoss labels_as_two_classes",
    "nci": "NormConfidenceIndicator",
    "online_label_smoothing": "OnlineLabelSmoothing",
    "own_average": "OwnAverage",
    "poly": "PolyLoss",
    "ps_kd": "PSKD",
    "rankmixup": "RankMixupMRL RankMixupNDCG",
    "sphor": "SpHOR",
    "tempered": "Tempered TemperedPast",
    "vmf": "VMF",
}
"""The public names of each module; ``LOSSES`` imports them all, in this order, when it is asked for all losses."""

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(__name__, HOMES)

    def __dir__() -> list[str]:
        return __all__
