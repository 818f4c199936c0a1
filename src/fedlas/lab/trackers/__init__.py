"""Experiment trackers: the log of a run, shown in TensorBoard, Weights & Biases, MLflow or trackio as well."""

from fedlas.lab.trackers.base import TRACKERS, Held, Place, Tracker, trackers_of
from fedlas.lab.trackers.mlflow import MLflow
from fedlas.lab.trackers.tensorboard import TensorBoard
from fedlas.lab.trackers.trackio import Trackio
from fedlas.lab.trackers.wandb import WandB

__all__ = ["TRACKERS", "Held", "MLflow", "Place", "TensorBoard", "Tracker", "Trackio", "WandB", "trackers_of"]
