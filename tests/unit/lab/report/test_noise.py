"""Intervals and noise floors: where they come from, when they are computed anew, and that every table carries them."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace

import pytest
import rich.console

from fedlas.errors import InputError
from fedlas.lab.report import (
    detailed_bench_table,
    html_report,
    markdown_report,
    read_report,
    result_table,
    write_report,
)
from fedlas.lab.report.cells import method_noise, stage_tables
from fedlas.lab.report.verdict import mark_legend
from fedlas.lab.results import build_result
from fedlas.lab.runs import collect_runs, missing_interval_reasons, with_estimates
from fedlas.lab.runs.intervals import FILE
from fedlas.metrics import METRICS
from fedlas.predictions import Predictions
from fedlas.present.metric_tables import noise_legend, noise_text
from fedlas.present.table import metric_column, terminal_table
from fedlas.stats import Estimate, bootstrap_interval, noise_floor
from fedlas.stats.estimates import is_calibration_error
from fedlas.stats.noise_floor import format_p_digits

REPLICATES = 39


@pytest.fixture(scope="module")
def measured(tmp_path_factory, bench_writer):
    """Two methods, two seeds, with the ``intervals.json`` and the report of all; tests copy it to change it."""
    folder = bench_writer(
        tmp_path_factory.mktemp("noise") / "digits", losses=("ce", "ls"), seeds=(0, 1), samples=300
    )
    return write_report(read_report(folder, replicates=REPLICATES))


@pytest.fixture
def folder(measured, tmp_path):
    shutil.copytree(measured.html.parent, tmp_path / "digits")
    return tmp_path / "digits"


def shown(summary):
    """The terminal's table."""
    console = rich.console.Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(terminal_table(detailed_bench_table(build_result(summary)), details=True))
    console.file.close()
    return console.export_text()


def noise(folder, **options):
    return with_estimates(collect_runs(folder), **{"replicates": REPLICATES, **options})


def test_numbers_are_those_of_the_statistics(measured):
    run = measured.model.summary.runs[0]
    test = Predictions.load(run.path / "predictions" / "test.npz")
    scaled = test.with_logits(test.tensors().logits / run.temperature)
    for stage, predictions in (("test", test), ("test_calibrated", scaled)):
        for metric in ("accuracy", "ece", "classwise_ece", "smooth_ece"):
            found = run.estimates.get(metric, stage)
            interval = bootstrap_interval(predictions, metric=metric, replicates=REPLICATES)
            assert (found.value, found.low) == (interval.value, interval.low)
            assert found.high == min(interval.high, 1.0)
            if metric == "accuracy":
                assert (found.floor, found.p, found.least_p) == (None, None, None)
            else:
                floor = noise_floor(predictions, metric=metric, replicates=REPLICATES)
                assert (found.floor, found.p, found.least_p) == (
                    floor.mean,
                    floor.p_value,
                    floor.least_p,
                )


def test_every_calibration_error_of_every_table_carries_them(measured):
    markdown, html = (
        measured.markdown.read_text(encoding="utf-8"),
        measured.html.read_text(encoding="utf-8"),
    )
    seen = 0
    model = measured.model
    for stage, table in stage_tables(model):
        for i, about in list(enumerate(table.columns))[2:]:
            for row in table.rows:
                noise = method_noise(model, row[0].value, about, stage)
                assert noise.interval
                assert (
                    bool(noise.floor) == bool(noise.p_value) == is_calibration_error(about.metric)
                )
                assert row[i].details == noise.lines
                if noise.floor:
                    seen += 1
                    rest = ", ".join(noise.lines[1:])
                    assert f"{noise.interval}<br>{rest}" in markdown
                    assert f">{noise.interval}<" in html
                    assert f">{rest}<" in html
    assert seen == 2 * 2 * sum(map(is_calibration_error, measured.model.summary.metrics))
    terminal = shown(measured.model.summary)
    for method in measured.model.summary.methods:
        noise = method_noise(model, method, metric_column("ece"))
        assert noise.interval in terminal
        assert noise.lines[1] in terminal


def test_csv_has_them_in_full(measured):
    rows = list(csv.DictReader(measured.csv.read_text(encoding="utf-8").splitlines()))
    for row in rows:
        run = measured.model.summary.run(row["loss"], int(row["seed"]))
        found = run.estimates.get("ece", "test" if row["stage"] == "before" else "test_calibrated")
        assert [float(row[f"ece_{end}"]) for end in ("low", "high", "floor", "p")] == [
            found.low, found.high, found.floor, found.p
        ]  # fmt: skip
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        assert "accuracy_floor" not in row


def test_they_are_computed_once(folder, monkeypatch):
    before = {run.name: run.estimates for run in noise(folder).runs}

    def never(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr("fedlas.lab.runs.intervals.metric_and_class_estimates", never)
    assert {run.name: run.estimates for run in noise(folder).runs} == before


@pytest.mark.parametrize(
    "change", ["predictions", "temperature", "bins", "replicates", "broken", "format"]
)
def test_what_is_stale_is_computed_again(folder, change):
    run, options = folder / "ce-s0", {}
    for other in ("ce-s1", "ls-s0", "ls-s1"):
        shutil.rmtree(folder / other)
    old = json.loads((run / FILE).read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    if change == "predictions":
        test = Predictions.load(run / "predictions" / "test.npz")
        test.with_logits(test.tensors().logits * 1.5).save(run / "predictions" / "test.npz")
    elif change == "temperature":
        (run / "metrics.json").write_text(
            json.dumps({**metrics, "temperature": metrics["temperature"] * 2})
        )
    elif change == "bins":
        path = run / "config.yaml"
        path.write_text(path.read_text().replace("batch_size: 64", "batch_size: 64\n  num_bins: 5"))
    elif change == "replicates":
        options = {"replicates": 40}
    else:
        (run / FILE).write_text("{" if change == "broken" else json.dumps({**old, "format": 99}))
    found = next(r for r in noise(folder, **options).runs if r.name == "ce-s0")
    new = json.loads((run / FILE).read_text())
    if change in ("broken", "format"):
        assert new == old
    else:
        assert new != old
        key = {"predictions": "predictions", "temperature": "temperature", "bins": "num_bins"}.get(
            change, "replicates"
        )
        assert new[key] != old[key]
    if change == "predictions":  # and metrics.json is not about them any more
        assert found.estimates.get("ece") is None
        assert "other values than metrics.json for" in found.estimates.reasons[0]


def test_without_predictions_what_is_kept_is_taken(folder, measured):
    for path in folder.rglob("*.npz"):
        path.unlink()
    again = write_report(read_report(folder, replicates=REPLICATES))
    assert [run.estimates for run in again.model.summary.runs] == [
        run.estimates for run in measured.model.summary.runs
    ]
    assert again.csv.read_bytes() == measured.csv.read_bytes()


def test_missing_estimates_show_dash_and_reason(folder):
    shutil.rmtree(folder / "ce-s1" / "predictions")
    (folder / "ce-s1" / FILE).unlink()
    report = write_report(read_report(folder, replicates=REPLICATES))
    (reason,) = missing_interval_reasons(report.model.summary)
    assert (
        reason
        == "ce-s1: no intervals: predictions/test.npz is missing, and there is no usable intervals.json"
    )
    for path in (report.markdown, report.html):
        assert reason in path.read_text(encoding="utf-8")
    rows = {row[0].value: row[2:] for row in stage_tables(report.model)[0][1].rows}
    # of one seed alone they would not be about the mean
    assert not any(cell.details for cell in rows["ce"])
    assert all(cell.details for cell in rows["ls"])


def test_zero_replicates_compute_nothing(folder):
    for path in folder.rglob(FILE):
        path.unlink()
    summary = noise(folder, replicates=0)
    assert not list(folder.rglob(FILE))
    assert "replicates is 0" in missing_interval_reasons(summary)[0]
    with pytest.raises(InputError, match="0 or at least 39"):
        noise(folder, replicates=20)


def test_hostile_content_is_no_interval(folder):
    path = folder / "ce-s0" / FILE
    content = json.loads(path.read_text())
    content["stages"]["test"]["ece"] = {"value": "<b>", "low": None, "high": 1, "replicates": 1}
    content["stages"]["test"]["nll"] = [1]
    path.write_text(json.dumps(content))
    run = noise(folder).runs[0]
    assert (run.estimates.get("ece"), run.estimates.get("nll")) == (None, None)
    assert run.estimates.get("brier") is not None


def changed(summary, **p_values):
    """``summary`` with these p-values before temperature scaling, at the last seed of ``ce`` and at no other run."""

    def estimates_of(run):
        last = (run.loss, run.seed) == ("ce", 1)
        test = {
            name: replace(noise, p=p_values.get(name, 0.5) if last else 0.5)
            if noise.floor is not None
            else noise
            for name, noise in run.estimates.stages["test"].items()
        }
        return replace(run.estimates, stages={**run.estimates.stages, "test": test})

    return replace(
        summary, runs=tuple(replace(run, estimates=estimates_of(run)) for run in summary.runs)
    )


def test_within_noise_sign_is_in_all_formats(measured, tmp_path):
    """Not ``≈``, which says that a method is not distinguishable from the best."""
    summary = changed(measured.model.summary, ece=0.001)
    model = build_result(summary)
    told, untold = (method_noise(model, method, metric_column("ece")) for method in ("ce", "ls"))
    assert (told.calibrated, untold.calibrated) == (False, True)
    markdown, html, terminal = markdown_report(model), html_report(model), shown(summary)
    for text in (markdown, html):
        assert (
            f">~ floor {untold.floor}<" in text
            or f">~ floor {untold.floor}, {untold.p_value}" in text
        )
        assert f">floor {told.floor}" in text
        assert f"~ floor {told.floor}" not in text
        assert "~: the smallest p times the number of seeds is above 0.05" in text
    assert f"~ floor {untold.floor}" in terminal
    assert f"floor {told.floor}" in terminal
    assert f"~ floor {told.floor}" not in terminal
    for text in (markdown, html, terminal):
        assert not re.search(r"≈ ?(floor|\d)", text)


def test_text_of_several_runs():
    runs = [
        Estimate(0.02, 0.01, 0.03, 0.008, 0.01, 0.01, 99),
        Estimate(0.03, 0.0, 0.04, 0.012, 0.2, 0.01, 99),
    ]
    text = noise_text(runs, lambda v: f"{100 * v:.2f}")
    assert (text.interval, text.floor, text.p_value) == ("[0.00, 4.00]", "1.00", "p ≤ 0.01 to 0.2")
    assert text.replicates == 99
    assert not text.calibrated  # one of them is told from a calibrated one
    assert noise_text(runs[1:], str).calibrated
    assert noise_text(runs[1:], str).p_value == "p = 0.2"
    assert noise_text([Estimate(0.9, 0.8, 1.0, replicates=99)], str).text == "[0.8, 1.0]"
    assert format_p_digits(0.00012) == "0.0001"


@pytest.mark.parametrize(
    ("p_values", "least", "said", "calibrated"),
    [
        ([0.001], 0.001, "p ≤ 0.001", False),
        ([0.002], 0.001, "p = 0.002", False),
        ([0.001, 0.001], 0.001, "p ≤ 0.001", False),
        ([0.61, 0.001, 0.3], 0.001, "p ≤ 0.001 to 0.61", False),
        ([0.61, 0.004, 0.3], 0.001, "p 0.004 to 0.61", False),
        ([0.05], 0.001, "p = 0.05", False),
        ([0.0501], 0.001, "p = 0.05", True),
        # of two, one in twenty is below 0.025 by chance
        ([0.03, 0.5], 0.001, "p 0.03 to 0.5", True),
        ([0.025, 0.5], 0.001, "p 0.025 to 0.5", False),
        ([1e-5, 0.5], 1e-5, "p < 0.0001 to 0.5", False),
        ([1e-5], 1e-5, "p < 0.0001", False),
        ([0.001], None, "p = 0.001", False),
    ],
)
def test_p_value_is_range_bound_or_estimate(p_values, least, said, calibrated):
    text = noise_text([Estimate(0.1, 0.0, 0.2, 0.05, p, least, 999) for p in p_values], str)
    assert (text.p_value, text.calibrated) == (said, calibrated)


def test_legend_states_replicates_and_runs_with_fewer():
    many = noise_text([Estimate(0.1, 0.0, 0.2, 0.05, 0.5, 1 / 1001, 1000)], str)
    few = noise_text([Estimate(0.1, 0.0, 0.2, 0.05, 0.5, 0.01, 99)], str)
    assert "none of the 1,000 replicates" in noise_legend([many, few], over_seeds=False)[1]
    assert "some have 99" in noise_legend([many, few], over_seeds=False)[1]
    assert "some have" not in noise_legend([few], over_seeds=False)[1]
    assert (
        len(
            noise_legend(
                [noise_text([Estimate(0.9, 0.8, 1.0, replicates=99)], str)], over_seeds=False
            )
        )
        == 1
    )
    assert noise_legend([], over_seeds=True) == []


def test_signed_and_vanishing_metrics_have_a_floor():
    found = {name for name in METRICS if is_calibration_error(name)}
    assert {
        "ece",
        "adaptive_ece",
        "classwise_ece",
        "smooth_ece",
        "ks",
        "debiased_ece2",
        "confidence_gap",
    } <= found
    assert not {"accuracy", "nll", "brier", "aurc", "mystery"} & found


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        # few seeds
        ({"ce": [0.10, 0.11, 0.12], "ls": [0.01, 0.021, 0.029], "mbls": [0.2, 0.21, 0.23]}, ""),
        ({"ce": [0.10, 0.11, 0.12, 0.11, 0.13], "ls": [0.01, 0.021, 0.029, 0.02, 0.028]}, "best"),
        (
            {"ce": [0.02, 0.01, 0.03, 0.015, 0.02], "ls": [0.01, 0.02, 0.029, 0.012, 0.019]},
            "leading",
        ),
        ({"ce": [0.2], "ls": [0.1]}, ""),
    ],
)
def test_from_five_seeds_on_the_best_is_marked(tmp_path, values, mark):
    for loss, numbers in values.items():
        for seed, value in enumerate(numbers):
            (tmp_path / f"{loss}-s{seed}").mkdir()
            content = {
                "format": 1,
                "loss": loss,
                "seed": seed,
                "recipe": "r",
                "test": {"ece": value},
            }
            (tmp_path / f"{loss}-s{seed}" / "metrics.json").write_text(json.dumps(content))
    model = build_result(collect_runs(tmp_path))
    assert {row[0].value: row[2].mark for row in result_table(model).rows}["ls"] == mark
    assert mark in mark_legend(model)
