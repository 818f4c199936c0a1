"""Where the runs of a bench happen: in this process, in several, on a Ray cluster, or on Slurm."""

# Importing a module registers its executor.
from fedlas.bench.executors import local, ray, slurm  # noqa: F401
from fedlas.bench.executors.base import EXECUTORS, Executor, Result, Task, attempt
from fedlas.bench.executors.local import LocalExecutor
from fedlas.bench.executors.progress import JointProgress

__all__ = ["EXECUTORS", "Executor", "JointProgress", "LocalExecutor", "Result", "Task", "attempt"]
