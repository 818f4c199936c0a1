import io
import json
import shutil

import filelock
import pytest
import torch
from rich.console import Console

import fedlas
from fedlas.cli import bench
from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.benches.all_runs import fit_warning_notes
from fedlas.lab.benches.executors import base
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.report import read_report
from fedlas.lab.runs import summarize_alarms
from fedlas.losses import LOSSES

TINY = [
    "train.epochs=1", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip
RECIPE = load_recipe("synthetic", TINY)


pytestmark = pytest.mark.usefixtures("few_replicates")


class Failing(torch.nn.Module):
    """A loss that fails in its first step."""

    def forward(self, logits, target):
        raise RuntimeError("[no luck]")


class Diverging(torch.nn.Module):
    """A loss that is not finite."""

    def forward(self, logits, target):
        return logits.sum() * float("nan")


@pytest.fixture
def losses(changeable):
    changeable(LOSSES)
    LOSSES.add("failing", Failing)
    LOSSES.add("diverging", Diverging)


def run(out, losses, recipe=RECIPE, seeds=(0,)):
    text = io.StringIO()
    outcome = run_all(
        plan_runs(recipe, losses=losses, seeds=seeds, out=out),
        console=Console(file=text, width=200),
    )
    return outcome, text.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    run(out, ["ce"])
    return out


@pytest.fixture
def bench_of_ce(trained, tmp_path):
    """``tmp_path`` with the finished run ``ce-s0`` in it."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_failures_do_not_stop_the_others(tmp_path, losses):
    outcome, text = run(tmp_path, ["failing", "ce", "diverging", "fedlas"])
    assert outcome.finished == ["ce-s0", "fedlas-s0"]
    # what the report needs is computed where the run is
    assert (tmp_path / "ce-s0" / "calibrated.json").exists()
    assert outcome.failed["failing-s0"] == "RuntimeError: [no luck]"
    assert "finite" in outcome.failed["diverging-s0"]
    assert "[1/4] failing-s0  failed: RuntimeError: [no luck]" in text
    assert "Traceback" in (tmp_path / "failing-s0" / "error.txt").read_text()
    assert "Traceback" not in text
    assert not (tmp_path / "failing-s0" / "metrics.json").exists()


@pytest.mark.usefixtures("no_pictures")
def test_report_names_failure_that_was_not_written(tmp_path, losses, capsys, monkeypatch):
    def full(*_):
        raise InputError("there must be space", "a full disk", "Free some.")

    monkeypatch.setattr(base, "write_text", full)
    options = {"losses": ["failing", "ce"], "seeds": [0], "out": tmp_path, "title": "Own title"}
    assert bench.run_bench(RECIPE, **options) == 1
    said = capsys.readouterr()
    assert "failing-s0 failed: RuntimeError: [no luck]." in said.out
    assert said.err.splitlines()[-1] == "failed: failing-s0"
    assert "- failing-s0: RuntimeError: \\[no luck\\]" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Own title</h1>" in page
    assert "RuntimeError: [no luck]" in page
    # where the report itself cannot be written, its verdict is printed all the same
    (tmp_path / "report.md").unlink()
    (tmp_path / "report.md").mkdir()
    with pytest.raises(InputError, match=r"report\.md"):
        bench.run_bench(RECIPE, **options)
    assert "failing-s0 failed: RuntimeError: [no luck]." in capsys.readouterr().out


def test_reasons_are_for_readers(tmp_path, bench_of_ce, losses):
    for name, text in (
        ("ls", "fedlas._core.errors.InputError: a; got b. C."),
        ("mbls", "torch.X: y"),
    ):
        (tmp_path / f"{name}-s0").mkdir()
        (tmp_path / f"{name}-s0" / "error.txt").write_text(f"Traceback\n{text}\n")
    summary = read_report(tmp_path, replicates=0).summary
    assert [(p.name, p.reason) for p in summary.failed] == [
        ("ls-s0", "a; got b. C."),
        ("mbls-s0", "X: y"),
    ]


def test_finished_runs_are_skipped_and_failed_retried(bench_of_ce, tmp_path, losses, monkeypatch):
    run(tmp_path, ["failing"])
    before = stamps(tmp_path / "ce-s0")
    monkeypatch.setattr(
        Failing,
        "forward",
        lambda self, logits, target: torch.nn.functional.cross_entropy(logits, target),
    )
    outcome, _ = run(tmp_path, ["failing", "ce"])
    assert outcome.finished == ["failing-s0", "ce-s0"]
    assert not outcome.failed
    assert not (tmp_path / "failing-s0" / "error.txt").exists()
    assert stamps(tmp_path / "ce-s0") == before


def test_busy_runs_are_skipped_with_a_notice(tmp_path):
    (tmp_path / "ce-s0").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "ce-s0" / ".lock"):
        outcome, text = run(tmp_path, ["ce", "ls"])
        assert (outcome.busy, outcome.finished) == (["ce-s0"], ["ls-s0"])
        assert "ce-s0  skipped: " in text
        with pytest.raises(InputError, match="at least one run must be free"):
            bench.run_bench(RECIPE, losses=["ce"], seeds=[0], out=tmp_path)


def test_a_changed_recipe_stops_before_anything_is_touched(bench_of_ce, tmp_path):
    before = stamps(tmp_path)
    changed = load_recipe("synthetic", [*TINY, "optimizer.lr=0.7"])
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.05 before, 0\.7 now"):
        run(tmp_path, ["fedlas", "ce"], changed)
    assert stamps(tmp_path) == before


def test_incomparable_settings_stop_before_any_write(bench_of_ce, tmp_path):
    before = stamps(tmp_path)
    changed = load_recipe("synthetic", [*TINY, "optimizer.lr=0.7"])
    with pytest.raises(InputError, match=r"ls-s0, .*optimizer\.lr: 0\.05 before, 0\.7 now"):
        run(tmp_path, ["ls"], changed)
    data = tmp_path / "ce-s0" / "data.json"
    data.write_text(data.read_text().replace('"samples": ', '"samples": 1'))
    before[data] = data.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"same data; got .*train\.samples"):
        run(tmp_path, ["ls"])
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("content", ["{}", "{", '{"format": 1, "test": {}, "test_calibrated": {}}'])
def test_unusable_metrics_do_not_stop_other_runs(bench_of_ce, tmp_path, content):
    (tmp_path / "ce-s0" / "metrics.json").write_text(content)
    outcome, text = run(tmp_path, ["ce", "ls"])
    assert outcome.finished == ["ls-s0"]
    assert "metrics.json must be" in outcome.failed["ce-s0"]
    assert "Traceback" not in text
    (tmp_path / "ce-s0" / "metrics.json").unlink()
    assert run(tmp_path, ["ce", "ls"])[0].finished == ["ce-s0", "ls-s0"]
    assert not (tmp_path / "ce-s0" / "error.txt").exists()


def test_bad_data_or_model_stops_before_writing(tmp_path):
    for override in ("data.val_size=1000000", "model.hidden=[0]"):
        with pytest.raises(InputError):
            run(tmp_path / "out", ["ce"], load_recipe("synthetic", [*TINY, override]))
    assert not (tmp_path / "out").exists()


def test_all_failed(tmp_path, losses):
    with pytest.raises(
        InputError, match=r"1 failed, the first failing-s0: RuntimeError: \[no luck\]"
    ):
        bench.run_bench(RECIPE, losses=["failing"], seeds=[0], out=tmp_path)


@pytest.mark.system
def test_status_and_report(tmp_path, losses, capsys):
    assert bench.run_bench(RECIPE, losses=["failing", "ce"], seeds=[0, 1], out=tmp_path) == 1
    captured = capsys.readouterr()
    assert "failed: failing-s0, failing-s1" in captured.err
    assert "report.html" in captured.out
    assert {"report.html", "report.md", "results.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert bench.run_bench(RECIPE, losses=["ce"], seeds=[0, 1], out=tmp_path) == 0
    assert "2 of them finished before" in capsys.readouterr().err


def test_going_on_is_said(tmp_path, monkeypatch):
    import fedlas.lab.runs.execution as module

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_predictions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["ce"])
    monkeypatch.undo()
    outcome, text = run(tmp_path, ["ce"])
    assert outcome.finished == ["ce-s0"]
    assert "resumes after epoch 1" in text


def test_other_code_version_is_reported_on_resume(bench_of_ce, tmp_path):
    _, text = run(tmp_path, ["ce", "ls"])
    assert "other code" not in text
    path = tmp_path / "ce-s0" / "environment.json"
    path.write_text(
        path.read_text().replace(f'"fedlas": "{fedlas.__version__}"', '"fedlas": "0.0.1"')
    )
    _, text = run(tmp_path, ["ce", "mbls"])
    assert (
        f"ce-s0 was made with other code: fedlas: '0.0.1' before, '{fedlas.__version__}' now."
        in text
    )
    _, text = run(tmp_path, ["ce"])
    assert "other code" not in text  # nothing is added


def test_only_the_main_process_reports(bench_of_ce, tmp_path, monkeypatch, capsys):
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    assert bench.run_bench(RECIPE, losses=["ce"], seeds=[0], out=tmp_path) == 0
    assert not (tmp_path / "report.html").exists()
    captured = capsys.readouterr()
    assert not captured.out
    assert not captured.err


def test_a_finished_run_without_intervals_gets_them(bench_of_ce, tmp_path):
    intervals, metrics = tmp_path / "ce-s0" / "intervals.json", tmp_path / "ce-s0" / "metrics.json"
    before, stamp = intervals.read_text(), metrics.stat().st_mtime_ns
    intervals.unlink()
    outcome, _ = run(tmp_path, ["ce"])
    assert outcome.finished == ["ce-s0"]
    assert intervals.read_text() == before
    assert metrics.stat().st_mtime_ns == stamp


def test_alarms_and_warnings_of_fits_are_told_once(tmp_path):
    planned = plan_runs(RECIPE, losses=["ce", "ls", "mbls"], seeds=[0], out=tmp_path)
    for number, one in enumerate(planned):
        one.folder.mkdir(parents=True)
        record = {"epoch": 2, "alarms": ["gate stuck on +1 for 3 epochs"] if number < 2 else []}
        (one.folder / "log.jsonl").write_text(json.dumps(record) + "\n")
        (one.folder / "metrics.json").write_text(
            json.dumps({"notes": ["A fit: at a bound. Check it."]})
        )
    (alarms,), (notes,) = summarize_alarms(planned, tmp_path), fit_warning_notes(planned)
    assert alarms.startswith("Alarms in 2 runs, mostly ")
    assert alarms.endswith(f"; fedlas runs diagnose {tmp_path} --details")
    assert "A fit warned in 3 runs" in notes
    assert summarize_alarms(planned[2:], tmp_path) == []
