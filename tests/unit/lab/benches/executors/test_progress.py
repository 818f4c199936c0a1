import io
import json
import re
import time

import pytest
from rich.console import Console

from fedlas.lab.benches.executors import JointProgress, TaskResult


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def write(task, epochs):
    task.run.folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"epoch": epoch}) + "\n" for epoch in range(1, epochs + 1))
    (task.run.folder / "log.jsonl").write_text(lines)


def shown(tasks, **options):
    text = io.StringIO()
    return JointProgress(Console(file=text, **{"width": 200, **options}), tasks), text


def test_lines_where_there_is_no_terminal(tmp_path, tasks, clock):
    ce, ls = tasks(tmp_path, "synthetic", ["ce", "ls"], "train.epochs=10")
    write(ce, 4)
    progress, text = shown([ce, ls])
    with progress:
        progress.on_start(ce)
        progress.on_start(ls)
        write(ls, 1)
        clock[0] += 1
        progress.on_idle()
        assert text.getvalue() == "ce-s0  resumes after epoch 4\n"  # ten minutes have not passed
        clock[0] += 601
        progress.on_idle()
        progress.on_idle()
        assert text.getvalue().splitlines()[1:] == ["0 of 2 runs: ls-s0 1/10"]
        progress.on_lost(ls, "signal 9")
        assert text.getvalue().splitlines()[2:] == [
            "ls-s0  its process ended (signal 9); it resumes after epoch 1"
        ]
        progress.count_ended(TaskResult("ls-s0", line="ok"))
        clock[0] += 599  # a run ended since the last line
        progress.on_idle()
        progress.count_ended(TaskResult("ce-s0", error="x"))
        assert len(text.getvalue().splitlines()) == 3


def test_one_line_on_a_terminal(tmp_path, tasks, clock):
    some = tasks(
        tmp_path, "synthetic", ["ce", "ls", "mbls", "acls", "fedlas", "fedlas+", "focal", "dca"]
    )
    progress, text = shown(some, force_terminal=True, color_system=None, width=80)
    with progress:
        for task in some:
            write(task, 1)
        clock[0] += 1
        progress.on_idle()
        progress.progress.refresh()
    assert "0 of 8 runs" in text.getvalue()
    assert "dca-s0 1/2" in text.getvalue()
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]|\x1b\[\w+", text.getvalue()))


def test_in_process_run_moves_joint_bar(tmp_path, tasks, clock):
    ce, ls = tasks(tmp_path, "synthetic", ["ce", "ls"])
    progress, text = shown([ce, ls], force_terminal=True, color_system=None)
    with progress, progress.show(ce)("[1/2] ce-s0", epochs=2, steps=10) as part:
        assert not part.due()
        clock[0] += 1
        assert part.due()
        part.step(1, 5, 0.7)
        part.epoch({"epoch": 1})
        clock[0] += 1
        part.step(2, 10, 0.6)
        progress.progress.refresh()
        assert "ce-s0 2/2" in text.getvalue()
