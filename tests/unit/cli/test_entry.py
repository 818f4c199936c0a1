"""The entry point of the console script."""

import builtins

from fedlas.__main__ import run


def test_ctrl_c_while_the_command_line_imports_ends_it_like_ctrl_c_later(monkeypatch):
    """It ended with a traceback and by the signal."""
    real = builtins.__import__

    def interrupted(name, *rest):
        if name == "fedlas.cli":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert run() == 130
