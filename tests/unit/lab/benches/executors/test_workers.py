"""A worker process is started again if the server that forks it was killed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fedlas.lab.benches.executors import local


class Ends:
    closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), ConnectionRefusedError()])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_killed_server_of_forks_is_replaced_once(tmp_path, monkeypatch, failures, error):
    pipes, starts = [], []

    class Process:
        def __init__(self, **_options):
            pass

        def start(self):
            starts.append(self)
            if len(starts) <= failures:
                raise error

    def pipe():
        pipes.append((Ends(), Ends()))
        return pipes[-1]

    monkeypatch.setattr(
        local, "multiprocessing_context", lambda: SimpleNamespace(Pipe=pipe, Process=Process)
    )
    if failures == 2:
        with pytest.raises(type(error)):
            local.Worker(tmp_path, 0, None)
    else:
        worker = local.Worker(tmp_path, 0, None)
        assert not worker.connection.closed
        assert worker.process is starts[-1]
    assert all(theirs.closed for _, theirs in pipes)
    assert [ours.closed for ours, _ in pipes[: len(pipes) - 1]] == [True] * (len(pipes) - 1)


@pytest.mark.system
@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems do not tell a process of its parent's end"
)
def test_the_server_of_forks_ends_with_its_parent():
    child = "import fedlas.lab.runs.orphan, signal; print('ready', flush=True); signal.pause()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == ""  # the pipe closes when the child ends


def test_full_disk_does_not_stop_worker(tmp_path):
    """On a read-only disk every worker ended with a traceback, three times a run."""
    (tmp_path / ".workers").touch()
    with local.open_worker_log(tmp_path / ".workers" / "0.log") as file:
        assert file.name == os.devnull
