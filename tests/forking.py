"""A process that imports everything once, then forks one a job: a start costs milliseconds instead of seconds."""

import contextlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

from stop_by_count import arm


@contextlib.contextmanager
def forking_server(program):
    """Run a program that calls :func:`serve`, and yield its process; it ends with the context."""
    tests, paths = Path(__file__).parent, os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{tests}{os.pathsep}{paths}",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield process
    process.stdin.close()
    process.wait(1500)
    process.stdout.close()


def status_of(server, job):
    """Return the exit status of one job: what it returns, or minus the signal that ended it."""
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def serve(run, prepare=lambda job: None):
    """Do each job of standard input in a fork, and print its exit status.

    Args:
        run: Does a job, and returns its status. What it prints to standard output is dropped.
        prepare: Is called with the job before the fork, for what its children shall inherit.
    """
    for line in sys.stdin:
        job = json.loads(line)
        prepare(job)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                if job["die"]:
                    arm(*job["die"])
                status = run(job)
            except SystemExit as end:
                status = end.code
            except BaseException:  # noqa: BLE001 -- a fork must end here, not go on as its parent
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
