"""Base classes of the losses, the validated ``Batch``, penalties, prediction memory and wrappers around other losses.

In: the arguments of a loss. Out: a ``Batch`` of positions, then the reduced loss. Private: ``fedlas.losses`` exports
what other packages and users need.
"""

from fedlas.losses._base.batch import (
    MIN_LOG_PROB,
    Batch,
    Reduction,
    can_read_values,
    cross_entropy,
    make_batch,
    reduce,
)
from fedlas.losses._base.composite import Base, BaseOptions, LossWrapper
from fedlas.losses._base.held_out import LearnsFromValidation
from fedlas.losses._base.informed import (
    PredictionMemoryLoss,
    SecondTargetLoss,
    check_index,
    target_distance,
)
from fedlas.losses._base.loss import (
    LOSSES,
    Loss,
    LossOptions,
    LossWithStrength,
    Mixed,
    PenalizedLoss,
    PreciseBuffers,
    Variant,
    copy_class_weights,
    map_row_blocks,
    paper_metadata,
)

__all__ = [
    "LOSSES",
    "MIN_LOG_PROB",
    "Base",
    "BaseOptions",
    "Batch",
    "LearnsFromValidation",
    "Loss",
    "LossOptions",
    "LossWithStrength",
    "LossWrapper",
    "Mixed",
    "PenalizedLoss",
    "PreciseBuffers",
    "PredictionMemoryLoss",
    "Reduction",
    "SecondTargetLoss",
    "Variant",
    "can_read_values",
    "check_index",
    "copy_class_weights",
    "cross_entropy",
    "make_batch",
    "map_row_blocks",
    "paper_metadata",
    "reduce",
    "target_distance",
]
