"""What a finished bench says first: a sentence for each question, and a table that fits a terminal."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedlas._core.text import pluralize
from fedlas.cli.report import print_bench
from fedlas.lab.report import answers, read_report, result_table, short_bench_table
from fedlas.lab.report.cells import method_cell, stage_tables
from fedlas.lab.results import AUTO, build_result, with_calibrators
from fedlas.lab.runs import FinishedRun, RunEstimates, RunFolder, Summary
from fedlas.stats import Estimate

LOSSES = ("ce", "ls", "mbls", "acls", "fedlas", "fedlas+")


def summary(values, metric="nll"):
    """Runs with these values of a metric, by method and seed."""
    runs = [
        FinishedRun(
            RunFolder(Path(f"{method}-s{seed}")),
            "made",
            method,
            seed,
            {"test": {metric: value}, "test_calibrated": {}},
        )
        for method, row in values.items()
        for seed, value in enumerate(row)
    ]
    return Summary(Path(), tuple(runs))


def texts(summary):
    return {answer.question: answer.text for answer in answers(build_result(summary))}


def test_best_has_star_from_five_seeds_on():
    values = {"ls": [0.30, 0.31, 0.32, 0.31, 0.30], "ce": [0.20, 0.22, 0.21, 0.20, 0.21]}
    assert texts(summary(values)) == {"Lowest NLL": "ce (0.208), beyond chance over 5 seeds."}
    rows = {
        row[0].value: row[1].mark for row in short_bench_table(build_result(summary(values))).rows
    }
    assert rows == {"ce": "best", "ls": "worse"}
    assert list(rows) == ["ce", "ls"]  # the lowest NLL first


def test_from_fewer_seeds_there_is_no_star():
    values = {"ls": [0.30, 0.26, 0.32], "ce": [0.25, 0.26, 0.27]}
    text = texts(summary(values))["Lowest NLL"]
    assert text == "ce (0.260) over 3 seeds; only 5 or more can call one best."
    assert {row[1].mark for row in short_bench_table(build_result(summary(values))).rows} == {""}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ls": [0.3], "ce": [0.2]}, "ce (0.200) over 1 seed; only 5 or more can call one best."),
        ({"ce": [0.2, 0.3]}, "ce (0.250)."),
        ({"ls": [0.30, 0.31, 0.3, 0.32, 0.31], "ce": [0.2, 0.3, 0.25, 0.2, 0.3], "mbls": [0.9, 0.91, 0.92, 0.9, 0.91]},
         "ce (0.250); not distinguishable from ls over 5 seeds."),
        ({"ls": [0.3, 0.4, 0.5, 0.6, 0.7], "ce": [0.2, 0.3, 0.4, 0.5, 0.6]}, "ce (0.400); not tested against ls."),
    ],
)  # fmt: skip
def test_one_seed_one_method_and_a_mixed_outcome(values, text):
    assert texts(summary(values))["Lowest NLL"] == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"a": [0.20, 0.21, 0.19, 0.20, 0.21], "b": [0.31, 0.28, 0.30, 0.32, 0.29], "c": [0.5, 0.51, 0.5, 0.52, 0.5]},
         "a has a lower NLL as trained than its 0.300, beyond chance (Holm over 3 comparisons with ce)."),
        ({"b": [0.31, 0.28, 0.30, 0.30, 0.29]},
         "no loss has a lower NLL as trained than its 0.300, beyond chance (Holm over 1 comparison with ce)."),
        ({"a": [0.20, 0.21, 0.19, 0.20]}, None),  # too few seeds to say so
    ],
)  # fmt: skip
def test_losses_are_compared_with_calibrated_cross_entropy(values, text):
    count = len(next(iter(values.values())))
    plain = summary({"ce": [0.4, 0.41, 0.42, 0.4, 0.41][:count], **values})
    scaled = [0.30, 0.29, 0.31, 0.30, 0.30]
    runs = [
        replace(
            run,
            measured={
                **run.measured,
                "test_calibrated": {"nll": scaled[run.seed] if run.loss == "ce" else 0.1},
            },
        )
        for run in plain.runs
    ]
    assert texts(replace(plain, runs=tuple(runs))).get("Against ce + temperature") == text
    # After auto both sides are calibrated, so that losses are compared under equal information.
    auto = [
        replace(run, measured={**run.measured, "auto": {"nll": scaled[run.seed]}})
        for run in plain.runs
    ]
    expected = (
        None
        if text is None
        else "no loss has a lower NLL after auto than its 0.300, beyond chance"
        f" (Holm over {pluralize(len(values), 'comparison')} with ce)."
    )
    assert texts(replace(plain, runs=tuple(auto))).get("Against ce + auto") == expected


def test_auto_columns_need_all_methods(model, tmp_path):
    head = [column.head for column in short_bench_table(model).columns]
    assert head == [
        "method",
        "Accuracy % ↑",
        "NLL raw ↓",
        "NLL auto ↓",
        "ECE raw % (floor) ↓",
        "ECE auto % ↓",
    ]
    run = model.summary.runs[0]
    path = run.path / "calibrated.json"
    stored = json.loads(path.read_text())
    assert stored["after"]["auto"]["metrics"] == run.measured["auto"]
    # Other predictions, or a file that is damaged, are calibrated anew.
    other = {**stored, "test": "0", "after": {"auto": {"metrics": {"nll": 9.0}}}}
    huge = {**stored, "after": {"auto": {"metrics": {"nll": 10**400}}}}
    for content in (json.dumps(other), json.dumps(huge), json.dumps([stored]), "{"):
        path.write_text(content)
        assert (
            with_calibrators(replace(model.summary, runs=(run,)), [AUTO]).runs[0].measured
            == run.measured
        )
    # A method without predictions and without that file has none; then there is a temperature for all.
    lacking = replace(run, folder=RunFolder(tmp_path))
    plain = replace(model.summary, runs=(lacking, *model.summary.runs[1:]))
    assert with_calibrators(plain, [AUTO], required=False) is plain


@pytest.fixture(scope="module")
def model(full_bench, tmp_path_factory):
    """Six methods with their intervals, one run of each, in a folder of their own."""
    folder = tmp_path_factory.mktemp("verdict") / "digits"
    shutil.copytree(full_bench, folder, ignore=shutil.ignore_patterns("*-s1", "*-s2"))
    return read_report(folder, replicates=39)


@pytest.mark.parametrize(
    ("gaps", "p", "text"),
    [
        ((0.03, 0.03), 0.001, "over-confident, beyond chance"),
        ((-0.03, -0.03), 0.001, "under-confident, beyond chance"),
        ((0.03, -0.03), 0.001, "beyond chance"),
        ((0.03, 0.03), 0.6, "over-confident, beyond chance by O-ECE"),
    ],
)
def test_best_method_is_tested_by_every_metric(gaps, p, text):
    """The table marks ECE's own test, so the sentence names another test that rejects calibration."""
    runs = []
    for seed, gap in enumerate(gaps):
        values = {"ece": abs(gap), "o_ece": max(gap, 0.0), "u_ece": max(-gap, 0.0)}
        noise = {"floor": 0.01, "least_p": 0.001, "replicates": 999}
        found = {
            name: Estimate(value, 0.0, 0.1, p=0.001, **noise)
            for name, value in values.items()
            if value
        }
        found["ece"] = Estimate(abs(gap), 0.0, 0.1, p=p, **noise)
        folder, measured = RunFolder(Path(f"ce-s{seed}")), {"test": values, "test_calibrated": {}}
        runs.append(
            FinishedRun(
                folder, "made", "ce", seed, measured, estimates=RunEstimates({"test": found})
            )
        )
    said = texts(Summary(Path(), tuple(runs)))["Calibration"]
    assert said == f"ce has an ECE of 3.0 %, {text}."


def test_sample_count_is_of_measured_images(tmp_path):
    """With ``data.test_size`` the verdict named more images than there were."""
    (tmp_path / "data.json").write_text('{"test": {"samples": 1000}}')
    run = FinishedRun(
        RunFolder(tmp_path), "made", "ce", 0, {"test": {"nll": 0.3}, "test_calibrated": {}}
    )
    # results that were published without splits
    assert build_result(Summary(tmp_path, (run,))).samples == 1000
    np.savez(tmp_path / "splits.npz", train=np.arange(5), val=np.arange(5), test=np.arange(200))
    again = replace(run, folder=RunFolder(tmp_path))
    assert build_result(Summary(tmp_path, (again,))).samples == 200


def test_six_methods_fit_80_by_24_terminal(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_bench(model)
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) + 2 <= 24  # where the report is, and the prompt
    assert max(map(len, lines)) <= 80
    for method in LOSSES:  # one line each
        (line,) = [line for line in lines if line.split()[:1] == [method]]
        assert "…" not in line
    assert [line for line in lines if "Verdict" in line] == [lines[0]]
    assert lines[0].startswith("Verdict: lowest NLL ")
    assert "; after auto " in " ".join(lines[:3])
    assert not any(line.startswith(("Calibration:", "Highest accuracy:")) for line in lines)


def test_details_print_every_number(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_bench(model, details=True)
    out = capsys.readouterr().out
    for method in LOSSES:
        for line in method_cell(model, method, stage_tables(model)[0][1].columns[2]).details:
            assert line in out
    assert "bootstrap interval" in out


def test_top5_is_shown_from_ten_classes_up(model):
    titles = [column.title for column in stage_tables(model)[0][1].columns]
    assert "Top-5 accuracy" in titles
    model.__dict__["classes"] = 9
    assert "Top-5 accuracy" not in [column.title for column in result_table(model).columns]
    del model.__dict__["classes"]
