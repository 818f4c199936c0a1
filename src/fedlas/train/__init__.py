"""Training: a loop on accelerate, checkpoints that survive a kill, and prediction."""

from fedlas.train.checkpoint import load_checkpoint, save_checkpoint
from fedlas.train.config import OptimizerConfig, ScheduleConfig, TrainConfig, check_select
from fedlas.train.drift import drifted_predictions
from fedlas.train.log import read_log
from fedlas.train.loop import DivergedError, Fitted, fit
from fedlas.train.optim import build_optimizer, build_schedule
from fedlas.train.predict import predict
from fedlas.train.seed import derive, seed_everything

__all__ = [
    "DivergedError",
    "Fitted",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "build_optimizer",
    "build_schedule",
    "check_select",
    "derive",
    "drifted_predictions",
    "fit",
    "load_checkpoint",
    "predict",
    "read_log",
    "save_checkpoint",
    "seed_everything",
]
