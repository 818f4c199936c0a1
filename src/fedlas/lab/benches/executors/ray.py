"""Ray executor: runs as tasks on a running cluster, or on a new one on this machine.

Source:
    Moritz et al.: Ray: A Distributed Framework for Emerging AI Applications, OSDI 2018. https://arxiv.org/abs/1712.05889
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.lab.benches.executors.base import (
    EXECUTORS,
    Executor,
    ExecutorEvents,
    Task,
    TaskResult,
    fetch_result,
)
from fedlas.lab.benches.executors.local import run_in_worker


@EXECUTORS.register("ray")
@dataclass(kw_only=True)
class RayExecutor(Executor):
    """Executor on a Ray cluster, one Ray task per run; Ray restarts a run whose process or machine was lost.

    Args:
        workers: Runs at a time; None is as many as the cluster has room for.
        gpus_per_run: As :class:`Executor`; None is one if the cluster has any.
        cpus_per_run: CPUs that a run reserves, and its threads.
        retries: How often Ray restarts a run whose process was killed.
        address: Address of the cluster, e.g. ``auto``; None is ``$RAY_ADDRESS``, else a cluster on this machine that
            ends with the bench.

    Raises:
        InputError: For numbers out of range, or, once it starts, a cluster that cannot be reached or has no room for a
            run.

    Note:
        All machines must see the bench's folder, the data and this package at the same paths. A restarted run resumes
        from its checkpoint, and repeats at most one epoch.
    """

    cpus_per_run: int | None = 1
    retries: int = 3
    address: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = self.address or os.environ.get("RAY_ADDRESS") or None

    def results(self, tasks: Sequence[Task], events: ExecutorEvents) -> Generator[TaskResult]:
        """Execute the tasks, in order as far as resources allow, and yield each result when it is available."""
        waiting = deque(self.prepare_task(task) for task in tasks)
        with self._connected_cluster() as ray:
            gpus = self._resolve_gpus_per_run(ray.cluster_resources())
            options = {"num_cpus": self.cpus_per_run, "num_gpus": gpus, "max_retries": self.retries}
            with warnings.catch_warnings(action="ignore"):
                # The function travels to the cluster once, and each call then brings only its task.
                remote = ray.remote(run_in_worker)
            running: dict[Any, Task] = {}
            try:
                while waiting or running:
                    while waiting and (self.workers is None or len(running) < self.workers):
                        task = waiting.popleft()
                        if not gpus:  # Ray lets a task that reserves no GPU see all of them
                            task = replace(
                                task, environment={**task.environment, "CUDA_VISIBLE_DEVICES": ""}
                            )
                        events.on_start(task)
                        running[
                            remote.options(**options, name=f"fedlas {task.run.name}").remote(task)
                        ] = task
                    # The short wait lets the progress bars move while nothing ends.
                    done, _ = ray.wait(list(running), num_returns=1, timeout=0.1)
                    events.on_idle()
                    for reference in done:
                        yield fetch_result(
                            running.pop(reference),
                            partial(ray.get, reference),
                            ray.exceptions.RayError,
                        )
            finally:
                # A bench that is stopped must not leave tasks on a cluster that others share.
                for reference in running:
                    ray.cancel(reference, force=True)

    @contextmanager
    def _connected_cluster(self) -> Iterator[Any]:
        """Yield the connected ``ray`` module; close the connection at the end if it was opened here."""
        # otherwise Ray replaces the builtin print permanently
        os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
        # Ray starts workers with niceness 15: on a machine that is busy they never get a turn.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray's own warnings are hidden: a user of this package cannot act on them
        with warnings.catch_warnings(action="ignore"):
            ray: Any = require("ray", extra="ray")
            # A connection that was there before belongs to the caller and stays open.
            opened_here = not ray.is_initialized()
            if opened_here:
                cpus = (
                    self.workers * (self.cpus_per_run or 1)
                    if self.workers and not self.address
                    else None
                )
                try:
                    ray.init(
                        address=self.address,
                        num_cpus=cpus,
                        include_dashboard=False if self.address is None else None,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
                except (ConnectionError, RuntimeError, ValueError) as error:
                    raise InputError(
                        "the Ray cluster must be reachable",
                        f"{self.address or 'a cluster on this machine'} ({' '.join(str(error).split())[:200]})",
                        "Check --executor-set address=... or $RAY_ADDRESS, or start a cluster: ray start --head.",
                    ) from error
        try:
            yield ray
        finally:
            if opened_here:
                with warnings.catch_warnings(action="ignore"):
                    ray.shutdown()

    def _resolve_gpus_per_run(self, resources: dict[str, float]) -> float:
        """Return the number of GPUs per run; raise InputError if the cluster is too small for one run."""
        total = resources.get("GPU", 0.0)
        gpus = float(total > 0) if self.gpus_per_run is None else self.gpus_per_run
        cpus = self.cpus_per_run or 1
        if gpus > total or cpus > resources.get("CPU", 0.0):
            raise InputError(
                f"the Ray cluster must have {cpus} CPUs and {gpus:g} GPUs, as one run needs",
                f"{resources.get('CPU', 0):g} CPUs and {total:g} GPUs",
                "Lower --cpus-per-run or --gpus-per-run, or add a machine to the cluster.",
            )
        return gpus
