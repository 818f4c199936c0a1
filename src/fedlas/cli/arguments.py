"""Options that several subcommands share, and conversions of their values."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any, ClassVar

from fedlas._core.check import InputError
from fedlas._core.defaults import CONFIDENCE_LEVEL, METHOD, REPLICATES
from fedlas._core.files import parse_file_name, parse_path
from fedlas._core.text import quote_path
from fedlas.predictions.tables.columns import join_names
from fedlas.predictions.tables.roles import ROLES, SCORES, Columns

AddSubcommand = Callable[[Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""``add(run, positional)``: the parser of a subcommand, whose name and summary are in :mod:`fedlas.cli.main`."""


def add_option(
    parser: argparse.ArgumentParser,
    name: str,
    metavar: str | tuple[str, ...] | None,
    text: str,
    **settings: Any,
) -> None:
    """Add an option or positional argument with its placeholder and help text.

    An option of several values that is given again adds to its first values, and both replace its default.
    """
    if settings.get("nargs") == "+" and name.startswith("-"):
        settings = {"action": ExtendValues} | settings
    parser.add_argument(name, metavar=metavar, help=text, **settings)


class ExtendValues(argparse.Action):
    """Argparse action that collects the values of a repeated option into one list."""

    def __call__(  # noqa: D102 (argparse calls it)
        self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None
    ) -> None:
        before = getattr(namespace, self.dest)
        earlier = [] if before is self.default else before
        setattr(namespace, self.dest, [*earlier, *self.split(values)])

    def split(self, values: Any) -> list[Any]:
        """Return the values of a single use of the option as a list."""
        return list(values)


def add_flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=text)


def add_path(
    parser: argparse.ArgumentParser, name: str, metavar: str, text: str, **settings: Any
) -> None:
    """Add a local path; an empty string, as from an unset shell variable, is rejected."""
    add_option(parser, name, metavar, text, type=parse_path, **settings)


def add_files(
    parser: argparse.ArgumentParser, name: str, metavar: str, text: str, **settings: Any
) -> None:
    """Add table files to read: paths, glob patterns, folders or store addresses, kept as text."""
    add_option(parser, name, metavar, text, type=parse_file_name, **settings)


def add_page(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the options of a page: its file, its title and the period of the samples."""
    about = f"{text}: .html, or .pdf where there is a Chromium (default: none)"
    add_path(parser, name, "FILE", about)
    title = f"title of {name} (default: the name of the file)"
    add_option(heading(parser, "output"), "--title", "TEXT", title, default="")
    period = "when the samples were collected, for the page (default: none)"
    add_option(heading(parser, "output"), "--period", "TEXT", period, default="")


def check_page_options(args: argparse.Namespace, name: str, *, period_alone: bool = False) -> None:
    """Raise InputError if the page cannot be written, or if ``--title`` or ``--period`` come without a page."""
    from fedlas.present.page import check_page_output

    place = getattr(args, name.removeprefix("--"))
    if place is not None:
        check_page_output(place)
    elif args.title or (args.period and not period_alone):
        raise InputError(
            f"--title and --period require {name}",
            f"no {name}",
            f"Add {name}, or omit --title and --period.",
        )


def add_data_folder(
    parser: argparse.ArgumentParser, description: str, *, flag: str = "--data"
) -> None:
    """Add the option for the data folder of finished runs."""
    add_option(
        parser, flag, "FOLDER", f"{description} (default: as in training, then $FEDLAS_DATA)"
    )


def data_unused_error(file: object) -> InputError:
    """Return the InputError for ``--data`` beside prediction files, which need no images."""
    return InputError(
        "--data requires a run folder",
        f"the prediction file {file}",
        "Omit --data: it names the folder of a run's images.",
    )


NUM_BINS = 15


def add_replicates(parser: argparse.ArgumentParser, *, default: int = REPLICATES) -> None:
    """Add ``--replicates``."""
    add_option(
        heading(parser, "statistics"),
        "--replicates",
        "N",
        "bootstrap replicates of intervals and noise floors; 0: none (default: %(default)s)",
        type=int,
        default=default,
    )


def add_confidence_level(parser: argparse.ArgumentParser) -> None:
    """Add ``--confidence-level``."""
    add_option(
        heading(parser, "statistics"),
        "--confidence-level",
        "LEVEL",
        "level of intervals, e.g. 0.9 (default: %(default)s)",
        type=float,
        default=CONFIDENCE_LEVEL,
    )


_DECISION_RULES = ("cost_ratio", "budget", "recall", "precision")


class _StoreRules(argparse.Action):
    """Argparse action that stores each ``RULE=X`` as the argument of the rule's name."""

    option_names: ClassVar = {
        name: f"--threshold {name.replace('_', '-')}" for name in _DECISION_RULES
    }

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, values: Any, _option: object = None
    ) -> None:
        for text in values:
            name, _, number = text.partition("=")
            name = name.strip().replace("-", "_")
            try:
                value = float(number)
            except ValueError:
                value = None
            if name not in _DECISION_RULES or value is None:
                raise argparse.ArgumentError(
                    self,
                    "each must be cost-ratio=X, budget=X, recall=X or precision=X, with a number X; "
                    f"got {text!r}",
                )
            setattr(namespace, name, value)


def add_decision_rules(parser: argparse.ArgumentParser, default: str = "no decision") -> None:
    """Add ``--threshold``, which chooses the probability from which to act on the event."""
    text = (
        "two classes: act from the probability at which cost-ratio=9 (a missed event is as bad as 9 false alarms), "
        "budget=500 (at most 500 of the test samples), recall=0.8 (of the events are found) or precision=0.5 (of the "
        f"alarms are events) holds (default: {default})"
    )
    add_option(
        heading(parser, "decisions"), "--threshold", "RULE", text, nargs="+", action=_StoreRules
    )
    parser.set_defaults(**dict.fromkeys(_DECISION_RULES))


def parse_decision_rules(args: argparse.Namespace) -> dict[str, Any]:
    """Return the decision rules that were given, by argument name."""
    return {name: value for name in _DECISION_RULES if (value := getattr(args, name)) is not None}


def add_num_bins(parser: argparse.ArgumentParser) -> None:
    """Add ``--num-bins``."""
    add_option(
        heading(parser, "statistics"),
        "--num-bins",
        "N",
        "bins of calibration errors (default: %(default)s)",
        type=int,
        default=NUM_BINS,
    )


def add_score_columns(parser: argparse.ArgumentParser) -> None:
    """Add ``--columns``, and the options that name the columns of scores and labels and their format."""
    text = "file that says what the columns mean (default: none)"
    add_path(parser, "--columns", "FILE", text, dest="columns")
    _add_roles(parser, [name for name, role in ROLES.items() if role.kind != "sample"])


def add_sample_columns(parser: argparse.ArgumentParser, excluded: Sequence[str] = ()) -> None:
    """Add the options for columns about samples, such as ``--groups``, except the roles in ``excluded``."""
    names = [name for name, role in ROLES.items() if role.kind == "sample"]
    _add_roles(parser, [name for name in names if name not in excluded])


def add_hidden_sample_columns(parser: argparse.ArgumentParser) -> None:
    """Add hidden ``--weights`` and ``--clusters``, so that a later check can reject them with a reason."""
    for name in ("--weights", "--clusters"):
        add_option(parser, name, "COLUMN", argparse.SUPPRESS)


_MOST_NEEDED = ("probs", "target", "event", "groups")
"""Roles whose options stand among the first of a help; the others have a heading of their own."""


def heading(container: argparse.ArgumentParser, title: str) -> Any:
    """Return the group of options below a heading of the help, made at its first use."""
    groups = {group.title: group for group in container._action_groups}
    return groups.get(title) or container.add_argument_group(title)


def _add_roles(container: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add the options of column roles; options of several columns take a comma-separated list or are repeated."""
    for name in names:
        role = ROLES[name]
        parser = container if name in _MOST_NEEDED else heading(container, "columns")
        if role.metavar is None:
            add_flag(parser, _role_option(name), role.text)
            continue
        settings: dict[str, Any] = {"dest": name}
        if role.choices:
            settings["choices"] = role.choices
        elif role.metavar in ("COLUMNS", "A,B,C", "WORD=X"):
            settings["action"] = "append"
        add_option(parser, _role_option(name), role.metavar or None, role.text, **settings)


def _role_option(name: str) -> str:
    """Return the option name of a column role."""
    return ROLES[name].option or f"--{name.replace('_', '-')}"


def _typed_roles(args: argparse.Namespace) -> dict[str, Any]:
    """Return the roles that options on the line name."""
    values: dict[str, Any] = {name: getattr(args, name, None) for name in ROLES}
    # An option that is given once holds a list; given again, each time one name.
    return {
        name: v[0] if isinstance(v, list) and len(v) == 1 else v
        for name, v in values.items()
        if v not in (None, False, "number")
    }


def parse_columns(args: argparse.Namespace) -> Columns | None:
    """Return the columns named by the options and the file of ``--columns``, or None if nothing names a column.

    An option replaces the role of the file. Roles of the file that the subcommand has no option for are left out.
    """
    values = _typed_roles(args)
    if getattr(args, "columns", None) is not None:
        columns = Columns.from_file(args.columns)
        roles = {
            each.name: value
            for each in fields(Columns)
            if each.name in args and (value := getattr(columns, each.name)) != each.default
        }
        values = override_roles(roles, values)
    return Columns(**values) if values else None


def override_roles(roles: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the roles of a file with ``given`` ones in their place; what contradicts a given one is left out.

    Other scores replace those of the file, and so do other outcomes: ``correct`` is given in place of ``target`` and
    ``predicted``.

    Example:
        >>> override_roles({"probs": "p", "target": "y"}, {"confidence": "c", "correct": "ok"})
        {'confidence': 'c', 'correct': 'ok'}
    """
    left_out = {*SCORES} if given.keys() & {*SCORES} else set()
    outcomes = ({"correct"}, {"target", "predicted"}, {"labels"})
    for each in outcomes:
        if given.keys() & each:
            left_out |= set().union(*outcomes) - each
    merged = {name: value for name, value in roles.items() if name not in left_out} | {**given}
    kinds = merged.keys() & {*SCORES}
    return {
        name: value
        for name, value in merged.items()
        if name in given
        or not (kinds and ROLES[name].beside)
        or merged.keys() & {*ROLES[name].beside}
    }


def format_column_options(columns: Columns | None) -> str:
    """Return the command-line options that name ``columns``, shell-quoted: " --probs 'p_*' --target y --percent"."""
    values = {each.name: getattr(columns, each.name, each.default) for each in fields(Columns)}
    parts = [
        format_role(each.name, values[each.name])
        for each in fields(Columns)
        if values[each.name] and values[each.name] != each.default
    ]
    return "".join(f" {part}" for part in parts)


def format_typed_columns(args: argparse.Namespace, columns: Columns | None) -> str:
    """Return the column options as they were typed: ``--columns`` and what wins over it, else all of ``columns``."""
    if args.columns is None:
        return format_column_options(columns)
    typed = [format_role(name, value) for name, value in _typed_roles(args).items()]
    return "".join(f" {part}" for part in (f"--columns {quote_path(args.columns)}", *typed))


def format_role(name: str, value: Any) -> str:
    """Return the command-line options that give a role its value, shell-quoted: "--probs 'p_*'"."""
    option = _role_option(name)
    if value is True:
        return option
    if name == "classes":
        value = join_names(value)
    elif isinstance(value, Mapping):
        value = join_names([f"{word}={share:g}" for word, share in value.items()])
    names = [str(value)] if isinstance(value, str | int) else value
    # argparse would take the name -x for an option
    return " ".join(
        f"{option}{'=' if each.startswith('-') else ' '}{shlex.quote(each)}" for each in names
    )


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a calibration card."""
    add_option(
        parser,
        "--method",
        "NAME",
        f"calibrator fitted on validation, or none; see 'fedlas list calibrators' (default: {METHOD})",
    )
    add_replicates(parser)
    add_data_folder(parser, "folder of the run's data")


def add_bench_calibrators(parser: argparse.ArgumentParser) -> None:
    """Add ``--method`` of benches."""
    text = "benches: calibrators after each loss, e.g. raw temperature auto; nothing is trained again (default: none)"
    add_option(parser, "--method", "NAME", text, nargs="+", default=[])


def import_from_lab(module: str, name: str) -> Any:
    """Import and return a function of ``fedlas.lab``, which only run folders need."""
    return getattr(import_module(f"fedlas.lab.{module}"), name)
