"""Packed runs are read as if their folders were there."""

import re
import shutil
import zipfile

import pytest

from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.lab.benches import run_all
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.report import read_report, write_report
from fedlas.lab.runs import PACK_FILE as PACK
from fedlas.lab.runs import RunFolder, collect_runs, execute, find_runs, pack_runs, run_folders
from runs import RUNS

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture(scope="module")
def studies(runs, tmp_path_factory):
    """Six finished runs, without predictions and checkpoints: in folders, and packed without folders."""
    place = tmp_path_factory.mktemp("studies")
    folder = shutil.copytree(runs("shared"), place / "folders")
    write_report(read_report(folder, replicates=39))
    for run in run_folders(folder):
        shutil.rmtree(run.predictions_path)
        run.checkpoint_path.unlink()
    pack_runs(shutil.copytree(folder, place / "packed"), replicates=0)
    for run in (place / "packed").glob("*-s*"):
        shutil.rmtree(run)
    return place


@pytest.fixture
def bench(studies, tmp_path):
    return shutil.copytree(studies / "folders", tmp_path / "bench")


@pytest.fixture
def packed(studies, tmp_path):
    return shutil.copytree(studies / "packed", tmp_path / "bench")


def planned(folder, *changes, losses=("ce", "ls"), seeds=(0, 1, 2)):
    recipe, settings, *_ = RUNS["shared"]
    return plan_runs(
        load_recipe(recipe, [*settings, *changes]),
        losses=list(losses),
        seeds=list(seeds),
        out=folder,
    )


def reported(folder):
    """Text of the three files of a report, without addresses and their words."""
    report = write_report(read_report(folder, replicates=0))
    page = re.sub(r"<a .*?</a>", "", report.html.read_text())
    return report.csv.read_bytes(), report.markdown.read_text(), re.sub(" +", " ", page)


@pytest.mark.system
def test_pack_keeps_auto_calibration_of_each_run(packed):
    assert "NLL auto" in reported(packed)[1]


def test_a_pack_keeps_what_shift_measured(packed):
    (run,) = planned(packed, losses=["ce"], seeds=[3])
    execute(run)
    folder = RunFolder(run.folder)
    folder.shift_path.write_text('{"corrupted": []}')
    pack_runs(packed, replicates=0)
    shutil.rmtree(folder.path)
    again = RunFolder(folder.path)
    assert again.text(again.shift_path) == '{"corrupted": []}'


def test_a_planned_comparison_is_about_nll(bench, capsys):
    def compared(*options):
        assert main(["compare", str(bench), "ls:ce", *options]) == 0
        return capsys.readouterr().out

    assert compared() == compared("--metrics", "nll")
    assert "No significant difference in NLL" in compared()


def test_reports_and_comparisons_are_those_of_the_folders(bench, capsys):
    def compared():
        assert main(["compare", str(bench), "ls:ce", "--metrics", "ece", "nll", "--details"]) == 0
        return capsys.readouterr().out

    before, words = reported(bench), compared()
    held = {
        run.name: (run.config, run.data, run.starts, run.metrics, run.log)
        for run in run_folders(bench)
    }
    files = {
        run.name: run.config_path.read_text() + run.metrics_path.read_text()
        for run in run_folders(bench)
    }
    pack_runs(bench, replicates=0)
    for run in held:
        shutil.rmtree(bench / run)
    assert sorted(path.name for path in bench.iterdir() if path.suffix not in (".html", ".md")) == [
        "results.csv",
        PACK,
    ]
    assert (reported(bench), compared()) == (before, words)
    again = run_folders(bench)
    assert {
        run.name: (run.config, run.data, run.starts, run.metrics, run.log) for run in again
    } == held
    assert {
        run.name: run.text(run.config_path) + run.text(run.metrics_path) for run in again
    } == files
    assert "./runs.zip" in (bench / "report.html").read_text()
    assert "./ce-s0" not in (bench / "report.html").read_text()


def test_bench_resumes_beside_packed_runs(packed):
    outcome = run_all(planned(packed, seeds=(0, 3), losses=["ce"]))
    assert outcome.finished == ["ce-s0", "ce-s3"]
    assert [path.name for path in packed.iterdir() if path.is_dir()] == ["ce-s3"]
    assert len(collect_runs(packed).runs) == 7
    pack_runs(packed, replicates=39)
    before = RunFolder(packed / "ce-s3").metrics
    shutil.rmtree(packed / "ce-s3")
    summary = collect_runs(packed)
    assert summary.run("ce", 3).folder.metrics == before
    assert len(summary.runs) == 7


def test_other_settings_are_refused_and_nothing_is_written(packed):
    before = {path: path.read_bytes() for path in packed.iterdir()}
    with pytest.raises(InputError, match=r"optimizer\.lr: 0\.3 before, 0.2 now"):
        run_all(planned(packed, "optimizer.lr=0.2", losses=["ce"], seeds=[0]))
    with pytest.raises(InputError, match=r"ce-s0 in optimizer\.lr"):
        run_all(planned(packed, "optimizer.lr=0.2", losses=["ce"], seeds=[7]))
    assert {path: path.read_bytes() for path in packed.iterdir()} == before


def test_folder_with_own_configuration_ignores_pack(packed):
    folder = packed / "ce-s0"
    folder.mkdir()
    (folder / "report.html").write_text("a page")
    assert RunFolder(folder).is_finished
    assert RunFolder(folder).text(folder / "config.yaml")
    (folder / "config.yaml").write_text("recipe: other\n")
    assert (RunFolder(folder).is_finished, RunFolder(folder).metrics, RunFolder(folder).log) == (
        False,
        {},
        [],
    )
    assert RunFolder(folder).config == {"recipe": "other"}


def test_packed_run_fails_clearly_where_predictions_needed(packed, capsys):
    (found,), _ = find_runs([packed / "ce-s0"], lambda run: "", content="runs")
    assert (found.run.loss, found.run.seed) == ("ce", 0)
    assert main(["runs", "report", str(packed / "ce-s0")]) == 2
    assert "test.npz" in capsys.readouterr().err
    assert main(["runs", "diagnose", str(packed)]) == 2
    assert "ce-s0 is left out: no predictions/val.npz" in capsys.readouterr().err
    assert not (packed / "ce-s0").exists()


def put(folder, files, comment=b"fedlas runs 1"):
    with zipfile.ZipFile(folder / PACK, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, text in files:
            archive.writestr(name, text)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/x", "a/x"], "twice"),
        (["../a/x"], "the name of a run must be a plain name"),
        (["/etc/x"], "the name of a run must be a plain name"),
        (["a/b/../../x"], "the name of a file must be a plain name"),
        (["a"], "the name of a file must be a plain name"),
    ],
)
def test_a_pack_chooses_no_paths(tmp_path, names, message):
    put(tmp_path, [(name, "") for name in names])
    with pytest.raises(InputError, match=message):
        run_folders(tmp_path)


def test_a_damaged_or_inflated_pack_is_named(tmp_path):
    (tmp_path / PACK).write_text("no zip")
    with pytest.raises(InputError, match="readable zip"):
        run_folders(tmp_path)
    put(tmp_path, [("a/config.yaml", "x" * (2**21 + 1)), ("a/log.jsonl", "{}\n")])
    with pytest.raises(InputError, match="at most"):
        _ = RunFolder(tmp_path / "a").config
    content = bytearray((tmp_path / PACK).read_bytes())
    content[content.index(b"a/log.jsonl") + 11] ^= 0xFF  # the first of its compressed bytes
    (tmp_path / PACK).write_bytes(content)
    with pytest.raises(InputError, match="undamaged zip"):
        _ = RunFolder(tmp_path / "a").log


def test_deep_or_long_packed_values_give_one_line(tmp_path):
    put(
        tmp_path,
        [
            ("a/log.jsonl", "[" * 100_000),
            ("a/metrics.json", "[" * 100_000),
            ("a/config.yaml", "[" * 100_000),
        ],
    )
    assert RunFolder(tmp_path / "a").log == []
    for field in ("metrics", "config"):
        with pytest.raises(InputError, match=field):
            getattr(RunFolder(tmp_path / "a"), field)


@pytest.mark.parametrize("comment", [b"", b"another zip"])
def test_the_zip_of_somebody_else_is_none(tmp_path, comment):
    put(tmp_path, [("a/x", "")], comment)
    assert run_folders(tmp_path) == []


def changed(bench, change):
    """The pack of a bench with its texts changed."""
    texts = {}
    with zipfile.ZipFile(bench / PACK) as archive:
        for name in archive.namelist():
            run, file = name.split("/")
            texts.setdefault(run, {})[file] = archive.read(name).decode()
    entries = [
        (f"{run}/{file}", text)
        for run, files in change(texts).items()
        for file, text in files.items()
    ]
    put(bench, entries)


def test_the_same_runs_give_the_same_bytes(packed):
    before = (packed / PACK).read_bytes()
    pack_runs(packed, replicates=0)
    assert (packed / PACK).read_bytes() == before


def test_a_damaged_entry_is_one_run_less(packed):
    changed(
        packed, lambda texts: texts | {"ce-s0": texts["ce-s0"] | {"metrics.json": '{"loss": 3}'}}
    )
    summary = collect_runs(packed)
    assert len(summary.runs) == 5
    assert summary.unreadable[0].name == "ce-s0"


def test_runs_without_configuration_are_reported_not_resumed(packed):
    few = ("metrics.json", "log.jsonl")
    changed(
        packed,
        lambda texts: {run: {name: files[name] for name in few} for run, files in texts.items()},
    )
    assert len(write_report(read_report(packed, replicates=0)).model.summary.runs) == 6
    with pytest.raises(InputError, match=r"must also have a config\.yaml"):
        run_all(planned(packed, losses=["ce"], seeds=[0]))


def test_subcommand_prints_packed_and_remaining_runs(bench, tmp_path, capsys):
    (bench / "ls-s9").mkdir()
    (bench / "ls-s9" / "error.txt").write_text("no memory")
    assert main(["runs", "pack", str(bench)]) == 0
    out = capsys.readouterr().out
    assert "6 runs" in out
    assert "ls-s9" in out
    assert "folders of 6 packed runs" in out.replace("\n", " ")
    assert main(["runs", "pack", str(tmp_path / "none")]) == 2
    assert "the bench folder must exist" in capsys.readouterr().err
