"""Every place that a user names to be written: what may be there, and what is never replaced."""

import gzip
import importlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions
from fedlas.cli import main, parsers
from fedlas.deploy import export
from fedlas.errors import InputError
from hostile.files import PLACES

SCORES = ("--probs", "p", "--target", "y")
EVALUATE = ["evaluate", "test.npz", "--replicates", "39", "--require", "ece<=0.9"]
COMPARE = ["compare", "test.npz", "other.npz", "--replicates", "39", "--fail-if-worse", "ece"]
CALIBRATE = ["calibrate", "v.csv", *SCORES, "--method", "temperature"]
APPLY = ["apply", "cal.json", "live.csv"]
MONITOR = ["monitor", "card.json", "live.npz"]
CARD = ["card", "val.npz", "test.npz", "--replicates", "0"]
GATED = ["card", "val.npz", "test.npz", "--replicates", "99", "--require", "nll<=9"]
WRITES = {
    # command and option: the command, a name to write, its inputs, and other outputs that may have the same name
    ("evaluate", "--report"): (EVALUATE, "r.html", ["test.npz"], ["--junit"]),
    ("evaluate", "--junit"): (EVALUATE, "j.xml", ["test.npz"], []),
    ("compare", "--junit"): (COMPARE, "j.xml", ["test.npz", "other.npz"], []),
    ("calibrate", "--out"): (CALIBRATE, "c.json", ["v.csv"], []),
    ("apply", "--out"): (APPLY, "o.csv", ["cal.json", "live.csv"], ["--summary"]),
    ("apply", "--summary"): (APPLY, "s.json", ["cal.json", "live.csv"], []),
    ("export", "--out"): (["export", "cal.json", "--format", "sql"], "e.sql", ["cal.json"], []),
    ("card", "--out"): (CARD, "k.json", ["val.npz", "test.npz"], []),
    ("card", "--junit"): (GATED, "j.xml", ["val.npz", "test.npz"], []),
    ("monitor", "--state"): (MONITOR, "state", ["card.json", "live.npz"], []),
    ("monitor", "--history"): (MONITOR, "h.json", ["card.json", "live.npz"], ["--state"]),
    ("monitor", "--page"): (MONITOR, "p.html", ["card.json", "live.npz"], ["--state"]),
    ("init", "--out"): (["init", "v.csv"], "i.sh", ["v.csv"], []),
    ("compare", "--plot"): (["compare", "bench", "a:b"], "d.svg", [], []),
}
FOLDERS = {
    # tests/unit/cli/test_out_folders.py
    ("runs train", "--out"),
    ("bench", "--out"),
    ("tune", "--out"),
    ("runs uncertainty", "--out"),
    # below
    ("runs diagnose", "--out"),
    ("runs ood", "--out"),
}
READS = {
    ("evaluate", "--on"),
    ("export", "--inputs"),
    *((command, "--data") for command in ("evaluate", "export", "card", "bench", "tune")),
    *((command, "--data") for command in ("runs train", "runs diagnose")),
    *((command, "--data") for command in ("runs uncertainty", "runs shift")),
    ("runs ood", "--run-data"),
    ("compare", "--with"),
    *((command, "--columns") for command in ("init", "evaluate", "compare")),
    *((command, "--columns") for command in ("calibrate", "card", "monitor")),
}
NO_PATHS = {"float", "int", "_parse_share", "parse_workers"}
METAVARS = {"CHROMIUM", "DIR", "FILE", "FOLDER", "HTML", "JSON", "NPZ", "PATH", "XML"}


def test_every_output_option_is_in_the_matrix():
    found = set()
    for command, parser in parsers()[1].items():
        for action in parser._actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            name = getattr(action.type, "__name__", "")
            is_path = (action.type is not None and name not in NO_PATHS) or metavar in METAVARS
            option = next((each for each in action.option_strings if each[:2] == "--"), None)
            if is_path and option is not None:
                found.add((command, option))
    assert found == WRITES.keys() | FOLDERS | READS


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with inputs of all commands."""
    folder = tmp_path_factory.mktemp("inputs")
    generator = torch.Generator().manual_seed(0)
    for name in ("val", "live", "test"):
        logits = 2 * torch.randn(120, 3, generator=generator)
        target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        Predictions(logits, target).save(folder / f"{name}.npz")
    Predictions(logits / 2, target).save(folder / "other.npz")
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 120).round(4)
    rows = [f"{a},{int(b)}" for a, b in zip(p, rng.random(120) < p, strict=True)]
    for name, part in (("v", rows), ("live", rows[::-1])):
        (folder / f"{name}.csv").write_text("\n".join(["p,y", *part, ""]))
    (folder / "precious.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*CALIBRATE, "--out", "cal.json"]) == 0
        assert main([*CARD, "--out", "card.json"]) == 0
    return folder


@pytest.fixture
def place(template, tmp_path, monkeypatch):
    folder = shutil.copytree(template, tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


def contents(folder=Path()):
    """Everything in a folder: bytes of files, where links lead, and folders."""
    return {
        str(path): str(path.readlink())
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def refused(words, capsys, *, said):
    """Check that a command is refused, says so, and leaves everything as it was."""
    before = contents()
    capsys.readouterr()
    with suppress(SystemExit):  # of an argument that cannot be parsed
        assert main(words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert contents() == before
    return error


@pytest.mark.parametrize("there", PLACES)
@pytest.mark.parametrize(("command", "option"), WRITES)
def test_nothing_of_a_stranger_is_replaced(place, command, option, there, capsys):
    words, name, _, _ = WRITES[command, option]
    PLACES[there](Path(name))
    error = refused([*words, option, name], capsys, said=option)
    what = {
        "link": "must not be a link",
        "lost link": "must not be a link",
        "folder": "must be a file",
    }
    words = [f"{option} {what.get(there, 'must be ')}", "must be a new file"]
    words += ["it is a device or a pipe"] * (there in ("device", "pipe"))
    assert any(each in error for each in words)


@pytest.mark.parametrize(("command", "option"), WRITES)
def test_folder_without_a_name_is_refused(place, command, option, capsys):
    words = WRITES[command, option][0]
    for name in (".", ".."):
        refused([*words, option, name], capsys, said=option)
    refused([*words, option, "/"], capsys, said="must")


def test_default_output_beside_a_folder_without_a_name(place, capsys):
    refused(["card", "val.npz", ".", "--replicates", "0"], capsys, said="must")


@pytest.mark.parametrize(("command", "option"), WRITES)
def test_what_is_read_is_not_replaced(place, command, option, capsys):
    words, _, inputs, _ = WRITES[command, option]
    for name in inputs:
        refused([*words, option, name], capsys, said=option)
        refused([*words, option, f"../{place.name}/{name}"], capsys, said=option)


@pytest.mark.parametrize(("command", "option"), [key for key in WRITES if WRITES[key][3]])
def test_two_outputs_are_two_files(place, command, option, capsys):
    words, name, _, others = WRITES[command, option]
    for other in others:
        error = refused([*words, option, name, other, f"./{name}"], capsys, said="another file")
        assert option in error
        assert other in error


@pytest.mark.parametrize(
    ("command", "option"), [key for key in WRITES if key != ("apply", "--out")]
)
def test_standard_output_and_stores_are_no_files(place, command, option, capsys):
    words, _, _, _ = WRITES[command, option]
    refused([*words, option, "-"], capsys, said=f"{option} must name a file")
    error = refused([*words, option, "memory://bucket/o.csv"], capsys, said=option)
    assert "it must be a path on this machine" in error


@pytest.mark.parametrize(("command", "option"), WRITES)
def test_unwritable_folder_is_rejected_before_work(place, command, option, capsys, monkeypatch):
    """As a user who may not write there; root may write anywhere."""

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fedlas._core.files.TemporaryFile", refuse)
    words, name, _, _ = WRITES[command, option]
    error = refused([*words, option, name], capsys, said=f"the folder of {option}")
    assert "Permission denied" in error


@pytest.mark.parametrize("there", ["nothing", "its own", "an empty file"])
@pytest.mark.parametrize(
    ("command", "option"),
    [key for key in WRITES if key not in (("init", "--out"), ("compare", "--plot"))],
)
def test_a_file_of_its_kind_is_replaced(place, command, option, there):
    words, name, _, _ = WRITES[command, option]
    if there == "an empty file":  # as of mktemp
        Path(name).touch()
    for number in range(2 if there == "its own" else 1):
        more = ["--period", str(number)] if option == "--history" else []
        if option in ("--state", "--history"):
            shutil.copy(("live.npz", "test.npz")[number], "now.npz")
            words = [*words[:2], "now.npz"]
        # A state or history without content is damaged, since it is read.
        damaged = there == "an empty file" and option in ("--state", "--history")
        assert main([*words, option, name, *more]) == (2 if damaged else 0)
    assert damaged or Path(name).stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "option"),
    [key for key in WRITES if key[0] not in ("init", "evaluate", "compare")],
)
def test_a_file_of_another_kind_is_not_replaced(place, command, option, capsys):
    """An own file, of another option: the card in place of the calibration, and so on."""
    words, name, _, _ = WRITES[command, option]
    own = {".html": "card.html", ".sql": "precious.txt", ".csv": "v.csv"}.get(Path(name).suffix)
    own = own or ("cal.json" if command in ("card", "monitor", "apply") else "card.json")
    shutil.copy(own, name)
    refused([*words, option, name], capsys, said=option)


@pytest.mark.parametrize(
    ("words", "mine"),
    [
        ([*APPLY], "live.calibrated.csv"),
        ([*MONITOR, "--history", "report.json"], "report.html"),
        ([*CARD, "--out", "k.json"], "k.html"),
        ([*CARD], "test.card.json"),
        (CALIBRATE, "v.calibration.json"),
        (["export", "cal.json", "--format", "sql"], "cal.sql"),
    ],
)
def test_default_outputs_replace_no_foreign_file(place, words, mine, capsys):
    Path(mine).write_text("mine")
    refused(words, capsys, said=mine)


def test_a_summary_is_not_the_table_just_written(place, capsys):
    refused([*APPLY, "--summary", "live.calibrated.csv"], capsys, said="another file than --out")
    refused([*APPLY, "--summary", "precious.txt"], capsys, said="--summary must")
    refused([*APPLY, "--out", "-", "--summary", "live.csv"], capsys, said="--summary must")


def test_history_page_must_differ_from_state(place, capsys):
    words = [*MONITOR, "--history", "k.json", "--state", "k.html"]
    refused(words, capsys, said="the page of --history must be another file than --state")
    words = [*MONITOR, "--history", "k.json", "--page", "k.html"]
    refused(words, capsys, said="--page must be another file than the page of --history")


@pytest.mark.parametrize("name", ["report.csv", "report.parquet", "report.jsonl"])
def test_store_table_is_replaced_only_by_apply(template, monkeypatch, name):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.chdir(template)
    store = fsspec.filesystem("memory")
    words = [*APPLY, "--out", f"memory://places/{name}"]
    store.pipe(f"/places/{name}", b"mine")
    assert main(words) == 2
    assert store.cat(f"/places/{name}") == b"mine"
    store.rm(f"/places/{name}")
    for _ in range(2):
        assert main(words) == 0
    assert b"calibrated_p" in store.cat(f"/places/{name}")
    store.rm("/places", recursive=True)


@pytest.mark.parametrize("name", ["big.parquet", "big.npz", "big.csv.gz"])
def test_store_check_copies_only_names(place, tmp_path, monkeypatch, name):
    """A table of gigabytes was copied here to see whether it is one of apply."""
    fsspec = pytest.importorskip("fsspec")
    arrow = pytest.importorskip("pyarrow")
    rows = {"calibrated_p": np.random.default_rng(0).random(700_000), "p": np.ones(700_000)}
    path = tmp_path / name
    if name.endswith(".npz"):
        np.savez(path, **rows)
    elif name.endswith(".parquet"):
        importlib.import_module("pyarrow.parquet").write_table(arrow.table(rows), path)
    else:
        lines = "".join(f"{value},1\n" for value in rows["calibrated_p"].tolist())
        path.write_bytes(gzip.compress(f"calibrated_p,p\n{lines}".encode(), 1))
    store = fsspec.filesystem("memory")
    store.pipe(f"/names/{name}", path.read_bytes())
    taken = []
    ask = type(store).cat_file

    def counted(self, path, start=None, end=None, **options):
        taken.append(len(ask(self, path, start, end, **options)))
        return ask(self, path, start, end, **options)

    monkeypatch.setattr(type(store), "cat_file", counted)
    monkeypatch.setattr(type(store), "get_file", lambda *_, **__: pytest.fail("all was copied"))
    np.savez("live-arrays.npz", p=np.linspace(0.1, 0.9, 20))
    live = "live-arrays.npz" if name.endswith(".npz") else "live.csv"
    assert main(["apply", "cal.json", live, "--out", f"memory://names/{name}"]) == 0
    assert max(taken) <= 1 << 20
    assert sum(taken) < path.stat().st_size
    assert store.size(f"/names/{name}") < 1 << 20
    store.rm("/names", recursive=True)


TRIED = {
    # below
    *("CalibrationCard", "calibrated.CalibratedModel", "calibrated.TableCalibration"),
    *("calibrators.Calibrator", "calibrators.MultiLabelCalibration", "predictions.MultiLabel"),
    *("predictions.Predictions", "predictions.TopLabel", "zoo.ood.Outputs", "deploy.export"),
    # what a command calls, with a place that it has checked: its options are tried above
    *("deploy.Card", "deploy.export_model", "deploy.monitor.Monitor", "deploy.monitor.StreamState"),
    # in a folder of runs, which tests/unit/lab/runs/test_hostile_folders.py tries
    *("lab.BenchResult", "lab.data.Splits", "lab.train.save_checkpoint"),
    # tests/unit/integrations/test_huggingface_hub.py::test_somebody_elses_files_stay
    "integrations.huggingface_hub.save_pretrained",
}
"""Public functions and classes that write a file that the caller names, by their lists in tests/api.txt."""


def test_every_public_writer_is_in_the_table():
    lines = (Path(__file__).parents[2] / "api.txt").read_text(encoding="utf-8")
    pattern = r"^fedlas\.([\w.]*?)\.?(save|write|export|save_\w+|write_\w+|export_\w+)\(.*(?:path|out|folder): "
    found = set()
    for owner, name in re.findall(pattern, lines, re.MULTILINE):
        is_method = owner.rpartition(".")[2][:1].isupper()
        found.add(owner if is_method else f"{owner}.{name}")
    assert found == TRIED


def test_public_functions_replace_nothing_of_a_stranger(place):
    calibration = fedlas.TableCalibration.load("cal.json")
    card = fedlas.card(Predictions.load("val.npz"), Predictions.load("test.npz"), replicates=0)
    fitted = fedlas.calibrators.TemperatureScaling().fit(Predictions.load("val.npz"))
    model = fedlas.CalibratedModel(torch.nn.Linear(2, 3), fitted)
    both = fedlas.predictions.MultiLabel(torch.randn(9, 2), torch.ones(9, 2).triu())
    several = fedlas.calibrators.MultiLabelCalibration("temperature").fit(
        both.tensors().logits, both.tensors().target
    )
    top = fedlas.TopLabel([0.5, 0.7], [True, False])
    outputs = fedlas.zoo.ood.Outputs.from_predictions(Predictions.load("val.npz"))
    before = contents()
    for name, write in {
        "p.npz": Predictions.load("val.npz").save,
        "top.npz": top.save,
        "both.npz": both.save,
        "ood.npz": lambda path: outputs.save(path, about={}),
        "c.json": fitted.save,
        "several.json": several.save,
        "t.json": calibration.save,
        "k.json": card.save,
        "m.safetensors": model.save,
        "any name": calibration.save,
        "s.sql": lambda path: export(calibration, path, form="sql"),
        "o.csv": lambda path: fedlas.calibrated.apply_to_files(calibration, ["live.csv"], path),
    }.items():
        for there in ("file", "link"):
            path = Path(name)
            if there == "file":
                path.write_text("mine")
            else:
                path.symlink_to("precious.txt")
            with pytest.raises(InputError, match=r"must (not )?be"):
                write(path)
            assert path.read_text() == "mine"
            path.unlink()
        assert contents() == before, name
        for _ in range(2):
            write(path)
        for made in contents().keys() - before.keys():
            Path(made).unlink()


def test_arrays_of_somebody_else_are_no_predictions(place):
    """A file of logits and embeddings was replaced by one without embeddings."""
    np.savez("mine.npz", logits=np.eye(2), target=[0, 1], embeddings=np.eye(2))
    before = contents()
    for write in (Predictions.load("val.npz").save, fedlas.TopLabel([0.5], [True]).save):
        with pytest.raises(InputError, match=r"path must be new, or .* to be replaced"):
            write("mine.npz")
    with pytest.raises(InputError, match=r"path must be new, or .* to be replaced"):
        fedlas.TopLabel([0.5], [True]).save("val.npz")
    assert contents() == before


def test_summary_says_running_until_it_is_complete(place, monkeypatch):
    """A process that is killed leaves no "complete" of the day before."""
    words = [*APPLY, "--summary", "s.json"]
    assert main(words) == 0
    assert json.loads(Path("s.json").read_text())["status"] == "complete"
    seen = []

    def look(*_, **__):
        seen.append(json.loads(Path("s.json").read_text())["status"])
        raise InputError("x must be", "y", "Z.")

    monkeypatch.setattr(fedlas.TableCalibration, "load", look)
    assert main(words) == 2
    assert seen == ["running"]
    assert json.loads(Path("s.json").read_text())["status"] == "refused"


def test_scores_of_apply_are_not_calibrated_twice_unnoticed(place, capsys):
    card = ["card", "v.csv", "live.csv", *SCORES, "--replicates", "0", "--out", "binary.json"]
    for words in ([*CALIBRATE, "--out", "c.json"], [*APPLY, "--out", "o.csv"], card):
        assert main(words) == 0
    lines = Path("o.csv").read_text().splitlines()
    Path("half.csv").write_text("\n".join(lines[:61]))
    named = ("--probs", "calibrated_p", "--target", "y")
    refused(["monitor", "binary.json", "o.csv", *named], capsys, said="must be uncalibrated")
    assert main(["monitor", "binary.json", "o.csv", *named, "--calibrated"]) in (0, 3)
    assert main(["monitor", "binary.json", "o.csv", *SCORES]) in (0, 3)
    capsys.readouterr()
    for words in (
        ["calibrate", "o.csv", *named, "--method", "temperature", "--out", "c.json"],
        [
            "evaluate",
            "o.csv",
            *named,
            "--on",
            "half.csv",
            "--method",
            "temperature",
            "--replicates",
            "0",
        ],
    ):
        assert main(words) == 0
        assert "calibrated by fedlas apply already" in capsys.readouterr().err
    assert main(["evaluate", "o.csv", *named, "--replicates", "0"]) == 0
    assert "fedlas apply has" not in capsys.readouterr().err
    refused(["apply", "cal.json", "o.csv", "--out", "again.csv"], capsys, said="calibrated_p")
