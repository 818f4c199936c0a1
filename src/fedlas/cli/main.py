"""The command line: finds the subcommand, and turns errors into exit codes.

The standard library parses. A parser made from signatures (jsonargparse was tried) has no ``--losses ce fedlas`` and no
positional FOLDER, shows types in place of sentences, and starts no faster: torch is 1.5 of its 1.7 seconds.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import fedlas
from fedlas._core.check import CalibrationWarning, InputError, suggestion
from fedlas._core.extras import MissingExtraError
from fedlas._core.output import LostOutputError, standard_streams
from fedlas._core.text import printable
from fedlas.cli.bench import add_bench
from fedlas.cli.card import add_card
from fedlas.cli.compare import add_compare
from fedlas.cli.data import add_data
from fedlas.cli.diagnose import add_diagnose
from fedlas.cli.evaluate import add_evaluate
from fedlas.cli.export import add_export
from fedlas.cli.init import add_init
from fedlas.cli.listing import add_list
from fedlas.cli.monitor import add_monitor
from fedlas.cli.ood import add_ood
from fedlas.cli.pack import add_pack
from fedlas.cli.report import add_report
from fedlas.cli.shift import add_shift
from fedlas.cli.track import add_track
from fedlas.cli.train import add_train
from fedlas.cli.tune import add_tune
from fedlas.cli.uncertainty import add_uncertainty

_SUBCOMMANDS = (
    add_bench,
    add_train,
    add_tune,
    add_evaluate,
    add_report,
    add_diagnose,
    add_uncertainty,
    add_shift,
    add_ood,
    add_data,
    add_init,
    add_list,
    add_export,
    add_card,
    add_monitor,
    add_track,
    add_compare,
    add_pack,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if a run of a bench failed, 2 for arguments or input that cannot be used or results that
            cannot be printed and are nowhere else, 3 if fedlas monitor raised an alarm, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    leaves = given[:1] != [] and given[0] in _LEAVE_RESULTS
    with standard_streams(keep_going=leaves) as output:
        try:
            status, stop = _status(given), None
        except SystemExit as error:  # of --help, --version, and arguments that cannot be parsed
            status, stop = int(error.code or 0), error
        # Output may still be in the buffer, and only writing it shows that the disk is full.
        with suppress(LostOutputError):
            output.flush()
        if output.error is not None and not isinstance(output.error, BrokenPipeError):  # `| head` has seen enough
            kind, fix = ("warning", "The results are there all the same.") if leaves else ("error", "Run it again.")
            got = f"standard output: it must take what is shown; got {output.error.strerror}"
            print(f"fedlas: {kind}: {got}. Free some space, or direct it elsewhere. {fix}", file=sys.stderr)
            if not leaves:
                return 2
        if stop is not None:
            raise stop
        return status


_LEAVE_RESULTS = frozenset(
    {
        "bench",
        "train",
        "tune",
        "report",
        "uncertainty",
        "ood",
        "shift",
        "diagnose",
        "export",
        "card",
        "track",
        "monitor",
        "init",
        "pack",
    }
)
"""Subcommands whose results are files, or the exit status: these work on if nothing can be printed."""


def _status(given: list[str]) -> int:
    try:
        parsed = _parse(given)
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            return int(parsed.run(parsed))
    except LostOutputError:
        return 0
    except (InputError, MissingExtraError) as error:
        print(f"fedlas: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = given[:1] in (["bench"], ["train"], ["tune"], ["uncertainty"])
        print(f"\nStopped.{' The same command resumes from the last checkpoint.' if resumes else ''}", file=sys.stderr)
        return 130
    except OSError as error:  # a name that is too long, a folder that may not be searched
        where = f" ({error.filename!s:.200})" if error.filename else ""
        got = printable(f"{error.strerror or error}{where}")
        print(f"fedlas: error: file: it must be usable; got {got}. Check its path and permissions.", file=sys.stderr)
        return 2
    except MemoryError as error:
        got = printable(str(error)) or "less"
        print(f"fedlas: error: memory: there must be enough; got {got}. Choose fewer or smaller.", file=sys.stderr)
        return 2
    finally:
        _leave_processes()


def _show_warning(other: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """This library's warnings as a line; those of others as Python shows them."""
    if issubclass(category, CalibrationWarning):
        print(f"fedlas: warning: {printable(str(message))}", file=sys.stderr)
    else:
        other(message, category, *place)


def _leave_processes() -> None:
    """Close the connections to other processes: one that ends first would make another's threads abort it."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Parser(argparse.ArgumentParser):
    """Argparse that takes no abbreviations, knows its options' names and complains in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.options: list[str] = []
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def add_argument(self, *names: str, **settings: Any) -> Any:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line, instead of the usage that ``--help`` shows better."""
        stop = "" if message.endswith((".", "?")) else "."
        usage = f"Usage: {self.usage}; see" if self.usage else "See"
        self.exit(2, f"{self.prog}: error: {printable(message)}{stop} {usage} '{self.prog} --help'.\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, subcommands = _parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if not arguments[0].startswith("-") and arguments[0] not in subcommands:
        parser.error(f"there is no subcommand {arguments[0]!r}. {suggestion(arguments[0], subcommands)}")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        chosen = subcommands.get(parsed.subcommand, parser)
        option = next((word for word in unknown if word.startswith("-")), None)
        if option is None:
            chosen.error(f"there is no place for {' '.join(map(repr, unknown))}")
        chosen.error(f"there is no option {option!r}. {suggestion(option.split('=')[0], chosen.options)}")
    if parsed.subcommand is None:
        parser.error(f"a subcommand is missing. {suggestion('', subcommands)}")
    return parsed


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="fedlas", description="Train and measure calibrated classifiers.")
    parser.add_argument("--version", action="version", version=f"fedlas {fedlas.__version__}")
    group = parser.add_subparsers(
        dest="subcommand",
        title="subcommands",
        metavar="COMMAND",
        description="'fedlas COMMAND --help' says more.",
    )
    # The parsers are kept by name: an error is then shown with the usage of its own subcommand.
    subcommands: dict[str, _Parser] = {}

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str, positional: str) -> _Parser:
        usage = f"fedlas {name} {positional} [options]"
        subcommands[name] = group.add_parser(name, help=summary, description=summary, usage=usage)
        subcommands[name].set_defaults(run=run)
        return subcommands[name]

    for subcommand in _SUBCOMMANDS:
        subcommand(add)
    return parser, subcommands


if __name__ == "__main__":
    sys.exit(main())
