"""``python -m fedlas.lab.bench.executors.worker TASKS NUMBER`` does one of the tasks in a file, for a batch system."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

from fedlas._core.terminal import say
from fedlas.lab.bench.executors.launch import work
from fedlas.lab.bench.executors.task import Task


def main(arguments: Sequence[str]) -> int:
    """Do task ``NUMBER`` of a file that a dry run wrote.

    Returns:
        Exit status: 0, or 1 if the run failed.
    """
    file, number = arguments
    tasks: list[Task] = pickle.loads(Path(file).read_bytes())
    result = work(tasks[int(number)])
    text = result.line or result.busy or f"failed: {result.message}"
    say(*f"{result.name}  {text}".split("\n"), stderr=True)
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
