"""The entry point of the console script."""

import builtins
import re
import runpy

import pytest
import torch

from fedlas.cli import main
from fedlas.cli.arguments import format_column_options
from fedlas.predictions import Columns, Predictions


def test_ctrl_c_during_imports_exits_with_130(monkeypatch):
    """It ended with a traceback and by the signal."""
    real = builtins.__import__

    def interrupted(name, *rest, **options):
        if name == "fedlas.cli":
            raise KeyboardInterrupt
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("fedlas", run_name="__main__")
    assert ended.value.code == 130


def test_words_of_the_shell_are_the_arguments(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fedlas", "list", "losses"])
    assert main() == 0
    assert "fedlas" in capsys.readouterr().out


def test_errors_and_columns_are_written_as_options(tmp_path, capsys):
    Predictions(torch.randn(9, 3), torch.zeros(9, dtype=torch.long)).save(tmp_path / "a.npz")
    assert main(["evaluate", str(tmp_path / "a.npz"), "--method", "all"]) == 2
    assert capsys.readouterr().err.startswith(
        "fedlas: error: fedlas evaluate: --method all requires held-out predictions; got no --on. Pass --on with "
    )
    columns = Columns(probs="p_*", target="y", percent=True)
    assert format_column_options(columns) == " --probs 'p_*' --target y --percent"


def test_help_groups_table_and_training_subcommands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    tables, training = capsys.readouterr().out.split("tables of predictions:")[1].split("training")
    commands = [line.split()[0] for line in tables.splitlines() if line.startswith("    ")]
    assert commands == [
        "init",
        "evaluate",
        "compare",
        "calibrate",
        "apply",
        "export",
        "card",
        "monitor",
        "sample-size",
    ]
    assert "    runs " in training


def test_evaluate_help_begins_with_what_most_need(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    first, *others = re.split(r"^(?=[a-z]+:$)", capsys.readouterr().out, flags=re.MULTILINE)
    options = re.findall(r"^  (--[a-z-]+)", others[0], flags=re.MULTILINE)
    assert options == [
        *("--columns", "--probs", "--target", "--event", "--groups"),
        *("--on", "--method", "--report", "--require", "--details"),
    ]
    assert len((first + others[0]).rstrip().splitlines()) <= 24
    titles = [each.partition(":")[0] for each in others[1:]]
    assert titles == ["columns", "statistics", "output", "decisions"]
