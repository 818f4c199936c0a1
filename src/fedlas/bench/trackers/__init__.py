"""Experiment trackers: the log of a run, shown in TensorBoard, Weights & Biases, MLflow or trackio as well."""

from fedlas.bench.trackers.base import TRACKERS, Held, Place, Tracker, trackers_of
from fedlas.bench.trackers.mlflow import MLflow
from fedlas.bench.trackers.tensorboard import TensorBoard
from fedlas.bench.trackers.trackio import Trackio
from fedlas.bench.trackers.wandb import WandB

__all__ = ["TRACKERS", "Held", "MLflow", "Place", "TensorBoard", "Tracker", "Trackio", "WandB", "trackers_of"]
