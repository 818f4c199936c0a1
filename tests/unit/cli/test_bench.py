import argparse
import io
import runpy
import sys

import pytest
from rich.console import Console

import fedlas
from fedlas.cli import bench
from fedlas.cli.bench import add_executor, build_executor
from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.benches.executors import Executor, LocalExecutor, SlurmExecutor, try_run_task
from fedlas.lab.recipes import load_recipe, plan_runs

TINY = [
    "train.epochs=1", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip
RECIPE = load_recipe("synthetic", TINY)


def chosen(*arguments):
    parser = argparse.ArgumentParser()
    add_executor(parser)
    return build_executor(parser.parse_args(arguments))


class Backwards(Executor):
    """Does the last task first, and hands over the first two."""

    def results(self, tasks, events):
        for task in tasks[:1:-1]:
            events.on_start(task)
            yield try_run_task(task)


def test_what_arguments_choose():
    assert isinstance(chosen(), LocalExecutor)
    assert chosen().workers is chosen("--workers", "auto").workers is None
    local = chosen("--workers", "4", "--gpus-per-run", "0.5", "--executor-set", "retries=0")
    assert (local.workers, local.gpus_per_run, local.retries) == (4, 0.5, 0)
    slurm = chosen(
        "--executor",
        "slurm",
        "--executor-set",
        "minutes=90",
        "--executor-set",
        "setup=[module load cuda]",
    )
    assert isinstance(slurm, SlurmExecutor)
    assert (slurm.minutes, slurm.setup) == (90, ["module load cuda"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--executor", "slrum"], "Did you mean 'slurm'"),
        (["--executor-set", "retrys=1"], "Did you mean 'retries'"),
        (["--executor-set", "retries"], "key=value"),
        (
            ["--workers", "2", "--executor-set", "workers=3"],
            "workers must be set once, .*Omit --workers",
        ),
    ],
)
def test_arguments_that_choose_nothing(arguments, text):
    with pytest.raises(InputError, match=text):
        chosen(*arguments)


def test_results_are_counted_as_they_end(tmp_path):
    runs = plan_runs(RECIPE, losses=["ce", "ls", "mbls", "acls"], seeds=[0], out=tmp_path)
    text = io.StringIO()
    outcome = run_all(runs, executor=Backwards(), console=Console(file=text, width=200))
    assert (outcome.finished, outcome.pending) == (["mbls-s0", "acls-s0"], ["ce-s0", "ls-s0"])
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("[")] == [
        "[1/4] acls-s0",
        "[2/4] mbls-s0",
    ]


def test_pending_runs_write_no_report(tmp_path, capsys):
    assert (
        bench.run_bench(RECIPE, losses=["ce", "ls"], seeds=[0], out=tmp_path, executor=Backwards())
        == 0
    )
    assert "report" not in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()


def test_run_identity_ignores_executor_settings():
    def config(*overrides):
        (run,) = plan_runs(load_recipe("synthetic", [*TINY, *overrides]), losses=["ce"], seeds=[0])
        return run.config()

    assert "accumulate" not in config()["train"]
    assert config("train.accumulate=2")["train"]["accumulate"] == 2
    assert config("train.channels_last=true")["train"]["channels_last"]


def test_the_package_is_what_a_launcher_starts(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedlas", "--version"])
    monkeypatch.delitem(sys.modules, "fedlas.__main__", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fedlas", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"fedlas {fedlas.__version__}"
