"""Each long command, stopped at its n-th file: nothing half stands under a user's name, and the next run makes it good.

A command is stopped before a rename, after it, and with half of a file written, by SIGKILL and by SIGTERM.
"""

import os
import shutil
import signal

import pytest

from forking import forking_server, status_of

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

SERVER = """
import os
import torch
torch.set_num_threads(1)
import filelock, pandas, pyarrow.parquet, matplotlib.figure
from fedlas.cli import main
from forking import serve

def run(job):
    os.chdir(job["folder"])
    return main(job["words"])

serve(run)
"""
NAMED = "--probs p --target y"
FIRST = (
    f"calibrate v.csv {NAMED} --method temperature --out cal.json",
    f"card v.csv t.csv {NAMED} --replicates 40 --out card.json",
    "runs train synthetic --loss ce --out runs/ce-s0 --set train.epochs=1 --set data.train_size=100 "
    "--set data.val_size=100 --set data.test_size=100 --set train.batch_size=50 --set model.hidden=[4]",
)
COMMANDS = {
    "apply": "apply cal.json t.csv --out out.csv",
    "apply-parquet": "apply cal.json t.csv --out out.parquet",
    "calibrate": f"calibrate v.csv {NAMED} --method isotonic --out out.json",
    "card": f"card v.csv t.csv {NAMED} --replicates 40 --out out.json",
    "evaluate-report": f"evaluate t.csv {NAMED} --replicates 40 --report out.html",
    "evaluate-junit": f"evaluate t.csv {NAMED} --replicates 40 --require nll<=9 --junit out.xml",
    "export-sql": "export cal.json --format sql --out out.sql",
    "init": f"init t.csv {NAMED} --out out.sh",
    "monitor": f"monitor card.json t.csv --state out.json --page out.html {NAMED}",
    "monitor-history": f"monitor card.json t.csv {NAMED} --history out.json --page page.html",
    "monitor-both": f"monitor card.json t.csv --state out.json --history history.json --page page.html {NAMED}",
    "pack": "runs pack runs",
}
"""Commands that write; ``runs train`` and ``bench`` are killed in test_resume.py and tests/unit/lab/benches."""


@pytest.fixture(scope="module")
def server():
    with forking_server(SERVER) as process:
        yield process


def start(server, words, folder, die=None):
    return status_of(server, {"words": words.split(), "folder": str(folder), "die": die})


@pytest.fixture(scope="module")
def inputs(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name, step in (("v.csv", 5), ("t.csv", 7)):
        rows = "".join(f"{0.2 + i % step / 10:.1f},{i % 2}\n" for i in range(200))
        (folder / name).write_text("p,y\n" + rows)
    for words in FIRST:
        assert start(server, words, folder) == 0
    return folder


def files(folder):
    """Content of each file, but for the empty files of locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def stops():
    """The places where a command is stopped, in turn by either signal, as far as it has such a place."""
    for event in ("rename", "renamed", "torn"):
        for count in range(1, 20):
            yield event, count, signal.SIGKILL if count % 2 else signal.SIGTERM


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_command_leaves_whole_files(server, inputs, tmp_path, name):
    words, passed, stopped = COMMANDS[name], set(), 0
    assert start(server, words, shutil.copytree(inputs, tmp_path / "whole")) == 0
    kept, whole = files(inputs), files(tmp_path / "whole")
    assert kept.items() < whole.items()
    for event, count, how in stops():
        if event in passed:  # fewer files than that are written
            continue
        folder = shutil.copytree(inputs, tmp_path / f"{event}-{count}")
        status = start(server, words, folder, (event, count, how))
        if status == 0:
            passed.add(event)
            continue
        assert status in (-how, 128 + how)
        stopped += 1
        left = {path: old for path, old in files(folder).items() if not path.endswith(".part")}
        # The state keeps a period that the history still lacks; the next call adds it there, and once.
        pending = b'"pending"' in left.get("out.json", b"")
        if pending:
            del left["out.json"]
        assert kept.items() <= left.items() <= whole.items(), (event, count)
        done = left == whole and not list(folder.rglob("*.part"))
        # A script, and samples in a state, are not made twice.
        refused = pending or (done and name in ("init", "monitor", "monitor-both"))
        assert start(server, words, folder) == (2 if refused else 0), (event, count)
        assert files(folder) == whole, (event, count)
    assert len(passed) == 3
    assert stopped >= 3
