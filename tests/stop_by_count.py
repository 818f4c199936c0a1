"""A process that stops itself at its n-th rename, write or step, so that it stops at the same place on every machine.

``python tests/stop_by_count.py EVENT COUNT SIGNAL NAME train digits ...`` is ``fedlas runs train digits ...`` that gets
``SIGNAL`` at the ``COUNT``-th ``EVENT``; renames count if the new file is called ``NAME``, or all if ``NAME`` is ``*``.
"""

import os
import signal
import sys
from pathlib import Path

EVENTS = ("rename", "renamed", "torn", "step")
"""Before a rename, after it, with half of a file written under its temporary name, and before a backward pass."""


def arm(event, count, how=signal.SIGKILL, name="*"):
    """Count the events of this process from now on; the ``count``-th brings the signal."""
    left = [count]

    def due():
        left[0] -= 1
        return left[0] == 0

    def stop():
        os.kill(os.getpid(), how)

    rename, fsync = os.replace, os.fsync

    def counted_rename(source, target, **options):
        last = name in ("*", Path(target).name) and due()
        if last and event == "rename":
            stop()
        rename(source, target, **options)
        if last and event == "renamed":
            stop()

    def counted_fsync(file):
        if due():
            os.ftruncate(file, os.fstat(file).st_size // 2)
            stop()
        fsync(file)

    if event in ("rename", "renamed"):
        os.replace = counted_rename
    elif event == "torn":
        os.fsync = counted_fsync
    else:
        _count_steps(due, stop)


def _count_steps(due, stop):
    import torch

    backward = torch.Tensor.backward

    def counted(*args, **options):
        if due():
            stop()
        return backward(*args, **options)

    torch.Tensor.backward = counted


if __name__ == "__main__":
    from fedlas.cli import main

    event, count, how, name, *arguments = sys.argv[1:]
    arm(event, int(count), signal.Signals[how], name)
    sys.exit(main(arguments))
