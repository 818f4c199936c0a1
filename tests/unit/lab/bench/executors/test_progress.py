import io
import json

import pytest
from rich.console import Console

from fedlas.lab.bench.executors import JointProgress, Result
from fedlas.lab.bench.executors import progress as module


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def write(task, epochs):
    task.run.folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"epoch": epoch}) + "\n" for epoch in range(1, epochs + 1))
    (task.run.folder / "log.jsonl").write_text(lines)


def shown(tasks, *, watch=True, **options):
    text = io.StringIO()
    return JointProgress(Console(file=text, width=200, **options), tasks, watch=watch), text


def test_lines_where_there_is_no_terminal(tmp_path, tasks, clock):
    ce, ls = tasks(tmp_path, "synthetic", ["ce", "ls"], "train.epochs=10")
    write(ce, 4)
    progress, text = shown([ce, ls])
    with progress:
        progress.started(ce)
        progress.started(ls)
        assert progress.remaining() is None
        write(ls, 1)
        clock[0] += 1
        progress.idle()
        assert text.getvalue() == "ce-s0  resumes after epoch 4\n"  # ten seconds have not passed
        assert progress.remaining() == pytest.approx(1 * 15)
        clock[0] += 11
        progress.idle()
        progress.idle()
        assert text.getvalue().splitlines()[1:] == ["0 of 2 runs ended: ls-s0 epoch 1/10"]
        progress.lost(ls, "signal 9")
        assert text.getvalue().splitlines()[2:] == ["ls-s0  its process ended (signal 9); it resumes after epoch 1"]
        progress.ended(Result("ls-s0", line="ok"))
        assert progress.remaining() == pytest.approx(12 / 10 * 6)
        progress.ended(Result("ce-s0", error="x"))
        assert progress.remaining() == 0
        clock[0] += 20
        progress.idle()
        assert len(text.getvalue().splitlines()) == 3


def test_one_line_on_a_terminal(tmp_path, tasks, clock):
    some = tasks(tmp_path, "synthetic", ["ce", "ls", "mbls", "acls", "fedlas", "fedlas+", "focal", "dca"])
    progress, text = shown(some, force_terminal=True, color_system=None)
    with progress:
        for task in some:
            write(task, 1)
        clock[0] += 1
        progress.idle()
        progress.progress.refresh()
    assert "0 of 8 runs ended" in text.getvalue()
    assert "fedlas+-s0 epoch 1/2, and 2 more" in text.getvalue()


def test_runs_that_show_themselves_are_not_watched(tmp_path, tasks, clock):
    (task,) = tasks(tmp_path, "synthetic", ["ce"])
    progress, text = shown([task], watch=False, force_terminal=True)
    with progress:
        write(task, 1)
        clock[0] += 60
        progress.idle()
    assert not text.getvalue()
