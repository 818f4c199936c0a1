"""Processes that are stopped after the n-th checkpoint of a run, whichever process does the run.

A test leaves an order for a run. The process that has just written a checkpoint of that run carries it out, so a run is
stopped after the same epoch on every machine, and no test has to be quick enough.
"""

import os
import shutil
import signal
import threading
from collections import Counter
from multiprocessing import forkserver
from pathlib import Path
from urllib.parse import quote

from fedlas.lab.train.log import read_log

ORDERS = "FEDLAS_STOPS"
AT_START = Path(__file__).parent / "at_start"


class Stops:
    """Orders to the processes that are started after this. Args: ``folder`` for the orders; ``patch`` to undo it."""

    def __init__(self, folder, patch):
        self.folder = folder
        paths = [AT_START, AT_START.parent, *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv(ORDERS, str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
        forkserver._forkserver._stop()  # the next one starts with this environment

    def order(self, run, *counts, what="kill"):
        """The first process to do ``run`` stops at its ``counts[0]``-th checkpoint, the next at its ``counts[1]``-th.

        ``what`` is ``"kill"`` for itself, ``"kill other"`` for the other process of the run, ``"wait"`` for standing
        still until somebody ends it.
        """
        _orders(self.folder, run).write_text("".join(f"{count} {what}\n" for count in counts))

    def logs(self, run):
        """Logs of the run as they were when its processes were stopped, in order."""
        found = self.folder.glob(f"{_orders(self.folder, run).name}.*")
        return [read_log(path) for path in sorted(found, key=lambda path: -int(path.suffix[1:]))]


def obey(folder):
    """Carry out the orders in ``folder`` from now on, in this process."""
    written, rename = Counter(), os.replace

    def counted(source, target, **options):
        rename(source, target, **options)
        if Path(target).name == "checkpoint.pt":
            run = Path(target).parent
            written[run] += 1
            _carry_out(_orders(Path(folder), run), written[run], run)

    os.replace = counted


def _orders(folder, run):
    return folder / quote(str(run.resolve()), safe="")


def _carry_out(orders, count, run):
    lines = orders.read_text().splitlines() if orders.exists() else []
    if not lines or int(lines[0].partition(" ")[0]) != count:
        return
    shutil.copy(run / "log.jsonl", orders.with_name(f"{orders.name}.{len(lines)}"))
    orders.write_text("\n".join(lines[1:]))
    what = lines[0].partition(" ")[2]
    if what == "wait":
        threading.Event().wait()
    os.kill(os.getpid() if what == "kill" else _other(), signal.SIGKILL)


def _other():
    """Id of the process that was started as this one was."""
    import psutil

    def how(process):
        return " ".join(process.cmdline()).partition("(")[0]

    me = psutil.Process()
    (other,) = [one for one in me.parent().children() if one != me and how(one) == how(me)]
    return other.pid
