"""The three files of a report and the table in the terminal."""

import csv
import json
import os
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import rich.console

import fedlas
from fedlas.errors import InputError
from fedlas.lab.report import (
    answers,
    detailed_bench_table,
    html_report,
    read_report,
    result_table,
    short_bench_table,
)
from fedlas.lab.report import write_report as write_everything
from fedlas.lab.report.cells import method_cell, stage_tables
from fedlas.lab.report.report import collect_runs
from fedlas.lab.results import build_result
from fedlas.losses import LOSSES, CrossEntropy
from fedlas.metrics import METRICS
from fedlas.present.table import metric_column, strip_markup, terminal_table


def write_report(folder):
    return write_everything(read_report(folder, replicates=0))


class Page(HTMLParser):
    """Tags, addresses and text of a page; refuses tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "br", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text, self.ids = [], [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("href", "src", "srcset", "action")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def shown(summary, width=100, *, details=True):
    model = build_result(summary)
    table = (
        terminal_table(detailed_bench_table(model), details=True)
        if details
        else terminal_table(short_bench_table(model))
    )
    console = rich.console.Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(table)
    console.file.close()
    return console.export_text()


def test_page_is_well_formed_and_needs_nothing_else(full_report):
    page = Page(full_report.html.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("svg") == 6 + 4 + 2  # diagrams, seed by seed and curves, each drawn once
    assert "img" not in page.tags
    outside = [a for a in page.addresses if not a.startswith(("./", "#", "data:"))]
    # links to papers, followed only by a click
    assert all(a.startswith("https://arxiv.org/") for a in outside)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\((?!#)|@import", full_report.html.read_text(encoding="utf-8"))


def test_page_states_summary_date_and_version(full_report, tmp_path):
    page = full_report.html.read_text(encoding="utf-8")
    verdict = answers(full_report.model)[0]
    header = page[page.index("<header>") : page.index("</header>")]
    assert "<h1>Calibration benchmark: digits</h1>" in header
    assert header.index(verdict.text) < header.index("All numbers are measured on the test set")
    assert f"by fedlas {fedlas.__version__}." in header
    assert "<h1>Mine &amp; yours</h1>" in html_report(full_report.model, heading="Mine & yours")


def test_pages_rank_methods_by_aurc_too(full_report):
    """A column of the first table, which a terminal has no room for."""
    head = next(
        line
        for line in full_report.markdown.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    )
    assert [cell.strip() for cell in head.split("|")[2:5]] == [
        "Accuracy % ↑",
        "NLL raw ↓",
        "AURC % ↓",
    ]
    assert "AURC" not in shown(full_report.model.summary, details=False)


def test_links_lead_to_files(full_bench, full_report):
    page = Page(full_report.html.read_text(encoding="utf-8"))
    local = [a for a in page.addresses if a.startswith("./")]
    assert len(local) == 18 * 7 + 1
    for address in local:
        assert (full_bench / address.replace("%2B", "+")).exists()


@pytest.mark.system
def test_the_same_runs_give_the_same_bytes(full_bench, full_report):
    paths = full_report.markdown, full_report.html, full_report.csv
    first = [path.read_bytes() for path in paths]
    write_report(full_bench)
    assert [path.read_bytes() for path in paths] == first
    assert not list(full_bench.glob(".*.part"))


def test_csv_has_full_precision_rows_per_stage(full_report):
    rows = list(csv.DictReader(full_report.csv.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 18 * 2
    for row in rows:
        run = full_report.model.summary.run(row["loss"], int(row["seed"]))
        measured = run.measured["test" if row["stage"] == "before" else "test_calibrated"]
        assert float(row["ece"]) == measured["ece"]
        assert float(row["temperature"]) == run.temperature
        assert row["top5"] == ("" if "top5" not in measured else repr(measured["top5"]))


def test_every_form_shows_the_same_numbers(full_report):
    markdown, html = (
        full_report.markdown.read_text(encoding="utf-8"),
        Page(full_report.html.read_text(encoding="utf-8")).text,
    )
    terminal = shown(full_report.model.summary)
    for method in full_report.model.summary.methods:
        cell = method_cell(full_report.model, method, metric_column("ece"))
        assert f"{cell.value} ± {cell.spread}" in markdown
        assert f"{cell.value} ± {cell.spread}{cell.symbol}" in html
        assert f"{cell.value} ±{cell.spread}{cell.symbol}" in terminal
    assert "n = 3" in markdown
    assert "n = 3" in html
    assert "fedlas bench digits" in markdown


def test_details_come_last_and_are_folded_at_first(full_report):
    details = [name for name in full_report.model.summary.metrics if METRICS[name].detail]
    columns = stage_tables(full_report.model)[0][1].columns[2:]
    assert (
        [c.metric for c in columns if not c.shown]
        == [c.metric for c in columns][-len(details) :]
        == details
    )
    assert [c.metric for c in columns if c.shown] == [
        m for m in full_report.model.summary.metrics if m not in details
    ]
    page = Page(full_report.html.read_text(encoding="utf-8")).text
    for text in (full_report.markdown.read_text(encoding="utf-8"), page):
        for c in columns:
            assert c.title in text
        assert "After temperature scaling" in text
    for c in columns:
        assert c.about in page


@pytest.mark.parametrize("seeds", [3, 5])
def test_marks_are_those_of_the_comparison(full_bench, seeds):
    """From five seeds on; fewer mark no method as best."""
    summary = collect_runs(full_bench)
    more = [
        replace(run, seed=seed, measured=moved(run, seed))
        for run in summary.runs
        for seed in (3, 4)
    ]
    summary = replace(summary, runs=(*summary.runs, *(run for run in more if seeds == 5)))
    model = build_result(summary)
    for stage, table in stage_tables(model):
        for i, about in list(enumerate(table.columns))[2:]:
            comparison = summary.compare(about.metric, stage)
            marks = {row[0].value: row[i].mark for row in table.rows}
            if comparison is None or seeds < 5:
                assert set(marks.values()) == {""}
                continue
            alone = not comparison.not_distinguishable and not comparison.untested
            assert marks.pop(comparison.best) == ("best" if alone else "leading")
            assert {
                m for m, mark in marks.items() if mark == "same"
            } == comparison.not_distinguishable
            assert {m for m, mark in marks.items() if mark == "worse"} == comparison.distinguishable


def moved(run, seed):
    """Other numbers of the same run, as another seed could give them."""
    factor = 1 + np.random.default_rng([seed, *run.name.encode()]).normal() / 50
    return {
        stage: {name: value * factor for name, value in found.items()}
        for stage, found in run.measured.items()
    }


def test_terminal_table_fits_100_columns(full_bench):
    lines = shown(collect_runs(full_bench)).splitlines()
    assert max(map(len, lines)) <= 100
    # on one line
    assert sum(line.split()[:1] == ["fedlas+"] and "±" in line for line in lines) == 1
    assert "…" not in shown(collect_runs(full_bench), width=60)  # narrow: wraps, cuts no number


def test_one_seed_is_not_tested(tmp_path, write_bench):
    report = write_report(write_bench(tmp_path / "b", losses=("ce", "ls"), seeds=(4,), samples=80))
    for text in (
        report.markdown.read_text(encoding="utf-8"),
        Page(report.html.read_text(encoding="utf-8")).text,
    ):
        assert "n = 1" in text
        assert re.search("one seed cannot show", text, re.IGNORECASE)
        assert "≈" not in text
        assert "±" not in text


def test_one_method_is_no_winner(tmp_path, write_bench):
    report = write_report(write_bench(tmp_path / "b", losses=("ce",), seeds=(0, 1), samples=80))
    for mark in "★☆":
        assert mark not in report.html.read_text(encoding="utf-8")
        assert mark not in report.markdown.read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_missing_seeds_are_named_and_not_tested(tmp_path, write_bench, write_run):
    write_bench(tmp_path / "b", losses=("ce", "ls"), seeds=(0, 1, 2), samples=80)
    write_run(tmp_path / "b" / "fedlas-s0", loss="fedlas", seed=0, samples=80)
    write_run(tmp_path / "b" / "fedlas-s2", loss="fedlas", seed=2, samples=80)
    report = write_report(tmp_path / "b")
    for text in (
        report.markdown.read_text(encoding="utf-8"),
        Page(report.html.read_text(encoding="utf-8")).text,
        " ".join(shown(report.model.summary).split()),
    ):
        assert "fedlas has no finished run for seed 1." in text
        assert "what every method has, seeds 0, 2;" in text
        assert "n = 2" in text
        assert "n = 3" not in text
        assert "over the 2 seeds" in text


def test_disjoint_seeds_still_make_a_report(tmp_path, write_run):
    write_run(tmp_path / "b" / "ce-s0", loss="ce", seed=0, samples=80)
    write_run(tmp_path / "b" / "ls-s1", loss="ls", seed=1, samples=80)
    page = Page(write_report(tmp_path / "b").html.read_text(encoding="utf-8"))
    assert "No seed is common" in page.text
    assert page.tags.count("svg") == 8


def test_names_cannot_become_markup(tmp_path, write_run):
    evil = "<script>alert(1)</script>|`x`"
    run = write_run(tmp_path / "b" / "<b>&'\"#?%", loss=evil, samples=80, recipe="<i>r</i>")
    write_run(tmp_path / "b" / "javascript:alert(1)", loss="ce", samples=80, recipe="<i>r</i>")
    for path in (tmp_path / "b").iterdir():
        (path / "config.yaml").write_text("a: </pre><script>")
    (run / "environment.json").write_text('[{"<u>": "<u>", "command": "a </pre><script> ```"}]')
    (tmp_path / "b" / "bad").mkdir()
    (tmp_path / "b" / "bad" / "error.txt").write_text("<img src=x onerror=alert(1)>")
    report = write_report(tmp_path / "b")
    page = Page(report.html.read_text(encoding="utf-8"))
    assert not {"script", "b-", "i", "u"} & (set(page.tags) - {"i"})
    assert "x" not in page.addresses
    assert "./javascript%3Aalert%281%29/" in page.addresses
    assert evil in page.text
    assert "<script>" not in re.sub(
        r"\\<", "", report.markdown.read_text(encoding="utf-8").replace("    a </pre><script>", "")
    )
    assert "<script>alert(1)</script>|`x`" in shown(report.model.summary, width=140)


def test_missing_or_broken_files_are_reported(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce", "ls"), seeds=(0,), samples=80)
    (folder / "ce-s0" / "predictions" / "test.npz").unlink()
    (folder / "ls-s0" / "predictions" / "test.npz").write_bytes(b"PK junk")
    for name in ("ce-s0", "ls-s0"):
        (folder / name / "log.jsonl").write_text('{"epoch": 1, "val": {"ec')
        (folder / name / "environment.json").write_text("[]")
        (folder / name / "config.yaml").unlink()
    text = Page(write_report(folder).html.read_text(encoding="utf-8")).text
    for sentence in (
        "ce-s0: predictions/test.npz is missing",
        "ls-s0: Predictions.load: the file must be an .npz",
        "No run has a log",
        "No run has a readable environment.json",
    ):
        assert sentence in text


@pytest.mark.usefixtures("no_pictures")
def test_differences_between_runs_are_shown(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce",), seeds=(0, 1), samples=80)
    (folder / "ce-s1" / "environment.json").write_text(
        '[{"device": "cuda", "command": "fedlas runs train \'a b\'"}]'
    )
    page = Page(write_report(folder).html.read_text(encoding="utf-8")).text
    assert "cpu; cuda (differs between runs or their starts)" in page
    assert re.search(r"dirty\s*no\b", page)
    assert "fedlas runs train 'a b'" in page


@pytest.mark.usefixtures("no_pictures")
def test_every_start_of_a_run_is_shown(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce",), seeds=(0,), samples=80)
    starts = [
        {"torch": "2.6", "command": "fedlas runs train a"},
        {"torch": "2.7", "command": "fedlas runs train b"},
        "junk",
    ]
    (folder / "ce-s0" / "environment.json").write_text(json.dumps(starts))
    page = Page(write_report(folder).html.read_text(encoding="utf-8")).text
    assert "2.6; 2.7 (differs between runs or their starts)" in page
    assert collect_runs(folder).commands == ["fedlas runs train a", "fedlas runs train b"]


@pytest.mark.usefixtures("no_pictures")
def test_failed_and_unfinished_runs_are_listed(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce",), seeds=(0,), samples=80)
    for name in ("failed", "killed"):
        (folder / name).mkdir()
    (folder / "failed" / "error.txt").write_text("Traceback\nRuntimeError: loss became NaN")
    report = write_report(folder)
    assert "1 finished run, 1 failed, 1 unfinished." in report.markdown.read_text(encoding="utf-8")
    page = Page(report.html.read_text(encoding="utf-8"))
    assert "RuntimeError: loss became NaN" in page.text
    assert "./failed/error.txt" in page.addresses


@pytest.mark.usefixtures("no_pictures")
def test_a_loss_without_paper_and_url_is_described(tmp_path, write_run, changeable):
    changeable(LOSSES)
    LOSSES.add("mine", CrossEntropy)
    write_run(tmp_path / "b" / "mine-s0", loss="mine", samples=80)
    assert "<dt>mine</dt>" in write_report(tmp_path / "b").html.read_text()


@pytest.mark.usefixtures("no_pictures")
def test_notes_of_a_run_are_shown(tmp_path, write_run):
    quiet = "the fit changes no validation probability by 1e-4 or more. No action is needed."
    write_run(tmp_path / "b" / "ce-s0", samples=80, notes=["the optimum is at <the edge>", quiet])
    report = write_report(tmp_path / "b")
    page = report.html.read_text(encoding="utf-8")
    assert "ce-s0: the optimum is at <the edge>" in Page(page).text
    assert '<p class="notice">ce-s0: the optimum' in page
    assert f'<p class="small">ce-s0: {quiet}' in page
    assert r"ce-s0: the optimum is at \<the edge>" in report.markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "bins"),
    [("train: {num_bins: 7}", 7), ("train: {num_bins: 0}", 15), ("train: 3", 15), ("", 15)],
)
def test_diagrams_have_the_bins_of_the_metrics(tmp_path, write_run, text, bins):
    run = write_run(tmp_path / "b" / "ce-s0", samples=80)
    (run / "config.yaml").write_text(text)
    assert collect_runs(tmp_path / "b").runs[0].folder.num_bins == bins


def test_nothing_is_written_when_nothing_finished(tmp_path):
    with pytest.raises(InputError):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce",), seeds=(0,), samples=80)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="must be writable"):
        write_report(folder)
    folder.chmod(stat.S_IRWXU)


@pytest.mark.usefixtures("no_pictures")
def test_path_in_the_way_raises_input_error(tmp_path, write_bench):
    folder = write_bench(tmp_path / "b", losses=("ce",), seeds=(0,), samples=80)
    (folder / "report.md").mkdir()
    with pytest.raises(InputError, match="must be writable"):
        write_report(folder)
    assert not list(folder.glob(".*.part"))


def test_docstring_markup_does_not_reach_the_reader():
    assert (
        strip_markup("``a`` times :func:`~fedlas.losses.f` and :class:`B`.") == "a times f and B."
    )


def test_means_are_over_the_same_seeds_for_all(tmp_path, write_run):
    for loss, seed, ece in (("ce", 0, 0.03), ("ce", 1, 0.01), ("ls", 0, 0.02)):
        write_run(tmp_path / f"{loss}-s{seed}", loss=loss, seed=seed, samples=50, test={"ece": ece})
    table = result_table(build_result(collect_runs(tmp_path)), "test", ["ece"])
    cells = {row[0].value: row[2] for row in table.rows}
    assert (cells["ce"].value, cells["ls"].value) == ("3.00", "2.00")  # not 2.00 and 2.00
    assert (cells["ls"].mark, cells["ce"].mark) == ("", "")
