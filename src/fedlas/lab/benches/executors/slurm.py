"""Slurm executor: runs as the jobs of one job array.

Source:
    Yoo, Jette, Grondona: SLURM: Simple Linux Utility for Resource Management, JSSPP 2003.
    https://doi.org/10.1007/10968987_3
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError, check_count
from fedlas._core.extras import require
from fedlas._core.files import require_no_links
from fedlas._core.text import quote_path
from fedlas.lab.benches.executors.base import (
    EXECUTORS,
    Executor,
    ExecutorEvents,
    Task,
    TaskResult,
    fetch_result,
    record_failure,
)
from fedlas.lab.benches.executors.local import run_in_worker

_POLLS_PER_QUEUE_CHECK = 60
"""Polls, half a second apart, between two checks of the queue."""


@EXECUTORS.register("slurm")
@dataclass(kw_only=True)
class SlurmExecutor(Executor):
    """Executor on Slurm through submitit: a job array with one job per run, resumed after time limit or preemption.

    Args:
        workers: Jobs at a time; None is as many as Slurm allows.
        gpus_per_run: GPUs of a job, all on one machine; 0 for a cluster without GPUs.
        cpus_per_run: CPUs of a job, and its threads.
        retries: How often a job that reached its time limit is queued again.
        minutes: Time limit of a job. A run that takes longer resumes from its checkpoint in another job.
        setup: Shell commands before each job, such as ``module load cuda``.
        sbatch: Further options of ``sbatch``, e.g. ``{partition: gpu, account: me, mem: 32GB}``; on the command line
            ``--executor-set sbatch.partition=gpu``.
        wait: Whether to wait for the jobs and report; if not, they are only submitted.

    Raises:
        InputError: For numbers out of range, or, once it starts, if there is no Slurm.

    Note:
        Ctrl-C cancels the jobs, as it stops the runs of every executor. The output of jobs and submitit's files go to
        ``.slurm/`` next to the run folders, which all machines must see at the same path.
    """

    gpus_per_run: float | None = 1
    cpus_per_run: int | None = 4
    retries: int = 3
    minutes: int = 240
    setup: Sequence[str] = ()
    sbatch: dict[str, Any] | None = None
    wait: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus_per_run != int(self.gpus_per_run or 0):
            raise InputError(
                "gpus_per_run must be a whole number",
                self.gpus_per_run,
                "Slurm assigns whole GPUs: choose 0, 1 or more.",
            )
        check_count("minutes", self.minutes)
        if isinstance(self.setup, str) or not all(isinstance(line, str) for line in self.setup):
            raise InputError(
                "setup must be a list of shell commands",
                self.setup,
                "Write e.g. setup=[module load cuda].",
            )
        if not isinstance(self.sbatch, dict | None):
            raise InputError(
                "sbatch must map options to values",
                self.sbatch,
                "Write e.g. sbatch={partition: gpu}.",
            )

    def results(self, tasks: Sequence[Task], events: ExecutorEvents) -> Generator[TaskResult]:
        """Submit the tasks; with ``wait``, yield each result when it is available."""
        executor = self._submitit_executor(tasks)
        folder = tasks[0].run.folder.parent
        prepared_tasks = [self.prepare_task(task) for task in tasks]
        # One array of jobs, and not a job for each run, lets Slurm limit how many run at a time.
        try:
            with executor.batch():
                jobs = [executor.submit(_ResumableTask(task)) for task in prepared_tasks]
        except require("submitit.core.utils", extra="slurm").FailedJobError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            fix = "Change the requested resources, such as partition, account, minutes or mem."
            raise InputError(
                "Slurm must accept the jobs", lines[-1] if lines else error, fix
            ) from error
        array_id = str(jobs[0].job_id).split("_")[0]
        events.on_message(
            f"submitted as Slurm job {array_id}; its output is in {folder / '.slurm'}"
        )
        for task in prepared_tasks:
            events.on_start(task)
        if not self.wait:
            events.on_message(
                f"not waiting; after the jobs have ended: fedlas runs report {quote_path(folder)}"
            )
            return
        # From here an interrupt cancels the remaining jobs, because nothing would collect them.
        pending = dict(zip(jobs, prepared_tasks, strict=True))
        missing_jobs: set[Any] = set()
        try:
            for turn in count(1):
                # Without accounting, submitit waits for a killed job forever: a job that two checks miss is lost.
                lost_jobs: set[Any] = set()
                if turn % _POLLS_PER_QUEUE_CHECK == 0 and (queue := queued_job_ids()) is not None:
                    missing_now = {job for job in pending if str(job.job_id) not in queue}
                    lost_jobs, missing_jobs = missing_jobs & missing_now, missing_now
                for job, task in list(pending.items()):
                    if job.done():
                        del pending[job]
                        yield fetch_result(task, job.result)
                    elif job in lost_jobs:
                        del pending[job]
                        reason = (
                            f"Slurm job {job.job_id} ended without a result: killed or canceled"
                        )
                        yield record_failure(
                            task.run, f"{reason}; its output is in {job.paths.stdout}"
                        )
                events.on_idle()
                if not pending:
                    return
                time.sleep(0.5)
        finally:
            for job in pending:
                job.cancel(check=False)
            if pending:
                events.on_message(f"canceled {len(pending)} Slurm jobs of {array_id}")

    def _submitit_executor(self, tasks: Sequence[Task]) -> Any:
        """Return a ``submitit.SlurmExecutor`` with the options of this executor."""
        submitit = require("submitit", extra="slurm")
        folder = job_folder(tasks[0].run.folder.parent)
        try:
            executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=self.retries)
        except RuntimeError as error:
            raise InputError(
                "Slurm must be installed on this machine",
                "no srun",
                "Start it on a machine of the cluster.",
            ) from error
        executor.update_parameters(
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=self.cpus_per_run,
            gpus_per_node=int(self.gpus_per_run or 0) or None,
            time=self.minutes,
            job_name=f"fedlas-{tasks[0].run.recipe.name.replace('/', '-')}",
            array_parallelism=min(len(tasks), self.workers or len(tasks)),
            setup=list(self.setup) or None,
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **(self.sbatch or {})},
        )
        return executor


def queued_job_ids() -> list[str] | None:
    """Return the ids of pending and running jobs in Slurm's queue, or None if ``squeue`` fails."""
    try:
        command = ["squeue", "--noheader", "--array", "--format=%i"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None


def job_folder(bench: Path) -> Path:
    """Return the folder for submitit's files.

    Raises:
        InputError: If a link leads into the folder.
    """
    return require_no_links(bench, bench / ".slurm")


class _ResumableTask:
    """Task that submitit requeues after a time limit; the run resumes from its checkpoint."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self) -> TaskResult:
        return run_in_worker(self.task)

    def checkpoint(self) -> Any:
        """Return the submission that submitit requeues."""
        return require("submitit.helpers", extra="slurm").DelayedSubmission(self)
