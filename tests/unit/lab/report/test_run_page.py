"""The page of one run, alone and beside the others of a bench."""

import json
import re
import shutil

import numpy as np
import pytest

from fedlas._core.check import InputError
from fedlas.cli.report import report
from fedlas.lab.bench.run_all import run_all
from fedlas.lab.recipes.plan import plan
from fedlas.lab.recipes.recipe import load_recipe
from fedlas.lab.report import run_page
from fedlas.lab.report.examples import cases_of
from fedlas.lab.report.report import write_report
from fedlas.lab.report.run_page import write_run_report
from fedlas.lab.runs.collect import collect
from fedlas.predictions import Predictions


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two real runs on the digits, which need no files, so that their images can be had."""
    settings = ["train.epochs=1", "data.train_size=100", "data.val_size=60", "data.test_size=100"]
    folder = tmp_path_factory.mktemp("pages") / "digits"
    run_all(plan(load_recipe("digits", settings), losses=["ce", "ls"], seeds=[0], out=folder))
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "digits")
    return tmp_path / "digits"


@pytest.fixture
def blank(monkeypatch):
    """Pages without figures, which take two seconds a page."""
    monkeypatch.setattr(run_page, "figure", lambda drawn, alt: "")


def test_a_bench_has_a_page_a_run_and_links_to_it(folder):
    assert write_report(folder, replicates=0).notes == ()
    assert not list(folder.glob("*/report.html"))  # pages are made when asked for
    found = write_report(folder, replicates=0, pages=True)
    assert found.notes == ()
    html = found.html.read_text(encoding="utf-8")
    for name in ("ce-s0", "ls-s0"):
        assert f'<a href="./{name}/report.html">{name}</a>' in html
        page = (folder / name / "report.html").read_text(encoding="utf-8")
        assert '<a href="../report.html">' in page
        assert not re.search(r"<script|url\((?!#)|@import|src=\"(?!data:)", page)
        assert page.count("<svg") == 2 + 1 + 1 + 1
        assert page.count('class="sample"') == len(re.findall(r"no\. \d+", page)) > 12
        assert len(page) < 1_500_000
    written = (folder / "ce-s0" / "report.html").read_bytes()
    shutil.rmtree(folder / "ls-s0")
    (folder / "ce-s0" / "report.html").unlink()
    write_report(folder, replicates=0, pages=True)
    assert (folder / "ce-s0" / "report.html").read_bytes() == written


def test_images_are_those_that_are_most_wrong(folder):
    run = collect(folder).runs[0]
    predictions = Predictions.load(run.path / "predictions" / "test.npz")
    found = cases_of(run, predictions)
    assert found.missing == ""
    confidence, correct = predictions.confidence.numpy(), predictions.correct.numpy()
    over = [case.index for case in found.over]
    assert not correct[over].any()
    assert correct[[case.index for case in found.under]].all()
    left = np.setdiff1d(np.flatnonzero(~correct), over)
    assert len(over) == min(12, (~correct).sum())
    assert (np.diff(confidence[over]) <= 0).all()
    if len(left):
        assert confidence[left].max() <= confidence[over].min()
    assert all(case.image.startswith("data:image/png;base64,") for case in (*found.over, *found.under))
    assert all(case.target == found.classes[int(predictions.target[case.index])] for case in found.over)


@pytest.mark.parametrize("change", ["data", "other", "config"])
def test_without_the_data_the_page_says_so(folder, blank, change):
    run = folder / "ce-s0"
    if change == "data":
        (run / "data.json").write_text('{"train": {"sha256": "x"}, "test": {"sha256": "x"}}')
    elif change == "other":
        test = Predictions.load(run / "predictions" / "test.npz")
        Predictions(test.logits.flip(0), test.target.flip(0)).save(run / "predictions" / "test.npz")
    else:
        (run / "config.yaml").unlink()
    page, _ = write_run_report(run, replicates=0)
    text = page.read_text(encoding="utf-8")
    assert "No images: " in text
    assert 'class="sample"' not in text
    assert len(re.findall(r"no\. \d+", text)) > 12  # the samples are listed all the same


def test_a_page_is_drawn_again_only_if_something_changed(folder, blank, monkeypatch):
    run = folder / "ce-s0"
    page, _ = write_run_report(run, replicates=0)
    first = page.read_text(encoding="utf-8")

    def drawn(*args, **kwargs):
        raise RuntimeError("drawn again")

    monkeypatch.setattr(run_page, "run_page", drawn)
    write_run_report(run, replicates=0)
    assert page.read_text(encoding="utf-8") == first
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "notes": ["new"]}))
    with pytest.raises(RuntimeError, match="drawn again"):
        write_run_report(run, replicates=0)


def test_every_error_of_a_class_has_interval_and_floor(folder, blank):
    write_report(folder, replicates=99, pages=True)
    page = (folder / "ce-s0" / "report.html").read_text(encoding="utf-8")
    table = page[page.index("Every class in numbers") : page.index("Most over-confident")]
    rows = [cells(row) for row in table.split("<tr>")[2:]]
    assert len(rows) == 10
    for row in rows:
        ece, interval, floor = row[-3:]
        low, high = map(float, interval.strip("[]").split(", "))
        assert low <= float(ece) <= high
        assert float(floor.removeprefix("~ ")) > 0
    write_report(folder, replicates=0)
    shutil.rmtree(folder / "ls-s0")
    (folder / "ce-s0" / "intervals.json").unlink()
    write_report(folder, replicates=0, pages=True)
    page = (folder / "ce-s0" / "report.html").read_text(encoding="utf-8")
    table = page[page.index("Every class in numbers") : page.index("Most over-confident")]
    assert [cells(row)[-2:] for row in table.split("<tr>")[2:]] == [["—", "—"]] * 10


def cells(row):
    """Texts of a row's cells."""
    return [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]


def test_report_of_a_run_folder(folder, blank, capsys):
    assert report(folder / "ce-s0", replicates=39, details=True) == 0
    out = capsys.readouterr().out
    assert "ce-s0, test set" in out
    assert "floor" in out
    assert f"report: {folder / 'ce-s0' / 'report.html'}" in out
    assert not (folder / "report.html").exists()
    assert "../report.html" not in (folder / "ce-s0" / "report.html").read_text(encoding="utf-8")
    assert (folder / "ce-s0" / "intervals.json").is_file()


def test_a_run_folder_that_cannot_be_used(folder):
    run = folder / "ce-s0"
    (run / "predictions" / "test.npz").unlink()
    with pytest.raises(InputError, match="must have its test predictions"):
        report(run)
    (run / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="folder of a finished run"):
        report(run)


def test_names_on_a_page_are_escaped(tmp_path, blank, write_run):
    run = write_run(tmp_path / "<i>", loss="<script>alert(1)</script>", samples=60, notes=["<u>note</u>"], recipe="<b>")
    page, _ = write_run_report(run, replicates=0)
    text = page.read_text(encoding="utf-8")
    for tag in ("<script", "<u>", "<i>&", "<b>:"):
        assert tag not in text
    assert "&lt;script&gt;" in text
