"""Training loop on accelerate, with checkpoints that survive a kill at any moment.

Input: a ``TrainingJob`` with objective, batches, and configurations of loop, optimizer and schedule. Output: the
objective with the best epoch's weights, and a folder with ``checkpoint.pt`` and ``log.jsonl``.
"""

from typing import TYPE_CHECKING

from fedlas._core.lazy import at_first_use

if TYPE_CHECKING:
    from fedlas.lab.train.checkpoint import differences, load_checkpoint, save_checkpoint
    from fedlas.lab.train.config import (
        OptimizerConfig,
        ScheduleConfig,
        TrainConfig,
        check_select,
        merit,
        refined_nll,
    )
    from fedlas.lab.train.engine import build_optimizer, build_schedule, precision_text, suited
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
    "check_select",
    "check_trackers",
    "differences",
    "fit",
    "freeze",
    "load_checkpoint",
    "merit",
    "precision_text",
    "read_log",
    "refined_nll",
    "save_checkpoint",
    "suited",
    "warn_once",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the package
    __getattr__ = at_first_use(
        __name__,
        {
            "checkpoint": "differences load_checkpoint save_checkpoint",
            "config": "OptimizerConfig ScheduleConfig TrainConfig check_select merit refined_nll",
            "engine": "build_optimizer build_schedule precision_text suited",
            "job": "TrainingJob",
            "layers": "freeze",
            "log": "TrainingProgress alarm_epochs read_log warn_once",
            "loop": "DivergedError fit",
            "tracking": "TRACKERS Tracking check_trackers",
        },
    )
