import getpass
import json
import platform
import sys

import torch

from fedlas.bench.environment import environment


def test_says_what_may_explain_another_number(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/fedlas", "train", "my recipe.yaml"])
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["command"] == "fedlas train 'my recipe.yaml'"
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["commit"] is None or len(found["commit"]) == 40


def test_no_names_and_no_paths(monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"/home/{getpass.getuser()}/fedlas/cli.py"])
    text = json.dumps(environment())
    assert "fedlas/cli.py" not in text
    assert platform.node() not in text


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None
