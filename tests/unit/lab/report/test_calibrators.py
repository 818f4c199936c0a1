"""Calibrators as methods of finished runs; nothing is trained."""

import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest

from fedlas.calibrators import CALIBRATORS, BiasCorrectedTemperature
from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.lab.report import read_bench_result as result_of
from fedlas.lab.results import calibrated_metrics, method_differences, split_by_calibrator
from fedlas.lab.runs import RunFolder, collect_runs, pack_runs, read_finished_run
from fedlas.metrics import evaluate
from fedlas.stats import compare_ranks, paired_t_test

TWO = ["temperature", "my-bias"]
FEW = ["--replicates", "39"]
bench_result = partial(result_of, replicates=39)


@pytest.fixture(scope="module", autouse=True)
def _own_calibrator():
    CALIBRATORS.add(
        "my-bias", type("MyBias", (BiasCorrectedTemperature,), {"__module__": __name__})
    )
    yield
    del CALIBRATORS._entries["my-bias"]


@pytest.fixture(scope="module")
def benches(bench_writer, tmp_path_factory):
    """Three benches of two losses and five seeds."""
    folder = tmp_path_factory.mktemp("benches")
    for number, name in enumerate("abc"):
        seeds = range(10 * number, 10 * number + 5)
        bench_writer(folder / name, losses=("ce", "ls"), seeds=seeds, samples=300)
    return folder


@pytest.fixture(scope="module")
def bench(benches):
    return benches / "a"


@pytest.fixture(scope="module")
def result(bench):
    return bench_result([bench], ["raw", *TWO])


def test_each_loss_has_a_method_for_each_calibrator(bench, result):
    assert result.methods == [
        "ce", "ce@temperature", "ce@my-bias", "ls", "ls@temperature", "ls@my-bias",
    ]  # fmt: skip
    run = RunFolder(bench / "ce-s2")
    after = (
        CALIBRATORS["my-bias"]
        .value()
        .fit(run.predictions("val"))
        .transform(run.predictions("test"))
    )
    (model,) = result.models.values()
    assert model.summary.values("ce@my-bias", "nll")[2] == evaluate(after)["nll"]
    assert model.summary.values("ce@temperature", "nll")[2] == run.metrics["test_calibrated"]["nll"]
    assert model.summary.values("ce", "nll")[2] == run.metrics["test"]["nll"]


def test_a_planned_pair_is_tested_between_calibrators(result):
    (model,) = result.models.values()
    pairs = ["ce@my-bias:ce@temperature", "ls@my-bias:ls@temperature"]
    first, second = method_differences(model.summary, pairs, metric="nll")
    values = (model.summary.values(name, "nll") for name in pairs[0].split(":"))
    assert first.p_value == paired_t_test(*values).p_value
    assert first.p >= first.p_value
    assert min(first.p, second.p) == min(1.0, 2 * min(first.p_value, second.p_value))


def test_cache_is_used_until_predictions_or_code_change(bench, tmp_path, monkeypatch):
    path = shutil.copytree(bench / "ce-s0", tmp_path / "ce-s0")
    run = read_finished_run(RunFolder(path))
    after = calibrated_metrics(run, ["my-bias"])
    assert set(after["my-bias"].estimates) == {"ece"}

    def refuse(*_):
        raise AssertionError("fitted again")

    kind = CALIBRATORS["my-bias"].value
    monkeypatch.setattr(kind, "fit", refuse)
    assert calibrated_metrics(run, ["my-bias"]) == after
    kept = json.loads((path / "calibrated.json").read_text())
    kept["after"]["my-bias"]["code"] = "another"
    (path / "calibrated.json").write_text(json.dumps(kept))
    with pytest.raises(AssertionError, match="fitted again"):
        calibrated_metrics(run, ["my-bias"])
    # One without a file of its own is never kept.
    monkeypatch.undo()
    monkeypatch.setattr(kind, "__module__", "__nowhere__")
    monkeypatch.setitem(__import__("sys").modules, "__nowhere__", type(json)("__nowhere__"))
    assert calibrated_metrics(run, ["my-bias"])["my-bias"].metrics == after["my-bias"].metrics
    assert "my-bias" not in json.loads((path / "calibrated.json").read_text())["after"]


def test_a_pack_needs_no_predictions(bench, tmp_path):
    folder = shutil.copytree(bench, tmp_path / "bench")
    whole = bench_result([folder], TWO).to_frame()
    pack_runs(folder, replicates=0)
    for run in folder.glob("*-s*"):
        shutil.rmtree(run)
    assert bench_result([folder], TWO).to_frame().equals(whole)
    with pytest.raises(
        InputError, match="calibrators need the validation and test predictions of every run"
    ):
        bench_result([folder], ["isotonic"])


def test_unfittable_calibrator_error_names_run(bench):
    with pytest.raises(InputError, match=r"feature-clipping of ce-s0: .*features"):
        split_by_calibrator(collect_runs(bench), ["feature-clipping"])


def test_one_bench_has_metrics_as_columns(bench, result, capsys):
    table = result.table()
    assert [each.title for each in table.columns] == ["method", "Accuracy", "NLL", "AURC", "ECE"]
    best = min(table.rows, key=lambda row: row[2].number)
    assert best[2].mark in ("best", "leading")
    assert all(re.fullmatch(r"\(~?\d+\.\d\)", row[4].extra) for row in table.rows)
    assert main(["compare", str(bench), "--method", "raw", *TWO, *FEW]) == 0
    out = capsys.readouterr().out
    assert "Lowest NLL: " in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_several_benches_have_ranks(benches, capsys, tmp_path):
    folders = [benches / name for name in "abc"]
    result = bench_result(folders, TWO)
    means = {
        method: [
            sum(values) / 5
            for model in result.models.values()
            for values in [model.summary.values(method, "nll")]
        ]
        for method in result.methods
    }
    assert result.ranks("nll").ranks == compare_ranks(means, higher_is_better=False).ranks
    table = result.table("nll")
    assert [each.title for each in table.columns] == ["method", "a", "b", "c", "mean rank"]
    ranks = [row[-1].number for row in table.rows]
    assert ranks == sorted(ranks)
    names = [f"{tmp_path}/ranks.{kind}" for kind in ("pdf", "svg")]
    command = ["compare", *map(str, folders), "--method", *TWO, *FEW]
    assert main([*command, "--plot", *names]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Mean rank by NLL over 3 data sets: " in out
    assert "With fewer than 6 data sets it cannot find any" in out
    assert [Path(name).read_bytes()[:4] for name in names] == [b"%PDF", b"<?xm"]
    assert main([*command[:4], "ce@my-bias:ce@temperature", "--metrics", "nll", *FEW]) == 0
    assert re.search(r"ce@my-bias - ce@temperature +\d of 3 ", capsys.readouterr().out)


class SignedRankTest:
    """Stands for baycomp's: a higher score is better, and the first probability is that of the first method."""

    @classmethod
    def probs(cls, x, y, rope, *, random_state):
        assert type(random_state) is int
        left, right = ((gap > rope).mean() for gap in (x - y, y - x))
        return (left, 1 - left - right, right) if rope else (left, right)


def test_bayesian_signed_ranks(benches, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "baycomp", SimpleNamespace(SignedRankTest=SignedRankTest))
    folders = [benches / name for name in "abc"]
    result = bench_result(folders, ["raw"])
    gaps = []
    for model in result.models.values():
        ce, ls = (fmean(model.values(method, "nll")) for method in ("ce", "ls"))
        gaps.append(ls - ce)
    share = sum(gap > 0 for gap in gaps) / 3
    row = [cell.value for cell in result.bayes_table("nll").rows[0]]
    assert row == ["ce : ls", f"{share:.3f}", "0.000", f"{1 - share:.3f}"]
    row = [cell.value for cell in result.bayes_table("nll", 9.0, ["ls:ce"]).rows[0]]
    assert row == ["ls : ce", "0.000", "1.000", "0.000"]
    higher = [cell.value for cell in result.bayes_table("accuracy", 0.0).rows[0]]
    assert float(higher[1]) + float(higher[3]) <= 1
    command = ["compare", *map(str, folders), "ce:ls", *FEW, "--metrics", "nll", "--rope", "9"]
    assert main([*command, "--title", "Own title"]) == 0
    out = capsys.readouterr().out
    assert "NLL, Own title: probabilities" in out
    assert re.search(r"ce : ls +0.000 +1.000 +0.000", out)
    assert main([*command, "--latex"]) == 0
    text = capsys.readouterr().out
    check_latex(text)
    assert "differences up to 9 are equivalent" in text
    for wrong, match in (
        ((-1.0, folders), "rope"),
        ((0.0, folders[:2]), "requires at least 3 data sets"),
    ):
        with pytest.raises(InputError, match=match):
            bench_result(wrong[1], ["raw"]).bayes_table("nll", wrong[0])


def test_the_table_of_a_bench_has_a_caption(bench, capsys):
    assert main(["runs", "report", str(bench), *FEW, "--latex"]) == 0
    text = capsys.readouterr().out
    check_latex(text)
    assert re.search(r"\\caption\{a\. Test set\. .*\(n = 5\).*t-test over 5 seeds", text)


def test_latex_compiles(benches, capsys):
    """Checked by a reader of LaTeX: environments and braces close, and rows have as many cells as columns."""
    folders = [str(benches / name) for name in "ab"]
    assert main(["compare", *folders, "--method", *TWO, *FEW, "--latex"]) == 0
    text = capsys.readouterr().out
    check_latex(text)
    assert text.count(r"\begin{table}") == 2
    assert r"\textbf{" in text
    assert "two-sided paired t-test over 5 seeds" in text
    assert "for 3 comparisons" in text
    assert r"\label{tab:2-data-sets-1}" in text
    assert main(["compare", folders[0], "ce:ls", *FEW, "--latex"]) == 0
    check_latex(capsys.readouterr().out)


def check_latex(text):
    """Assert that a document of tables is well-formed, as LaTeX would."""
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        stack.append(name) if kind == "begin" else stack.pop() == name or pytest.fail(name)
    assert not stack
    depth = 0
    for sign in re.sub(r"\\[{}]", "", text):
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert not re.search(r"(?<!\\)[%#_]", re.sub(r"\\label\{[^}]*\}", "", text))
    assert text.isascii()
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S
    ):
        rows = [row for row in body.split("\\\\") if "&" in row]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_files_for_print_are_written(benches, tmp_path):
    written = bench_result([benches / "a", benches / "b"], TWO, name="mine").write(tmp_path)
    assert [path.name for path in written] == [
        "comparison.html", "comparison.tex", "comparison-nll.pdf", "comparison-nll.svg",
        "comparison-ece.pdf", "comparison-ece.svg",
    ]  # fmt: skip
    check_latex(written[1].read_text())
    page = written[0].read_text()
    assert page.index("Mean rank by NLL") < page.index("<table")
    assert "Made on 2" in page
    assert "<h1>Comparison of methods: mine</h1>" in page


def test_a_notebook_escapes_names(bench, tmp_path):
    folder = shutil.copytree(bench, tmp_path / "<b>")
    page = bench_result([folder, bench], ["raw"])._repr_html_()
    assert "<b>" not in page.replace("<p><b>", "")
    assert page.count("<table>") == 2
    assert re.search(r"<td>\d+\.\d ± \d+\.\d . \(~?\d+\.\d\)</td>", page)
    assert "<svg" in page
    frame = bench_result([folder], ["raw"]).to_frame()
    assert list(frame.columns[:4]) == ["bench", "loss", "calibrator", "seed"]
    assert len(frame) == 10
