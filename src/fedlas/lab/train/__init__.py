"""Training loop on accelerate, with checkpoints that survive a kill at any moment.

Input: a ``TrainingJob`` with objective, batches, and configurations of loop, optimizer and schedule. Output: the
objective with the best epoch's weights, and a folder with ``checkpoint.pt`` and ``log.jsonl``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import lazy_getattr

if TYPE_CHECKING:
    from fedlas.lab.train.checkpoint import config_differences, load_checkpoint, save_checkpoint
    from fedlas.lab.train.config import (
        OptimizerConfig,
        ScheduleConfig,
        TrainConfig,
        check_selection_metric,
        refined_nll,
        selection_score,
    )
    from fedlas.lab.train.engine import (
        build_optimizer,
        build_schedule,
        describe_precision,
        resolve_for_device,
    )
    from fedlas.lab.train.job import TrainingJob
    from fedlas.lab.train.layers import freeze
    from fedlas.lab.train.log import TrainingProgress, alarm_epochs, read_log, warn_once
    from fedlas.lab.train.loop import DivergedError, fit
    from fedlas.lab.train.tracking import TRACKERS, Tracking, check_trackers

__all__ = [
    "TRACKERS",
    "DivergedError",
    "OptimizerConfig",
    "ScheduleConfig",
    "Tracking",
    "TrainConfig",
    "TrainingJob",
    "TrainingProgress",
    "alarm_epochs",
    "build_optimizer",
    "build_schedule",
    "check_selection_metric",
    "check_trackers",
    "config_differences",
    "describe_precision",
    "fit",
    "freeze",
    "load_checkpoint",
    "read_log",
    "refined_nll",
    "resolve_for_device",
    "save_checkpoint",
    "selection_score",
    "warn_once",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = lazy_getattr(
        __name__,
        {
            "checkpoint": "config_differences load_checkpoint save_checkpoint",
            "config": "OptimizerConfig ScheduleConfig TrainConfig check_selection_metric selection_score refined_nll",
            "engine": "build_optimizer build_schedule describe_precision resolve_for_device",
            "job": "TrainingJob",
            "layers": "freeze",
            "log": "TrainingProgress alarm_epochs read_log warn_once",
            "loop": "DivergedError fit",
            "tracking": "TRACKERS Tracking check_trackers",
        },
    )
