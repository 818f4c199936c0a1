"""Executors of runs: in this process, in several processes, on a Ray cluster, or on Slurm.

In: tasks, each a run with what another process needs to do it. Out: a ``Result`` for each, in the order they end.
"""

# Importing a module registers its executor, too.
from fedlas.lab.benches.executors.base import EXECUTORS, Executor, Task, TaskResult, try_run_task
from fedlas.lab.benches.executors.local import LocalExecutor
from fedlas.lab.benches.executors.progress import JointProgress
from fedlas.lab.benches.executors.ray import RayExecutor
from fedlas.lab.benches.executors.slurm import SlurmExecutor

__all__ = [
    "EXECUTORS",
    "Executor",
    "JointProgress",
    "LocalExecutor",
    "RayExecutor",
    "SlurmExecutor",
    "Task",
    "TaskResult",
    "try_run_task",
]
