"""What a page is made with is missed before the work that the page shows, not after it."""

import sys

import pytest

from fedlas.cli import main

SHORT = ["--losses", "ls", "--set", "train.epochs=1", "--set", "data.num_train=200", "--out"]
COMMANDS = {
    "bench": ["bench", "synthetic", "--seeds", "0", *SHORT],
    "report": ["runs", "report"],
    "evaluate": ["evaluate", "--report", "page.html"],
    "diagnose": ["runs", "diagnose"],
    "ood": ["runs", "ood"],
    "card": ["card"],
    "export": ["export"],
}


@pytest.mark.parametrize(
    ("package", "module"), [("jinja2", "jinja2"), ("matplotlib", "matplotlib.figure")]
)
@pytest.mark.parametrize("command", COMMANDS)
def test_is_named_before_anything_is_read_or_made(
    tmp_path, monkeypatch, capsys, command, package, module
):
    monkeypatch.setitem(sys.modules, module, None)
    folder = tmp_path / "folder"
    assert main([*COMMANDS[command], str(folder)]) == 2
    assert f"this needs {package!r}" in capsys.readouterr().err
    assert not folder.exists()
