"""Base classes of the losses, the validated ``Batch``, penalties, prediction memory and wrappers around other losses.

In: the arguments of a loss. Out: a ``Batch`` of positions, then the reduced loss. Private: ``fedlas.losses`` exports
what other packages and users need.
"""

from fedlas.losses._base.batch import (
    LEAST,
    Batch,
    Reduction,
    can_look,
    cross_entropy,
    prepare,
    reduce,
)
from fedlas.losses._base.composite import Base, BaseOptions, OnBase
from fedlas.losses._base.held_out import LearnsFromValidation
from fedlas.losses._base.informed import Informed, Remembering, check_index, target_distance
from fedlas.losses._base.loss import (
    LOSSES,
    Loss,
    LossOptions,
    LossWithStrength,
    Mixed,
    Penalized,
    PreciseBuffers,
    Variant,
    class_weights,
    in_blocks,
    paper,
)

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
    "Reduction",
    "Remembering",
    "Variant",
    "can_look",
    "check_index",
    "class_weights",
    "cross_entropy",
    "in_blocks",
    "paper",
    "prepare",
    "reduce",
    "target_distance",
]
