"""The command line: one file a subcommand."""

from fedlas.cli.main import main

__all__ = ["main"]
