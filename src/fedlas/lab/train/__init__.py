"""The training loop, on accelerate, and checkpoints that survive a kill at any moment.

In: a ``TrainingJob``: objective, batches, configuration of loop, optimizer and schedule. Out: the objective with the
best epoch's weights, and a folder with ``checkpoint.pt`` and ``log.jsonl``.
"""

from fedlas._core.streams import derive, seed_everything
from fedlas.lab.train.checkpoint import load_checkpoint, save_checkpoint
from fedlas.lab.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from fedlas.lab.train.hooks import Hook
from fedlas.lab.train.job import TrainingJob
from fedlas.lab.train.log import read_log
from fedlas.lab.train.loop import DivergedError, Fitted, fit
from fedlas.lab.train.optim import build_optimizer, build_schedule
from fedlas.lab.train.selection import check_metric, check_select, merit

__all__ = [
    "DivergedError",
    "Fitted",
    "Hook",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "TrainingJob",
    "build_optimizer",
    "build_schedule",
    "check_metric",
    "check_select",
    "derive",
    "fit",
    "load_checkpoint",
    "merit",
    "read_log",
    "save_checkpoint",
    "seed_everything",
]
