import multiprocessing
import signal
from dataclasses import replace

import pytest
import torch.distributed as dist

from fedlas.lab.benches.executors.local import describe_exit, run_with_torchrun
from fedlas.lab.train import load_checkpoint

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch has no gloo"
    ),
]


def rank_of(_):
    """Id of the process that was started last: the second rank."""
    names = {
        child.name: child.pid
        for child in multiprocessing.active_children()
        if "Process-" in child.name
    }
    return names[max(names, key=lambda name: int(name.split("-")[-1]))] if names else None


@pytest.mark.parametrize("what", ["kill", "kill other"])
def test_two_process_run_resumes_after_kill(tmp_path, tasks, stops, resumed, what):
    """The one that writes, or the other one."""
    (task,) = tasks(tmp_path, "synthetic", ["fedlas"], "train.epochs=5", "model.hidden=[8]")
    stops.order(task.run.folder, 3, what=what)
    result = run_with_torchrun(replace(task, processes=2, threads=2, retries=1))
    assert "accuracy" in (result.line or result.error)
    assert len(load_checkpoint(task.run.folder / "checkpoint.pt")["rng"]) == 2
    resumed(task.run.folder, *stops.logs(task.run.folder), epochs=5)
    assert not rank_of(None)


def test_an_error_of_all_is_the_runs(tmp_path, tasks):
    (task,) = tasks(
        tmp_path, "synthetic", ["ce"], "model.hidden=[8]", "optimizer.lr=1e30", "train.epochs=3"
    )
    result = run_with_torchrun(replace(task, processes=2, threads=2))
    assert "loss and logits must stay finite" in result.error
    assert "Traceback" in (task.run.folder / "error.txt").read_text()


def test_another_error_is_tried_again_and_then_noted(tmp_path, tasks):
    (task,) = tasks(tmp_path, "synthetic", ["ce"])
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    broken = replace(task, run=replace(task.run, recipe=None), processes=2, threads=2, retries=1)
    result = run_with_torchrun(broken)
    assert result.error == "one of its 2 processes ended with exit status 1 each of 2 times"
    assert "AttributeError: 'NoneType'" in (task.run.folder / "error.txt").read_text()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert not rank_of(None)


def test_exit_text():
    assert (describe_exit(-9), describe_exit(3)) == ("signal 9", "exit status 3")
