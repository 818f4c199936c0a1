import getpass
import json
import os
import platform
import sys

import pytest
import torch

from fedlas.lab.runs import environment, record_start
from fedlas.lab.runs import provenance as module


@pytest.fixture(autouse=True)
def fresh():
    """The commit is read once a process, as the code that runs is; here it changes."""
    module._commit.cache_clear()
    yield
    module._commit.cache_clear()


def test_says_what_may_explain_another_number(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/fedlas", "runs", "train", "my recipe.yaml"])
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["command"] == "fedlas runs train 'my recipe.yaml'"
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["commit"] is None or len(found["commit"]) == 40


def test_no_names_and_no_paths(monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"/home/{getpass.getuser()}/fedlas/cli.py"])
    text = json.dumps(environment())
    assert "fedlas/cli.py" not in text
    assert platform.node() not in text


# Invented paths: what a stranger's command line may look like.
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--out /somewhere/runs/x", "--out x"),
        ("--out=/somewhere/runs/x --data /somewhere/images", "--out=x --data images"),
        ("--set data.root=/somewhere/images", "--set data.root=images"),
        ("--set=data.root=/somewhere/a=b", "--set=data.root=a=b"),
        (
            "/somewhere/own.yaml --set optimizer.lr=0.1 runs/x /",
            "own.yaml --set optimizer.lr=0.1 runs/x /",
        ),
    ],
)
def test_absolute_paths_are_cut_to_last_part(monkeypatch, given, kept):
    monkeypatch.setattr(sys, "argv", ["fedlas", "runs", "train", *given.split()])
    assert environment()["command"] == f"fedlas runs train {kept}"


def test_new_files_in_the_package_are_a_difference(monkeypatch):
    answers = {
        "rev-parse": "0" * 40,
        "status": "",
        "--error-unmatch": "provenance.py",
        "--others": "",
    }
    monkeypatch.setattr(
        module, "_run_git", lambda _, *command: next(v for k, v in answers.items() if k in command)
    )
    assert environment()["dirty"] is False
    answers["--others"] = "losses/new.py"
    module._commit.cache_clear()
    assert environment()["dirty"] is True


def test_reading_checkout_state_writes_nothing(tmp_path):
    """A run that was killed while git refreshed its index left a lock behind, and the next commit failed."""
    file = tmp_path / "file"
    file.write_text("text")
    module._run_git(tmp_path, "init")
    assert module._run_git(tmp_path, "add", "file") == ""
    os.utime(file, (1e9, 1e9))
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    assert module._run_git(tmp_path, "status", "--porcelain", "-uno") == "A  file"
    assert index.read_bytes() == before


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


def test_start_with_changed_code_warns(tmp_path, monkeypatch, caplog):
    """A run that resumed after a change of the code said nothing."""
    commits = iter(["a" * 40, "a" * 40, "b" * 40])
    monkeypatch.setattr(module, "_commit", lambda: (next(commits), False))
    module._commit.cache_clear = lambda: None
    for _ in range(2):
        record_start(tmp_path, "cpu")
    assert not caplog.records
    record_start(tmp_path, "cpu")
    (record,) = caplog.records
    assert f"commit: '{'a' * 40}' before, '{'b' * 40}' now" in record.message
    assert len(json.loads((tmp_path / "environment.json").read_text())) == 3
