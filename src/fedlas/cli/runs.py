"""``fedlas runs``: lists the subcommands for run folders."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlas.cli.arguments import AddSubcommand


def add_runs(add: AddSubcommand) -> None:
    """Add the subcommand, whose help lists the subcommands of ``fedlas runs``."""
    from fedlas._core.errors import suggestion
    from fedlas.cli.main import SUBCOMMANDS

    names = {
        name.removeprefix("runs "): each.summary
        for name, each in SUBCOMMANDS.items()
        if name.startswith("runs ")
    }
    parser = add(lambda _: 0, "COMMAND")
    width = max(map(len, names)) + 2
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "commands:",
            *(f"  {name:{width}}{summary}" for name, summary in names.items()),
            "",
            "'fedlas runs COMMAND --help' says more.",
        ]
    )

    def reject_command(word: str) -> str:
        text = f"there is no command {word!r}. {suggestion(word, names)}"
        raise argparse.ArgumentTypeError(text)

    parser.add_argument(
        "command", metavar="COMMAND", type=reject_command, help="one of the commands below"
    )
