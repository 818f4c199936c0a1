"""What ``--out`` takes: a new folder or its own, never one of somebody else's; and what it never replaces."""

import json
import re
import shutil

import pytest

from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.lab.recipes import load_recipe, plan_runs
from fedlas.lab.runs import check_bench_folder, execute

TINY = [
    "train.epochs=1", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip
WORDS = [word for setting in TINY for word in ("--set", setting)]
VERBS = {
    "train": ["runs", "train", "synthetic", "--loss", "ce", *WORDS],
    "bench": ["bench", "synthetic", "--losses", "ce", "--seeds", "0", *WORDS],
    "dry run": ["bench", "synthetic", "--dry-run", *WORDS],
    "tune": ["tune", "synthetic", "--losses", "ls", "--trials", "1", *WORDS],
}
SINGLE = [
    "report.md",
    "error.txt",
    ".film.mkv.part",
    ".film.mkv.abcdefgh.part",
    "predictions/test.npz",
    "log.jsonl",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bench"
    for run in plan_runs(load_recipe("synthetic", TINY), losses=["ce"], seeds=[0, 1], out=out):
        execute(run)
    return out


@pytest.fixture
def bench(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "bench")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def thesis(tmp_path):
    """A folder of somebody else."""
    folder = tmp_path / "thesis"
    for name in SINGLE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_foreign_folder_is_rejected_and_unchanged(thesis, verb, capsys):
    before = contents(thesis)
    assert main([*VERBS[verb], "--out", str(thesis)]) == 2
    assert "the output folder must be new or empty" in capsys.readouterr().err
    assert contents(thesis) == before


@pytest.mark.parametrize("method", ["deep-ensemble", "mc-dropout"])
def test_uncertainty_refuses_it_too(thesis, bench, method, capsys):
    before = contents(thesis)
    runs = [str(bench / "ce-s0"), str(bench / "ce-s1")][: 2 if method == "deep-ensemble" else 1]
    assert main(["runs", "uncertainty", method, *runs, "--out", str(thesis)]) == 2
    assert "the output folder must be new or empty" in capsys.readouterr().err
    assert contents(thesis) == before


@pytest.mark.parametrize(
    "name", ["notes.md", ".film.mkv.abcdefgh.part", "predictions/test.npz", "log.jsonl"]
)
def test_one_file_of_somebody_else_is_enough(tmp_path, name, capsys):
    (tmp_path / "x" / name).parent.mkdir(parents=True)
    (tmp_path / "x" / name).write_text("mine")
    for verb in VERBS:
        assert main([*VERBS[verb], "--out", str(tmp_path / "x")]) == 2, verb
    assert contents(tmp_path / "x") == {name: b"mine"}


def test_run_in_shared_folder_keeps_other_files(bench):
    (bench / "ce-s0" / ".film.mkv.part").write_text("mine")
    (bench / "ce-s0" / "predictions" / ".film.mkv.abcdefgh.part").write_text("mine")
    (bench / "ce-s0" / "metrics.json").unlink()
    assert main([*VERBS["train"], "--out", str(bench / "ce-s0")]) == 0
    assert (bench / "ce-s0" / ".film.mkv.part").is_file()
    assert (bench / "ce-s0" / "predictions" / ".film.mkv.abcdefgh.part").is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        *VERBS.values(),
        ["runs", "uncertainty", "mc-dropout", "run"],
        ["runs", "diagnose", "run"],
        ["runs", "ood", "run"],
        ["export", "run"],
        ["card", "run"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_is_not_the_working_folder(tmp_path, monkeypatch, arguments, text, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--out", text])
    assert caught.value.code == 2
    assert (
        f"argument --out: it must name a path; got {text!r}. Name one, or leave"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_new_folder_may_contain_hidden_files(tmp_path):
    for name in ("out.log", "nohup.out", "run.err", ".gitkeep", ".DS_Store"):
        (tmp_path / name).write_text("mine")
    assert main([*VERBS["train"], "--out", str(tmp_path)]) == 0
    assert (tmp_path / "metrics.json").is_file()
    assert (tmp_path / "out.log").read_text() == "mine"


def results(folder):
    (folder / "results.csv").write_text("run,recipe,loss,seed,stage,ece\n")
    (folder / "report.md").write_text("")
    (folder / "logs").mkdir()


def failed(folder):
    (folder / "ce-s0").mkdir()
    (folder / "ce-s0" / "error.txt").write_text("ValueError: x\n")
    (folder / "README.md").write_text("")


def named(folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "config.yaml").write_text("recipe: x\nloss: {name: ce}\nseed: 0\n")
    (folder / "notes.txt").write_text("")


def recipe(folder):
    (folder / "recipe.yaml").write_text("extends: synthetic\n")


def hidden(folder):
    for name in (".workers", ".trackers", ".slurm"):
        (folder / name).mkdir()


@pytest.mark.parametrize("fill", [lambda _folder: None, results, failed, named, recipe, hidden])
def test_an_earlier_bench_goes_on(tmp_path, fill):
    fill(tmp_path)
    check_bench_folder(tmp_path)
    check_bench_folder(tmp_path / "new")


def test_run_or_study_folder_rejects_bench(bench, tmp_path, capsys):
    before = contents(bench)
    assert main([*VERBS["bench"], "--out", str(bench / "ce-s0")]) == 2
    assert "--out must be a folder for several runs; got" in capsys.readouterr().err
    (bench / "ce-s0" / "metrics.json").rename(tmp_path / "kept.json")
    assert main([*VERBS["bench"], "--out", str(bench / "ce-s0")]) == 2
    (tmp_path / "kept.json").rename(bench / "ce-s0" / "metrics.json")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("format: 1\n")
    assert main([*VERBS["bench"], "--out", str(tmp_path / "study")]) == 2
    assert contents(bench) == before


def test_foreign_table_does_not_mark_bench_folder(tmp_path):
    (tmp_path / "results.csv").write_text("name,score\n")
    with pytest.raises(InputError, match=r"new or empty.*results\.csv"):
        check_bench_folder(tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "data.json", "report.json"])
def test_a_card_replaces_no_file_of_a_run(bench, name, capsys):
    (bench / "ce-s0" / "report.html").write_text("a page")
    before = contents(bench)
    assert (
        main(
            [
                "card",
                str(bench / "ce-s0"),
                "--replicates",
                "0",
                "--out",
                str(bench / "ce-s0" / name),
            ]
        )
        == 2
    )
    assert re.search("must be new, or .* card to be replaced", capsys.readouterr().err)
    assert contents(bench) == before


def test_a_card_is_replaced_by_a_card(bench, tmp_path, capsys):
    words = ["card", str(bench / "ce-s0"), "--replicates", "0", "--out", str(tmp_path / "c.json")]
    for _ in range(2):
        assert main(words) == 0
    assert json.loads((tmp_path / "c.json").read_text())["format"] == "fedlas.card/1"
    (tmp_path / "c.json").unlink()
    assert main(words) == 0
    (tmp_path / "c.html").write_text("mine")
    capsys.readouterr()
    assert main(words) == 2
    assert re.search(r"to be replaced; got .*c\.html", capsys.readouterr().err)
    assert (tmp_path / "c.html").read_text() == "mine"


def test_run_folder_is_checked_before_training(bench, monkeypatch, capsys):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fedlas._core.files.TemporaryFile", refuse)
    monkeypatch.setattr("fedlas.lab.studies.shift.measure_shift", pytest.fail)
    folder = bench / "ce-s0"
    assert main(["runs", "shift", str(folder)]) == 2
    assert f"must be writable; got {folder} (Permission denied)" in capsys.readouterr().err
