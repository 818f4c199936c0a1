"""Shared parts of the losses: the contract, the checked batch, closed forms, penalties and composites.

In: the arguments of a loss. Out: a ``Batch`` of positions, then the reduced loss. Private: ``fedlas.losses`` exports
what other packages and users need.
"""

from fedlas.losses._base.batch import Batch, Reduction, can_look, reduce
from fedlas.losses._base.composite import Base, BaseOptions, OnBase, pass_validation_on
from fedlas.losses._base.confidence import nll_and_confidence
from fedlas.losses._base.extremes import equal_to, row_max, row_min
from fedlas.losses._base.held_out import LearnsFromValidation
from fedlas.losses._base.informed import Informed, Remembering, recalled, target_distance
from fedlas.losses._base.loss import LOSSES, Loss, LossOptions, Mixed, Variant, class_weights, paper, without_autocast
from fedlas.losses._base.memory import PredictionMemory, check_index
from fedlas.losses._base.mixing import check_mixable, draw_partners, draw_share
from fedlas.losses._base.precise import PreciseBuffers
from fedlas.losses._base.prepare import prepare
from fedlas.losses._base.smoothed import LEAST, smoothed_nll
from fedlas.losses._base.strength import LossWithStrength, Penalized

__all__ = [
    "LEAST",
    "LOSSES",
    "Base",
    "BaseOptions",
    "Batch",
    "Informed",
    "LearnsFromValidation",
    "Loss",
    "LossOptions",
    "LossWithStrength",
    "Mixed",
    "OnBase",
    "Penalized",
    "PreciseBuffers",
    "PredictionMemory",
    "Reduction",
    "Remembering",
    "Variant",
    "can_look",
    "check_index",
    "check_mixable",
    "class_weights",
    "draw_partners",
    "draw_share",
    "equal_to",
    "nll_and_confidence",
    "paper",
    "pass_validation_on",
    "prepare",
    "recalled",
    "reduce",
    "row_max",
    "row_min",
    "smoothed_nll",
    "target_distance",
    "without_autocast",
]
