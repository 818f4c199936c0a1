"""What a finished bench says first: a sentence for each question, and a table that fits a terminal."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedlas.cli.report import show_bench
from fedlas.lab.report.bench_tables import short_table
from fedlas.lab.report.model import report_model
from fedlas.lab.report.report import write_report
from fedlas.lab.report.verdict import answers
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.summary import FinishedRun, RunEstimates, Summary
from fedlas.stats import Estimate, seeds_needed

LOSSES = ("ce", "ls", "mbls", "acls", "fedlas", "fedlas+")


def summary(values, metric="nll"):
    """Runs with these values of a metric, by method and seed."""
    runs = [
        FinishedRun(
            RunFolder(Path(f"{method}-s{seed}")), "made", method, seed, {"test": {metric: value}, "test_calibrated": {}}
        )
        for method, found in values.items()
        for seed, value in enumerate(found)
    ]
    return Summary(Path(), tuple(runs))


def said(values, metric="nll"):
    (answer,) = answers(report_model(summary(values, metric)))
    return answer.text


def test_from_five_seeds_on_the_best_has_a_star_and_is_named():
    values = {"ls": [0.30, 0.31, 0.32, 0.31, 0.30], "ce": [0.20, 0.22, 0.21, 0.20, 0.21]}
    assert said(values) == "ce (0.208) is distinguishable from all others over 5 seeds."
    rows = {row[0].value: row[1].mark for row in short_table(report_model(summary(values))).rows}
    assert rows == {"ce": "best", "ls": "worse"}
    assert list(rows) == ["ce", "ls"]  # the lowest NLL first


def test_from_fewer_seeds_there_is_no_star_and_it_says_how_many_it_takes():
    values = {"ls": [0.30, 0.26, 0.32], "ce": [0.25, 0.26, 0.27]}
    needed = seeds_needed(np.mean([0.05, 0.0, 0.05]), np.std([0.05, 0.0, 0.05], ddof=1))
    assert said(values) == (
        f"No difference shows over 3 seeds (0.260 to 0.293). It would take about {needed} seeds to call one best."
    )
    assert {row[1].mark for row in short_table(report_model(summary(values))).rows} == {""}
    apart = {"ls": [0.30, 0.31, 0.32], "ce": [0.20, 0.22, 0.21]}
    assert said(apart).startswith("ce (0.210) is distinguishable from all others over 3 seeds. It would take about 5 ")
    same = {"ls": [0.3, 0.4, 0.5], "ce": [0.3, 0.4, 0.5]}
    assert said(same).endswith("It would take more than 1,000 seeds to call one best.")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ls": [0.3], "ce": [0.2]}, "ce (0.200) is best with the only common seed. One seed cannot show whether"),
        ({"ce": [0.2, 0.3]}, "ce has 0.250."),
        ({"ls": [0.30, 0.31, 0.3, 0.32, 0.31], "ce": [0.2, 0.3, 0.25, 0.2, 0.3], "mbls": [0.9, 0.91, 0.92, 0.9, 0.91]},
         "ce (0.250) and ls are not distinguishable over 5 seeds; mbls is worse."),
    ],
)  # fmt: skip
def test_what_is_said_of_one_seed_one_method_and_a_mixed_outcome(values, text):
    assert said(values).startswith(text)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"a": [0.20, 0.21, 0.19, 0.20, 0.21], "b": [0.31, 0.28, 0.30, 0.32, 0.29], "c": [0.5, 0.51, 0.5, 0.52, 0.5]},
         "a has a lower NLL before any temperature than ce after one (0.300); b is not distinguishable; "
         "all others have a higher one."),
        ({"b": [0.31, 0.28, 0.30, 0.32, 0.29]},
         "No loss has a lower NLL than its 0.300 without one."),
        ({"a": [0.20, 0.21, 0.19, 0.20, 0.21], "aa": [0.1, 0.12, 0.11, 0.1, 0.11]},
         "aa and a have a lower NLL before any temperature than ce after one (0.300)."),
        ({"a": [0.20, 0.21, 0.19, 0.20]}, None),  # too few seeds to say so
    ],
)  # fmt: skip
def test_losses_are_held_against_cross_entropy_after_a_temperature(values, text):
    count = len(next(iter(values.values())))
    found = summary({"ce": [0.4, 0.41, 0.42, 0.4, 0.41][:count], **values})
    scaled = [0.30, 0.29, 0.31, 0.30, 0.30]
    runs = [
        replace(
            run, measured={**run.measured, "test_calibrated": {"nll": scaled[run.seed] if run.loss == "ce" else 0.1}}
        )
        for run in found.runs
    ]
    said = {each.question: each.text for each in answers(report_model(replace(found, runs=tuple(runs))))}
    assert said.get("Against ce + temperature") == text


@pytest.fixture(scope="module")
def model(full_bench, tmp_path_factory):
    """Six methods with their intervals, in a folder of their own."""
    folder = tmp_path_factory.mktemp("verdict") / "digits"
    shutil.copytree(full_bench, folder)
    return write_report(folder, replicates=39).model


def test_an_error_that_only_another_test_shows_is_named():
    """The table marks ECE's own test, so a sentence that contradicts the mark would puzzle."""

    def run(method, *, ece):
        found = {
            name: Estimate(0.05, 0.03, 0.07, floor=0.01, p=p, least_p=0.001, replicates=999)
            for name, p in {"ece": ece, "o_ece": 0.001}.items()
        }
        measured = {"test": dict.fromkeys(found, 0.05), "test_calibrated": {}}
        folder = RunFolder(Path(f"{method}-s0"))
        return FinishedRun(folder, "made", method, 0, measured, estimates=RunEstimates({"test": found}))

    runs = (run("ce", ece=0.6), run("ls", ece=0.001), run("mbls", ece=0.001))
    text = {answer.question: answer.text for answer in answers(report_model(Summary(Path(), runs)))}["Calibration"]
    assert text == "No method is within noise of a calibrated model; ECE itself does not show it for ce (by O-ECE)."


def calibration(gaps):
    """What is said of calibration where each method's confidence minus accuracy, by seed, is far beyond noise."""
    runs = []
    for method, by_seed in gaps.items():
        for seed, gap in enumerate(by_seed):
            values = {"ece": abs(gap), "o_ece": max(gap, 0.0), "u_ece": max(-gap, 0.0)}
            noise = {"floor": 0.01, "p": 0.001, "least_p": 0.001, "replicates": 999}
            found = {"test": {name: Estimate(value, 0.0, 0.1, **noise) for name, value in values.items()}}
            folder, measured = RunFolder(Path(f"{method}-s{seed}")), {"test": values, "test_calibrated": {}}
            runs.append(FinishedRun(folder, "made", method, seed, measured, estimates=RunEstimates(found)))
    texts = {answer.question: answer.text for answer in answers(report_model(Summary(Path(), tuple(runs))))}
    return texts["Calibration"]


@pytest.mark.parametrize(
    ("gaps", "text"),
    [
        ({"ce": 0.03}, "ce is over-confident."),
        ({"ce": 0.03, "ls": -0.05}, "ce is over-confident, ls is under-confident."),
        ({"ce": 0.03, "ls": -0.05, "mbls": -0.04, "acls": -0.04},
         "ce is over-confident, all others are under-confident."),
        ({"ce": 0.03, "ls": -0.05, "mbls": None, "acls": -0.04},
         "ce is over-confident, ls and acls are under-confident."),
    ],
)  # fmt: skip
def test_the_direction_of_an_error_beyond_noise_is_said(gaps, text):
    """A method whose seeds disagree (here None) has none."""
    by_seed = {method: (0.05, -0.05) if gap is None else (gap, gap) for method, gap in gaps.items()}
    assert calibration(by_seed).endswith(text)


def test_the_lowest_error_is_named_where_enough_seeds_confirm_it():
    gaps = {"ce": [0.03, 0.031, 0.03, 0.031, 0.03], "ls": [-0.08] * 5}
    assert calibration(gaps).endswith("ls is under-confident. ce has the lowest ECE.")
    assert calibration({name: values[:4] for name, values in gaps.items()}).endswith("ls is under-confident.")


def test_the_test_images_are_those_that_were_measured_not_those_of_the_data_set(tmp_path):
    """With ``data.test_size`` the verdict named more images than there were."""
    (tmp_path / "data.json").write_text('{"test": {"samples": 1000}}')
    run = FinishedRun(RunFolder(tmp_path), "made", "ce", 0, {"test": {"nll": 0.3}, "test_calibrated": {}})
    assert report_model(Summary(tmp_path, (run,))).samples == 1000  # results that were published without splits
    np.savez(tmp_path / "splits.npz", train=np.arange(5), val=np.arange(5), test=np.arange(200))
    again = replace(run, folder=RunFolder(tmp_path))
    assert report_model(Summary(tmp_path, (again,))).samples == 200


def test_six_methods_fit_a_terminal_of_80_by_24(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    show_bench(model)
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) + 2 <= 24  # where the report is, and the prompt
    assert max(map(len, lines)) <= 80
    for method in LOSSES:  # one line each
        (line,) = [line for line in lines if line.split()[:1] == [method]]
        assert line.split()[-1] == "3"
        assert "…" not in line
    assert [line.split(":")[0] for line in lines if line.split(":")[0] in ("Accuracy", "NLL", "Calibration")] == [
        "Accuracy", "NLL", "Calibration"
    ]  # fmt: skip


def test_details_print_every_number(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    show_bench(model, details=True)
    out = capsys.readouterr().out
    for method in LOSSES:
        for line in model.cell(method, model.tables[0][1].columns[2]).details:
            assert line in out
    assert "bootstrap interval" in out


def test_top5_is_shown_from_ten_classes_up(model):
    titles = [column.title for column in model.tables[0][1].columns]
    assert "Top-5 accuracy" in titles
    model.__dict__["classes"] = 9
    assert "Top-5 accuracy" not in [column.title for column in model.table().columns]
    del model.__dict__["classes"]
