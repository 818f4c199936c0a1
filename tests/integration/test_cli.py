"""The command line as a stranger meets it."""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fedlas
from fedlas.calibrators import CALIBRATORS
from fedlas.cli import main, parsers

VERBS = list(parsers()[1])
TINY = [
    "train.epochs=2", "train.batch_size=50", "data.train_size=100", "data.val_size=50", "data.test_size=50",
    "model.hidden=[8]",
]  # fmt: skip
STOP_BY_COUNT = Path(__file__).parents[1] / "stop_by_count.py"
OVERRIDES = [word for setting in TINY for word in ("--set", setting)]


def call(capsys, *arguments):
    """Exit status, standard output and standard error."""
    try:
        status = main(list(arguments))
    except SystemExit as ended:  # argparse ends --help and usage errors this way
        status = ended.code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.out, captured.err


@pytest.fixture
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"fedlas {fedlas.__version__}\n", "")


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help(capsys, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = call(capsys, *([verb] if verb else []), "--help")
    assert status == 0
    for noise in ("null", "None", "==SUPPRESS==", "type:", "required"):
        assert noise not in out
    assert all(len(line) <= 100 for line in out.splitlines())
    if verb is None:
        assert all(re.search(rf"\n    {name}\s", out) for name in VERBS if " " not in name)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_shows_one_default(verb):
    parser = parsers()[1][verb]
    described = re.split(r"\n  (?=-)", parser.format_help().split("options:")[1])[1:]
    shown = [action for action in parser._actions if action.option_strings]
    assert len(described) == sum(action.help != argparse.SUPPRESS for action in shown)
    for option in described:
        assert option.count("(default:") == (not option.startswith("-h")), option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["benhc"], "Did you mean 'bench'?"),
        (["--versoin"], "Did you mean '--version'?"),
        (["bench"], "required: RECIPE"),
        (["bench", "--losses", "ce", "digits"], "Usage: fedlas bench RECIPE [options]"),
        (["bench", "digits", "--lossses", "ce"], "Did you mean '--losses'?"),
        (["runs", "train", "digits", "--se", "1"], "Did you mean '--se"),
        (["runs", "train", "digits", "--seed", "x"], "invalid int value: 'x'"),
        (["runs", "train", "digits", "more"], "unrecognized arguments: 'more'"),
        (["runs", "train", "digits", "--seed"], "expected one argument"),
        (["list", "loses"], "Did you mean 'losses'?"),
        (["bench", "digts"], "Did you mean 'digits'?"),
        (["bench", "digits", "--losses", "ce", "fedlass"], "Did you mean 'fedlas'?"),
        (["runs", "train", "digits", "--loss", "mdls"], "Did you mean 'mbls'?"),
        (["runs", "train", "digits", "--set", "trian.epochs=2"], "Did you mean 'train'?"),
        (["runs", "train", "digits", "--set", "train.epoch=2"], "Did you mean 'train.epochs'?"),
        (["runs", "train", "digits", "--set", "train.epochs"], "key=value"),
        (["runs", "train", "digits", "--set", "train.select=acuracy"], "Did you mean 'accuracy'?"),
        (["runs", "train", "digits", "--set", "model.name=resnet9"], "Did you mean 'resnet8'?"),
        (["runs", "train", "digits", "--set", "model.widht=9"], "Did you mean 'model.width'?"),
        (["runs", "train", "digits", "--set", "data.name=digts"], "Did you mean 'digits'?"),
        (
            ["runs", "train", "digits", "--set", "data.crop_paddin=1"],
            "Did you mean 'data.crop_padding'?",
        ),
        (["runs", "train", "digits", "--set", "losses.fedlas.alhpa=1"], "Did you mean 'alpha'?"),
        (["runs", "train", "digits", "--precision", "bf15"], "Did you mean 'bf16'?"),
        (["runs", "train", "digits", "--precision", ""], "precision"),
        (["runs", "train", "digits", "--data", "/nowhere"], "needs no files"),
        (["evaluate", "nothing.npz"], "must exist"),
        (["evaluate", "nothing.npz", "--num-bins", "0"], "got"),
        (["runs", "report", "nothing"], "nothing"),
        (["runs", "uncertainty", "mc-dropout"], "required: RUN"),
        (["runs", "uncertainty", "mc-dropot", "nothing"], "Did you mean 'mc-dropout'?"),
        (["runs", "uncertainty", "mc-dropout", "nothing"], "must be a run folder"),
        (["runs", "uncertainty", "mc-dropout", "nothing", "--set", "samples"], "key=value"),
        (["runs", "uncertainty", "mc-dropout", "nothing", "--nam", "x"], "Did you mean '--name'?"),
    ],
)
def test_mistakes_are_named_with_status_2_and_leave_nothing(capsys, inside, arguments, message):
    status, out, errors = call(capsys, *arguments)
    assert status == 2
    assert message in errors
    assert not out
    assert not list(inside.iterdir())
    if arguments:
        assert errors.startswith("fedlas")
        assert errors.count("\n") == 1


@pytest.mark.system
def test_every_verb_end_to_end(capsys, inside):
    status, out, errors = call(
        capsys, "bench", "synthetic", "--losses", "ce", "fedlas+", "--seeds", "0", "1", *OVERRIDES
    )
    assert status == 0
    assert "2 losses x 2 seeds = 4 runs, in runs/synthetic" in errors
    assert "runs/synthetic/report.html" in out
    assert "fedlas+" in out
    status, out, _ = call(capsys, "runs", "report", "runs/synthetic")
    assert status == 0
    assert "report.html" in out
    assert (inside / "runs/synthetic/report.md").is_file()
    status, out, _ = call(
        capsys, "evaluate", "runs/synthetic/fedlas+-s1", "--method", "temperature", "--json"
    )
    assert status == 0
    metrics = json.loads((inside / "runs/synthetic/fedlas+-s1/metrics.json").read_text())
    for stage, recorded in {"as predicted": "test", "after temperature": "test_calibrated"}.items():
        assert metrics[recorded].pop("aurc") >= 0  # which a run records too
        assert json.loads(out)[stage] == pytest.approx(metrics[recorded])
    status, out, _ = call(
        capsys, "evaluate", "runs/synthetic/fedlas+-s1", "--method", "all", "--json"
    )
    assert status == 0
    ran = {stage.removeprefix("after ") for stage in json.loads(out) if stage.startswith("after ")}
    assert ran | set(json.loads(out)["not run"]) == set(CALIBRATORS)
    # A model that has hardly learned has no accuracy to lose to noise.
    assert all("noise must lower" in reason for reason in json.loads(out)["not run"].values())
    status, out, _ = call(
        capsys, "runs", "train", "synthetic", "--loss", "ls", "--seed", "1", *OVERRIDES
    )
    assert status == 0
    assert (inside / "runs/synthetic/ls-s1/metrics.json").exists()
    assert call(capsys, "list", "losses")[0] == 0
    assert [path.name for path in inside.iterdir()] == ["runs"]


def test_a_changed_setting_in_the_same_folder(capsys, inside):
    assert call(capsys, "runs", "train", "synthetic", "--out", "x", *OVERRIDES)[0] == 0
    for command in (
        ["runs", "train", "synthetic", "--out", "x"],
        ["runs", "train", "synthetic", "--out", "x", "--seed", "1"],
    ):
        status, _, errors = call(capsys, *command, *OVERRIDES, "--set", "train.epochs=3")
        assert status == 2
        assert "train.epochs: 2 before, 3 now" in errors
    assert "seed: 0 before, 1 now" in errors


def start(*arguments, program=("-m", "fedlas")):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_ctrl_c if os.name == "posix" else None,
    )


def _heed_ctrl_c():
    """A shell starts background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.system
def test_ctrl_c_says_how_to_go_on_and_leaves_a_resumable_folder(capsys, inside):
    arguments = ["bench", "synthetic", "--losses", "ce", "--seeds", "0", *OVERRIDES]
    at_first_checkpoint = (str(STOP_BY_COUNT), "renamed", "1", "SIGINT", "checkpoint.pt")
    long = start(*arguments, "--set", "train.epochs=3000", program=at_first_checkpoint)
    _, errors = long.communicate(timeout=1500)
    assert long.returncode == 130, errors
    assert "The same command resumes from the last checkpoint." in errors
    assert "Traceback" not in errors
    assert not list(inside.rglob("*.part"))
    assert not list(inside.rglob("metrics.json"))
    status, _, errors = call(capsys, *arguments, "--set", "train.epochs=3")
    assert status == 2
    assert "train.epochs: 3000 before, 3 now" in errors


@pytest.mark.system
def test_a_reader_that_has_seen_enough(inside):
    process = start("list", "losses")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(1500) in (0, 1)  # rich ends with 1, as many programs do
    assert not errors


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal(inside):
    import pty

    controller, terminal = pty.openpty()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TERM": "xterm",
        "COLUMNS": "120",
        "LINES": "40",
    }
    command = [
        sys.executable,
        "-m",
        "fedlas",
        "runs",
        "train",
        "synthetic",
        "--out",
        "x",
        *OVERRIDES,
        "--set",
        "train.epochs=40",
    ]
    process = subprocess.Popen(command, env=environment, stdout=terminal, stderr=terminal)
    os.close(terminal)
    text = b""
    with contextlib.suppress(OSError):  # the other side is closed
        while chunk := os.read(controller, 65536):
            text += chunk
    os.close(controller)
    assert process.wait(1500) == 0
    shown = text.decode()
    assert "loss" in shown
    assert "val accuracy" in shown
    assert "Warning" not in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0  # the cursor is back
    assert "run folder: x" in shown
