"""Entry point of the command line: loads the subcommand, parses, and turns errors into exit codes.

The standard library parses. A parser made from signatures (jsonargparse was tried) has no ``--losses ce fedlas`` and no
positional FOLDER, and shows types in place of sentences. No ``--help`` imports torch: a subcommand's function imports
what it calls, and its module only what its options need.
"""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import fedlas
from fedlas._core.errors import CalibrationWarning, InputError, format_text, suggestion
from fedlas._core.extras import MissingExtraError
from fedlas._core.terminal import LostOutputError, replace_standard_streams
from fedlas._core.text import printable


class Subcommand(NamedTuple):
    """Registration of a subcommand of ``fedlas``."""

    summary: str  # for --help
    module: str  # of this package, with a function add_NAME(add)
    writes: bool = (
        True  # results are files or the exit status: it works on if nothing can be printed
    )
    resumes: bool = False  # the same command continues one that was stopped
    torch: bool = True  # it computes with torch


SUBCOMMANDS = {
    "init": Subcommand("Write commands for a table, a recipe for images.", "init", torch=False),
    "evaluate": Subcommand(
        "Measure predictions, before and after calibration.", "evaluate", writes=False
    ),
    "compare": Subcommand("Compare two models, or methods over seeds.", "compare", writes=False),
    "calibrate": Subcommand("Fit a calibration of a table of scores.", "tables"),
    "apply": Subcommand("Add calibrated scores to a table.", "tables"),
    "export": Subcommand("Write a model for production, calibration inside.", "export"),
    "card": Subcommand("Write a card: thresholds for a risk, metrics, limits.", "card"),
    "monitor": Subcommand("Watch live predictions; exit status 3 is an alarm.", "monitor"),
    "sample-size": Subcommand(
        "Plan a study of two classes: how many samples.", "sample_size", writes=False
    ),
    "list": Subcommand(
        "List losses, metrics, calibrators and more.", "listing", writes=False, torch=False
    ),
    "data": Subcommand("Check that a data set is complete.", "data", writes=False),
    "bench": Subcommand("Run a recipe with losses and seeds.", "bench", resumes=True),
    "tune": Subcommand("Search options of losses.", "tune", resumes=True),
    "runs": Subcommand(
        "Report, diagnose, pack, ... finished runs; train one.", "runs", writes=False
    ),
    "runs report": Subcommand("Write the report of finished runs.", "report"),
    "runs train": Subcommand("Train one recipe, loss and seed.", "train", resumes=True),
    "runs diagnose": Subcommand(
        "Show what FedLAS's indicator and gate did in runs.",
        "diagnose",
    ),
    "runs uncertainty": Subcommand(
        "Build ensembles, Laplace, ... from runs.", "uncertainty", resumes=True
    ),
    "runs shift": Subcommand("Measure runs on corrupted test images.", "shift"),
    "runs ood": Subcommand("Measure how well runs detect other data.", "ood"),
    "runs pack": Subcommand("Pack the runs of a bench into one zip.", "pack"),
}
"""By name, in the order of ``--help``; those about runs are two words, which ``fedlas runs --help`` lists."""


def join_subcommand(words: Sequence[str]) -> list[str]:
    """Join the two words of a ``runs`` subcommand, such as ``runs report``, into the first item."""
    name = " ".join(words[:2])
    return [name, *words[2:]] if name in SUBCOMMANDS and words[:1] == ["runs"] else list(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if a run of a bench failed, 2 for arguments or input that cannot be used or results that
            cannot be printed and are nowhere else, 3 if fedlas monitor raised an alarm or a gate failed, 4 if a strict
            gate cannot tell, 130 after Ctrl-C.
    """
    words = join_subcommand(sys.argv[1:] if arguments is None else arguments)
    chosen = SUBCOMMANDS.get(words[0]) if words else None
    continues = chosen is not None and chosen.writes
    with replace_standard_streams(
        keep_going=continues, in_workflow=words.count("--github") > 0
    ) as output:
        try:
            status = _run_safely(words, resumes=chosen is not None and chosen.resumes)
            system_exit = None
        except SystemExit as error:  # of --help, --version, and arguments that cannot be parsed
            status = int(error.code or 0)
            system_exit = error
        # Output may still be in the buffer, and only writing it shows that the disk is full.
        with suppress(LostOutputError):
            output.flush()
        # `| head` has read enough
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            kind, fix = (
                ("warning", "The result files are complete.")
                if continues
                else ("error", "Run it again.")
            )
            got = f"standard output must be writable; got {output.error.strerror}"
            print(
                f"fedlas: {kind}: {got}. Free some space, or redirect the output. {fix}",
                file=sys.stderr,
            )
            if not continues:
                return 2
        if system_exit is not None:
            raise system_exit
        return status


def _run_safely(words: list[str], *, resumes: bool) -> int:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warning_printer(warnings.showwarning, words[:1])
            return run(words)
    except LostOutputError:
        return 0
    except (InputError, MissingExtraError) as error:
        return _print_error(str(error))
    except OSError as error:  # a name that is too long, a folder that may not be searched
        place = f" ({error.filename!s:.200})" if error.filename else ""
        return _print_error(
            f"the file must be accessible; got {error.strerror or error}{place}. Check its path and permissions."
        )
    except KeyboardInterrupt:
        print(
            f"\nStopped.{' The same command resumes from the last checkpoint.' if resumes else ''}",
            file=sys.stderr,
        )
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(
            text in str(error) for text in _OUT_OF_MEMORY_TEXTS
        ):
            raise
        cause = f" ({error})" if str(error) else ""
        return _print_error(f"out of memory{cause}. Use fewer columns, replicates or rows.")
    finally:
        _destroy_process_group()


def run(words: list[str]) -> int:
    """Run a subcommand and return its exit status; errors name its options."""
    words = join_subcommand(words)
    parsed = parse(words)
    # Imports make no garbage, and to look for it in all that torch consists of takes a quarter of a second.
    if SUBCOMMANDS[words[0]].torch and gc.isenabled() and "torch" not in sys.modules:
        gc.disable()
        try:
            import_module("torch")
        finally:
            gc.freeze()
            gc.enable()
    try:
        return int(parsed.run(parsed))
    except InputError as error:
        error.write_for_command(words[0], parsers(words[:1])[1][words[0]].option_names)
        raise


_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory")
"""Texts of PyTorch's errors, on an accelerator and on a processor."""


def _print_error(text: str) -> int:
    print(f"fedlas: error: {printable(text)}", file=sys.stderr)
    return 2


def _warning_printer(fallback: Callable[..., None], words: Sequence[str]) -> Callable[..., None]:
    """Return a warning handler that prints each calibration warning once and delegates all others."""
    shown: set[str] = set()

    def print_once(
        message: Warning | str, category: type[Warning], *place: Any, **more: Any
    ) -> None:
        if not isinstance(message, CalibrationWarning):
            fallback(message, category, *place, **more)
            return
        sentence = message.sentence or str(message)
        text = printable(format_text(sentence, parsers(words)[1][words[0]].option_names))
        if text not in shown:
            shown.add(text)
            print(f"fedlas: warning: {text}", file=sys.stderr)

    return print_once


def _destroy_process_group() -> None:
    """Destroy the process group of torch.distributed, if there is one."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Parser(argparse.ArgumentParser):
    """Argparse parser with one-line errors and a list of its options."""

    @property
    def options(self) -> list[str]:
        """Names of the options."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    @property
    def option_names(self) -> dict[str, str]:
        """Option name of each Python argument: ``{"separator": "--sep"}``."""
        names: dict[str, str] = {}
        for name, action in self._option_string_actions.items():
            if name.startswith("--") and action.help != argparse.SUPPRESS:
                names |= getattr(action, "option_names", {action.dest: name})
        return names

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a one-line error."""
        stop = "" if message.endswith((".", "?")) else "."
        usage = f"Usage: {self.usage}; see" if self.usage else "See"
        self.exit(
            2, f"{self.prog}: error: {printable(message)}{stop} {usage} '{self.prog} --help'.\n"
        )


class _GroupedHelpFormatter(argparse.HelpFormatter):
    """Help formatter that lists the subcommands in two groups: tables of predictions, and training."""

    def _iter_indented_subactions(
        self, action: argparse.Action
    ) -> Generator[argparse.Action, None, None]:
        for subaction in super()._iter_indented_subactions(action):
            if title := _GROUP_TITLES.get(subaction.dest):
                self._dedent()
                yield argparse.Action([], dest="", metavar=title)
                self._indent()
            yield subaction


_GROUP_TITLES = {
    "init": "tables of predictions:",
    "list": "training:",
}
"""Titles in ``--help``, by the subcommand that they stand above."""


def parse(words: list[str]) -> argparse.Namespace:
    """Parse a command line; exit with status 2 and a one-line error if it is invalid."""
    words = join_subcommand(words)
    parser, subcommands = parsers(words[:1])
    if not words:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if not words[0].startswith("-") and words[0] not in SUBCOMMANDS:
        in_runs = f"runs {words[0]}"
        hint = (
            f"Did you mean {in_runs!r}?"
            if in_runs in SUBCOMMANDS
            else suggestion(words[0], SUBCOMMANDS)
        )
        parser.error(f"there is no subcommand {words[0]!r}. {hint}")
    parsed, unknown = parser.parse_known_args(words)
    if unknown:
        chosen = subcommands.get(parsed.subcommand, parser)
        option = next((word for word in unknown if word.startswith("-")), None)
        if option is None:
            chosen.error(
                f"unrecognized arguments: {' '.join(map(repr, unknown))}.{_joined_names_hint(words, unknown)}"
            )
        name = option.split("=")[0]
        meant = _OPTION_ALIASES.get(name)
        hint = (
            f"Did you mean {meant!r}?"
            if meant in chosen.options
            else suggestion(name, chosen.options)
        )
        chosen.error(f"there is no option {option!r}. {hint}")
    if parsed.subcommand is None:
        parser.error(f"a subcommand is missing. {suggestion('', SUBCOMMANDS)}")
    return parsed


_OPTION_ALIASES = dict.fromkeys(("--labels", "--label", "--truth", "--y"), "--target")
_OPTION_ALIASES |= {
    "--calibrate": "--method",
    "--calibrator": "--method",
    "--probabilities": "--probs",
    "--scores": "--logits",
    "--output": "--out",
}
"""Options that other programs have."""
_COLUMN_LIST_OPTIONS = ("--logits", "--probs", "--classes", "--label-probs", "--covariates")
"""Options that take several names as one word."""


def _joined_names_hint(arguments: list[str], unknown: list[str]) -> str:
    """Return a hint to write names as one comma-separated word, or an empty string if it does not apply."""
    place = arguments.index(unknown[0])
    option = next(
        (place for place in range(place - 1, -1, -1) if arguments[place] in _COLUMN_LIST_OPTIONS),
        None,
    )
    if option is None or any(word.startswith("-") for word in arguments[option + 1 : place]):
        return ""
    return f" Write names as one word: {arguments[option]} {','.join([*arguments[option + 1 : place], *unknown])}"


def parsers(names: Sequence[str] = tuple(SUBCOMMANDS)) -> tuple[_Parser, dict[str, _Parser]]:
    """Return the main parser and the parsers of the named subcommands."""
    about = "Measure, calibrate and train classifiers."
    parser = _Parser(prog="fedlas", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fedlas {fedlas.__version__}")
    parser.formatter_class = _GroupedHelpFormatter
    group = parser.add_subparsers(
        dest="subcommand",
        title="subcommands",
        metavar="COMMAND",
        description="'fedlas COMMAND --help' says more.",
    )
    # The parsers are kept by name: an error is then shown with the usage of its own subcommand.
    subcommands: dict[str, _Parser] = {}
    # An option in place of a subcommand is --help, which lists all.
    for name, each in SUBCOMMANDS.items():
        if names and names[0] in SUBCOMMANDS and name not in names:
            continue
        summary = f"{each.summary} Rerun to resume." if each.resumes else each.summary

        def add(
            run: Callable[[argparse.Namespace], int],
            positional: str,
            name: str = name,
            summary: str = summary,
        ) -> _Parser:
            usage = " ".join(filter(None, ("fedlas", name, positional, "[options]")))
            subparser = subcommands[name] = group.add_parser(
                name, help=summary, description=summary, usage=usage, allow_abbrev=False
            )
            subparser.set_defaults(run=run)
            return subparser

        if name in names:
            getattr(import_module(f"fedlas.cli.{each.module}"), f"add_{_function_suffix(name)}")(
                add
            )
        elif " " not in name:
            group.add_parser(name, help=summary)
    return parser, subcommands


def _function_suffix(name: str) -> str:
    """Return the suffix of the subcommand's function ``add_...``: ``report`` for ``runs report``."""
    return name.split()[-1].replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
