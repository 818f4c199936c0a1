"""The command line: one module per subcommand, with its options and a function that runs it.

Only here are exit codes: 0, 1 if a run failed, 2 for input that cannot be used, 3 for a drift alarm, 130 after Ctrl-C.
"""

from fedlas.cli.main import main, parse, parsers, run

__all__ = ["main", "parse", "parsers", "run"]
