"""The entry point of the console script."""

import builtins

from fedlas.__main__ import run
from fedlas.cli.arguments import column_options
from fedlas.cli.main import in_options
from fedlas.predictions import Columns


def test_ctrl_c_while_the_command_line_imports_ends_it_like_ctrl_c_later(monkeypatch):
    """It ended with a traceback and by the signal."""
    real = builtins.__import__

    def interrupted(name, *rest):
        if name == "fedlas.cli":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert run() == 130


def test_messages_and_columns_are_written_as_options():
    text = "calibrate='all' needs held-out predictions; got no on=."
    assert in_options(text, "evaluate") == (
        "--calibrate all needs held-out predictions; got no --on."
    )
    columns = Columns(probs="p_*", target="y", percent=True)
    assert column_options(columns) == " --probs 'p_*' --target y --percent"
