"""What is read from a bench folder, and what is not."""

import json
import math

import pytest

from fedlas.errors import InputError
from fedlas.lab.report import markdown_report, result_table
from fedlas.lab.results import build_result
from fedlas.lab.runs import collect_runs
from fedlas.metrics import evaluate
from fedlas.predictions import Predictions


def test_everything_finished_is_read(full_bench):
    summary = collect_runs(full_bench)
    assert summary.methods == ["ce", "ls", "mbls", "acls", "fedlas", "fedlas+"]
    assert (summary.recipe, summary.seeds, summary.common_seeds) == ("digits", [0, 1, 2], [0, 1, 2])
    assert (summary.failed, summary.unfinished, summary.unreadable) == ((), (), ())
    measured = evaluate(Predictions.load(full_bench / "ls-s1" / "predictions" / "test.npz"))
    assert summary.values("ls", "ece")[1] == measured["ece"]


def test_values_are_aligned_by_seed(tmp_path, write_run):
    for loss, seed in (("ce", 1), ("ce", 5), ("ls", 5), ("ls", 10)):
        write_run(
            tmp_path / f"{loss}-s{seed}", loss=loss, seed=seed, samples=50, test={"ece": seed / 100}
        )
    summary = collect_runs(tmp_path)
    assert summary.seeds == [1, 5, 10]
    assert summary.common_seeds == [5]
    assert summary.values("ce", "ece")[:2] == [0.01, 0.05]
    assert math.isnan(summary.values("ce", "ece")[2])
    assert summary.compare("ece").n == 1


def test_directions_come_from_the_registry(tmp_path, write_run):
    for loss, value in (("ce", 0.1), ("ls", 0.2)):
        for seed in (0, 1):
            test = {
                "accuracy": value + seed / 50 * value,
                "ece": value + seed / 50 * value,
                "mystery": 1.0,
            }
            write_run(tmp_path / f"{loss}-s{seed}", loss=loss, seed=seed, samples=50, test=test)
    summary = collect_runs(tmp_path)
    assert summary.compare("accuracy").best == "ls"
    assert summary.compare("ece").best == "ce"
    assert summary.compare("mystery") is None
    assert summary.metrics[-1] == "mystery"


def test_halves_of_an_error_have_no_best(tmp_path, write_run):
    for loss, value in (("ce", 0.1), ("ls", 0.2)):
        for seed in range(5):
            test = dict.fromkeys(
                ("ece", "o_ece", "u_ece", "debiased_ece2"), value + seed / 99 * value
            )
            write_run(
                tmp_path / f"{loss}-s{seed}",
                loss=loss,
                seed=seed,
                samples=50,
                test=test,
                test_calibrated={},
            )
    summary = collect_runs(tmp_path)
    assert summary.compare("ece").best == "ce"
    for metric in ("o_ece", "u_ece", "debiased_ece2", "confidence_gap"):
        assert summary.compare(metric) is None
    model = build_result(summary)
    table = result_table(model)
    assert [row[2].mark for row in table.rows] == ["best", "worse"]
    assert {cell.mark for row in table.rows for cell in row[3:]} == {""}
    assert [c.head for c in table.columns[3:]] == ["O-ECE % ↓", "U-ECE % ↓", "Debiased ECE² → 0"]
    page = markdown_report(model)
    assert "no mark: worse" in page
    assert "no mark in O-ECE, U-ECE, Debiased ECE²: no method is best there" in page


def test_unregistered_losses_come_last(tmp_path, write_run):
    for loss in ("aaa", "fedlas", "ce"):
        write_run(tmp_path / loss, loss=loss, samples=50)
    assert collect_runs(tmp_path).methods == ["ce", "fedlas", "aaa"]


def test_runs_without_numbers_are_sorted_by_state(tmp_path, write_run):
    write_run(tmp_path / "ce-s0", samples=50)
    for name in ("failed", "silent", "started", "empty", "figures", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "failed" / "error.txt").write_text(
        "Traceback\n  File\nValueError: bad \N{SNOWMAN}\n\n", encoding="utf-8"
    )
    (tmp_path / "silent" / "error.txt").write_text("")
    (tmp_path / "started" / "config.yaml").write_text("")
    (tmp_path / "figures" / "a.png").write_text("")
    (tmp_path / "notes.txt").write_text("")
    summary = collect_runs(tmp_path)
    assert [(p.name, p.reason) for p in summary.failed] == [
        ("failed", "ValueError: bad \N{SNOWMAN}"),
        ("silent", "no message"),
    ]
    assert summary.unfinished == ("empty", "started")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"format": 1, "loss"', "must be readable JSON"),
        ("", "must be readable JSON"),
        ("\xff\xfe", "must be readable JSON"),
        ("[1]", "must hold an object"),
        ("{}", "format is None"),
        ('{"format": 2}', "format is 2"),
        ('{"format": 1, "loss": "ce"}', "seed"),
        ('{"format": 1, "loss": "ce", "seed": true}', "seed"),
        ('{"format": 1, "loss": "ce", "seed": 0}', "no test metrics"),
        ('{"format": 1, "loss": "ce", "seed": 0, "test": 3}', "test is not an object"),
        (
            '{"format": 1, "loss": "ce", "seed": 0, "test": {"ece": "0.1"}}',
            "test.ece is not a number",
        ),
        ('{"format": 1, "loss": "ce", "seed": 0, "test": {"ece": NaN}}', "NaN is not JSON"),
        ('{"format": 1, "loss": "ce", "seed": 0, "recipe": [], "test": {"ece": 1}}', "recipe"),
    ],
)
def test_a_broken_file_is_named(tmp_path, write_run, text, reason):
    write_run(tmp_path / "ce-s1", seed=1, samples=50)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_bytes(text.encode("latin-1"))
    summary = collect_runs(tmp_path)
    assert [p.name for p in summary.unreadable] == ["broken"]
    assert reason in summary.unreadable[0].reason
    assert len(summary.runs) == 1


def test_missing_and_null_entries_are_not_measured(tmp_path):
    (tmp_path / "run").mkdir()
    content = {
        "format": 1,
        "loss": "ce",
        "seed": 0,
        "test": {"ece": 0.1, "true_ece": None},
        "temperature": None,
    }
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(content))
    run = collect_runs(tmp_path).runs[0]
    assert (run.measured["test"], run.temperature, run.recipe) == ({"ece": 0.1}, None, "")


def test_copied_run_is_counted_once(tmp_path, write_run):
    write_run(tmp_path / "ce-s0", samples=50)
    write_run(tmp_path / "ce-s0-copy", samples=50)
    summary = collect_runs(tmp_path)
    assert len(summary.runs) == 1
    assert "ce-s0 has the same loss and seed" in summary.unreadable[0].reason


def test_recipes_do_not_mix(tmp_path, write_run):
    write_run(tmp_path / "a", samples=50)
    write_run(tmp_path / "b", seed=1, recipe="cifar10", samples=50)
    with pytest.raises(InputError, match=r"digits \(a\), cifar10 \(b\)"):
        collect_runs(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "config.yaml",
            "optimizer: {lr: 0.1}\nloss: {name: ls}\nseed: 0\n",
            r"ls-s0, which differs from ce-s0 in .* absent now",
        ),
        (
            "data.json",
            '{"train": {"sha256": "b"}, "split": "2"}',
            r"data\.train\.sha256: 'a' before, 'b' now",
        ),
    ],
)
def test_configurations_and_data_do_not_mix(tmp_path, write_bench, file, content, message):
    write_bench(tmp_path, losses=("ce", "ls"), seeds=(0, 1), samples=50)
    for path in tmp_path.iterdir():
        (path / "data.json").write_text('{"train": {"sha256": "a"}, "split": "1"}')
    (tmp_path / "ce-s1" / "data.json").write_text(
        '{"train": {"sha256": "a"}, "split": "of another seed"}'
    )
    assert len(collect_runs(tmp_path).runs) == 4
    (tmp_path / "ls-s0" / file).write_text(content)
    with pytest.raises(InputError, match=message):
        collect_runs(tmp_path)


def test_options_of_a_loss_do_not_mix(tmp_path, write_bench):
    write_bench(tmp_path, losses=("ls",), seeds=(0, 1), samples=50)
    path = tmp_path / "ls-s1" / "config.yaml"
    path.write_text(path.read_text().replace("name: ls", "name: ls\n  alpha: 0.3"))
    with pytest.raises(InputError, match=r"ls-s1, .*loss\.alpha: absent before, 0\.3 now"):
        collect_runs(tmp_path)


def test_an_unreadable_configuration_is_named(tmp_path, write_bench):
    write_bench(tmp_path, losses=("ls",), seeds=(0, 1), samples=50)
    (tmp_path / "ls-s1" / "config.yaml").write_text("[")
    assert "config.yaml must be readable YAML" in collect_runs(tmp_path).unreadable[0].reason


def test_nothing_finished_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="must exist"):
        collect_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run folder at all"):
        collect_runs(tmp_path)
    (tmp_path / "ce-s0").mkdir()
    with pytest.raises(InputError, match=r"1 unfinished.*resumes"):
        collect_runs(tmp_path)
    (tmp_path / "ce-s1").mkdir()
    (tmp_path / "ce-s1" / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"1 unfinished, 1 unreadable.*ce-s1: metrics.json"):
        collect_runs(tmp_path)
    (tmp_path / "ce-s0" / "error.txt").write_text("MemoryError\n")
    with pytest.raises(InputError, match=r"1 failed.*error\.txt \(MemoryError\)"):
        collect_runs(tmp_path)


def test_a_run_folder_points_to_its_parent(tmp_path, write_run):
    with pytest.raises(InputError, match="pass its parent"):
        collect_runs(write_run(tmp_path / "bench" / "ce-s0", samples=50))
