"""What was made of runs, in one table with the runs."""

import json
import math
import re
import shutil

import pytest

from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.recipes import plan_runs
from fedlas.lab.report import (
    answers,
    detailed_bench_table,
    html_report,
    markdown_report,
    missing_notes,
    read_report,
    result_table,
    write_report,
)
from fedlas.lab.results import build_result
from fedlas.lab.runs import RunFolder, collect_runs
from fedlas.lab.studies.uncertainty import apply_method, plan_method

pytestmark = pytest.mark.system


def make(method, folders, out, **options):
    return apply_method(plan_method(method, folders, out=out, **options))


def copied(folders, to, names):
    """A bench folder of its own with some of the runs."""
    for name in names:
        shutil.copytree(folders[name], to / name)
    return to


@pytest.fixture(scope="module")
def bench(shared, tmp_path_factory):
    out = copied(shared, tmp_path_factory.mktemp("bench") / "synthetic", shared)
    make("deep-ensemble", [out / f"ce-s{seed}" for seed in (0, 1, 2)], out / "ensemble")
    for seed in (0, 1, 2):
        make("mc-dropout", [out / f"ls-s{seed}"], None)
    return out


@pytest.fixture(scope="module")
def summary(bench):
    return collect_runs(bench)


def rows(summary, stage="test", metric="nll"):
    return {
        name.value: (int(n.value), cell)
        for name, n, cell in result_table(build_result(summary), stage, [metric]).rows
    }


def test_one_more_method_each(summary):
    assert summary.methods == ["ce", "ls", "deep-ensemble(ce)", "mc-dropout(ls)"]
    assert summary.derived == ["deep-ensemble(ce)", "mc-dropout(ls)"]
    assert (summary.seeds, summary.common_seeds) == ([0, 1, 2], [0, 1, 2])
    assert summary.tested_methods == ["ce", "ls", "mc-dropout(ls)"]
    assert not summary.unreadable
    assert len(summary.runs) == 10


def test_one_ensemble_takes_no_seed_from_the_others(summary, bench):
    found = rows(summary)
    assert {method: n for method, (n, _) in found.items()} == {
        "ce": 3, "ls": 3, "deep-ensemble(ce)": 1, "mc-dropout(ls)": 3
    }  # fmt: skip
    values = [
        json.loads((bench / f"ce-s{s}" / "metrics.json").read_text())["test"]["nll"]
        for s in (0, 1, 2)
    ]
    assert found["ce"][1].value == f"{sum(values) / 3:.4f}"
    alone = json.loads((bench / "ensemble" / "metrics.json").read_text())["test"]["nll"]
    assert (found["deep-ensemble(ce)"][1].value, found["deep-ensemble(ce)"][1].spread) == (
        f"{alone:.4f}",
        "",
    )
    assert "Mean ± sample standard deviation over seeds (n = 1 to 3)." in markdown_report(
        build_result(summary)
    )


def test_only_methods_with_every_seed_are_tested(summary, monkeypatch):
    for room in ("report.cells", "report.verdict"):
        monkeypatch.setattr(f"fedlas.lab.{room}.FEWEST_SEEDS", 3)
    model = build_result(summary)
    for metric in ("nll", "ece", "accuracy"):
        comparison = summary.compare(metric)
        assert comparison.n == 3
        methods = {
            comparison.best,
            *comparison.not_distinguishable,
            *comparison.distinguishable,
            *comparison.untested,
        }
        assert methods == {"ce", "ls", "mc-dropout(ls)"}
        marks = {method: cell.mark for method, (_, cell) in rows(summary, metric=metric).items()}
        assert marks["deep-ensemble(ce)"] == "untested"
        assert sum(mark in ("best", "leading") for mark in marks.values()) == 1
    page = markdown_report(model)
    assert "has no run of its own at each seed" in page
    assert "for 2 comparisons" in page
    (note,) = missing_notes(model)
    assert note.startswith("deep-ensemble(ce) has n = 1: ")
    assert not any(answer.text.startswith("deep-ensemble(ce)") for answer in answers(model))


def test_every_report_format_names_method_and_n(bench):
    report = write_report(read_report(bench, replicates=0))
    markdown, html, table = (
        path.read_text() for path in (report.markdown, report.html, report.csv)
    )
    lines = [line for line in markdown.splitlines() if line.startswith("| deep-ensemble(ce) ")]
    assert len(lines) == 3  # the short table, and all metrics before and after temperature scaling
    assert all(line.split("|")[2].strip() == "1" for line in lines[1:])
    assert "ensemble: made of ce-s0, ce-s1, ce-s2" in markdown
    assert len(re.findall(r'class="k1"><span><span class="cell">1</span>', html)) == 2
    # what the method is, with its paper
    assert "Simple and Scalable Predictive Uncertainty Estimation" in html
    assert "Dropout as a Bayesian Approximation" in html
    assert table.count("deep-ensemble(ce)") == 2
    found = {row[0].value: row[1].value for row in detailed_bench_table(report.model).rows}
    assert found == {"ce": "3", "ls": "3", "deep-ensemble(ce)": "1", "mc-dropout(ls)": "3"}
    assert (
        "2 losses (ce, ls) and 2 methods on top of finished runs (deep-ensemble(ce), mc-dropout(ls)) "
        in html_report(report.model)
    )


def test_missing_temperature_shows_dash_without_mark(apart, tmp_path):
    out = copied(apart, tmp_path / "bench", apart)
    make("deep-ensemble", sorted(out.iterdir()), out / "ensemble")
    summary = write_report(read_report(out, replicates=0)).model.summary
    cell = rows(summary, "test_calibrated")["deep-ensemble(ce)"][1]
    assert (cell.value, cell.mark) == ("—", "")
    # one method with all seeds: nothing to compare it with
    page = markdown_report(build_result(summary))
    assert "comparisons" not in page
    assert "no mark" not in page
    assert {cell.mark for _, cell in rows(summary).values()} == {""}


def test_ensembles_at_every_seed_are_tested(shared, tmp_path):
    """At each seed an ensemble of the two losses' runs."""
    out = copied(shared, tmp_path / "bench", shared)
    for seed in (0, 1, 2):
        make(
            "hyper-ensemble",
            [out / f"ce-s{seed}", out / f"ls-s{seed}"],
            None,
            options={"selection": "all"},
        )
    summary = collect_runs(out)
    assert summary.tested_methods == ["ce", "ls", "hyper-ensemble(ce, ls)"]
    assert rows(summary)["hyper-ensemble(ce, ls)"][0] == 3
    assert not missing_notes(build_result(summary))
    scaled = [summary.compare(metric, "test_calibrated") for metric in ("nll", "ece")]
    assert all(len(comparison.tests) == 2 for comparison in scaled)


def test_other_settings_are_noted_and_other_data_refused(shared, train, tmp_path):
    out = copied(shared, tmp_path / "bench", ["ce-s0", "ce-s1"])
    wide = train(tmp_path / "wide", "data.split_seed=0", "model.dropout=0.3", "model.hidden=[12]")[
        "ce-s0"
    ]
    make("mc-dropout", [wide], out / "wide")
    run = collect_runs(out).run("mc-dropout(ce)", 0)
    assert (
        run.notes[-1] == "its runs differ from ce-s0 in model.options.hidden: [8] there, [12] here"
    )
    less = train(tmp_path / "less", "data.split_seed=0", "model.dropout=0.3", "data.train_size=80")[
        "ce-s0"
    ]
    make("mc-dropout", [less], out / "less", name="less")
    with pytest.raises(InputError, match=r"less, .*data\.train_size: 100 before, 80 now"):
        collect_runs(out)


def test_other_split_with_same_test_set_is_accepted(apart, shared, tmp_path):
    out = copied(apart, tmp_path / "bench", ["ce-s0", "ce-s1"])
    make("mc-dropout", [shared["ce-s1"]], out / "passes")
    (note,) = [
        note for note in collect_runs(out).run("mc-dropout(ce)", 1).notes if "differ" in note
    ]
    assert "data.split_seed: absent there, 0 here" in note
    # as if all had been tested on a part that the split chooses
    for path in out.rglob("config.yaml"):
        path.write_text(path.read_text().replace("test_size: null", "test_size: 30"))
    with pytest.raises(InputError, match=r"split_seed: absent before, 0 now"):
        collect_runs(out)


def test_two_of_one_name(bench, shared, tmp_path):
    out = copied(shared, tmp_path / "bench", ["ce-s0", "ce-s1", "ce-s2"])
    runs = sorted(out.iterdir())
    make("deep-ensemble", runs[:2], out / "two")
    make("deep-ensemble", runs, out / "three")
    (problem,) = collect_runs(out).unreadable
    assert (problem.name, problem.reason) == (
        "two",
        "not counted: three has the same name and lowest seed",
    )
    shutil.rmtree(out / "two")
    make("deep-ensemble", runs[:2], out / "two", name="two of ce")
    assert collect_runs(out).methods == ["ce", "deep-ensemble(ce)", "two of ce"]


def test_alone_in_a_folder(shared, tmp_path):
    for seed in (0, 1):
        make("mc-dropout", [shared[f"ce-s{seed}"]], tmp_path / "bench" / f"a{seed}")
        make("mc-dropout", [shared[f"ls-s{seed}"]], tmp_path / "bench" / f"b{seed}")
    model = write_report(read_report(tmp_path / "bench", replicates=0)).model
    assert model.summary.common_seeds == [0, 1]
    assert model.summary.compare("nll").n == 2
    assert "2 methods on top of finished runs (" in html_report(model)
    assert not missing_notes(build_result(model.summary))


def test_an_ensemble_of_seeds_that_nothing_else_has(shared, tmp_path):
    out = copied(shared, tmp_path / "bench", ["ce-s0", "ls-s0"])
    make("deep-ensemble", [shared["ce-s1"], shared["ce-s2"]], out / "others")
    summary = write_report(read_report(out, replicates=0)).model.summary
    assert (summary.seeds, summary.common_seeds) == ([0, 1], [0])
    assert [n for n, _ in rows(summary).values()] == [1, 1, 1]
    assert rows(summary)["deep-ensemble(ce)"][1].value != "—"
    (note,) = missing_notes(build_result(summary))
    assert "deep-ensemble(ce)" in note
    assert math.isnan(summary.values("ce", "nll")[1])


def test_bench_resumes_in_folder_with_ensemble(train, bench):
    before = {path: path.stat().st_mtime_ns for path in bench.rglob("metrics.json")}
    assert len(before) == 10
    train(bench, "data.split_seed=0", "model.dropout=0.3")
    recipe = RunFolder(bench / "ce-s0").run.recipe
    assert run_all(plan_runs(recipe, losses=["ce"], seeds=[0], out=bench)).finished == ["ce-s0"]
    assert {path: path.stat().st_mtime_ns for path in bench.rglob("metrics.json")} == before
