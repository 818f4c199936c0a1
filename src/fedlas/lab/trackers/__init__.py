"""Experiment trackers: TensorBoard, Weights & Biases, MLflow and trackio, which show the log of a run.

In: a run's log and configuration, epoch by epoch. Out: the same numbers in the tool, and each epoch once.
"""

from fedlas.lab.trackers.base import TRACKERS, Held, Place, Tracker, trackers_of
from fedlas.lab.trackers.mlflow import MLflow
from fedlas.lab.trackers.tensorboard import TensorBoard
from fedlas.lab.trackers.trackio import Trackio
from fedlas.lab.trackers.wandb import WandB

__all__ = ["TRACKERS", "Held", "MLflow", "Place", "TensorBoard", "Tracker", "Trackio", "WandB", "trackers_of"]
