"""Options that several subcommands share, and the values that they give together."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas._core.terminal import say_commands
from fedlas.predictions.columns import CONFIDENCE_FORMS, Columns
from fedlas.present.page import check_page
from fedlas.present.stages import DEFAULT
from fedlas.stats.estimates import CONFIDENCE_LEVEL, REPLICATES

AddSubcommand = Callable[[Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""``add(run, positional)``: the parser of a subcommand, whose name and summary are in :mod:`fedlas.cli.main`."""


def option(
    parser: argparse.ArgumentParser, name: str, metavar: str | None, text: str, **settings: Any
) -> None:
    """Add an option or a positional argument, with its placeholder and its line of ``--help``.

    An option of several values that is given again adds to its first values, and both replace its default.
    """
    if settings.get("nargs") == "+" and name.startswith("-"):
        settings = {"action": Several} | settings
    parser.add_argument(name, metavar=metavar, help=text, **settings)


class Several(argparse.Action):
    """Takes one value or more each time that the option is given."""

    def __call__(  # noqa: D102
        self, _parser: object, namespace: argparse.Namespace, values: Any, _option: object = None
    ) -> None:
        before = getattr(namespace, self.dest)
        earlier = [] if before is self.default else before
        setattr(namespace, self.dest, [*earlier, *self.separate(values)])

    def separate(self, values: Any) -> list[Any]:
        """Return the values of one use."""
        return list(values)


def flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=text)


def add_path(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """Add a path to write to, or a folder; ``""`` is refused, to which an unset shell variable expands."""
    option(parser, name, metavar, text, type=path_argument)


def add_page(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add the option that writes a page, its title, and the period of the samples."""
    about = f"{text}: .html, or .pdf where there is a Chromium (default: none)"
    add_path(parser, name, "FILE", about)
    title = f"title of {name} (default: the name of the file)"
    option(parser, "--title", "TEXT", title, default="")
    period = "when the samples were collected, for the page (default: not on it)"
    option(parser, "--period", "TEXT", period, default="")


def check_page_options(args: argparse.Namespace, name: str, *, period_alone: bool = False) -> None:
    """Refuse a page that cannot be written, and a title or period without a page, unless a period may be alone."""
    place = getattr(args, name.removeprefix("--"))
    if place is not None:
        check_page(name, place)
    elif args.title or (args.period and not period_alone):
        raise InputError(
            "--title and --period are for the page", f"no {name}", "Add it, or leave them out."
        )


def add_data_folder(parser: argparse.ArgumentParser, what: str, *, flag: str = "--data") -> None:
    """Add the folder of the data of finished runs; ``what`` says whose and for what."""
    option(parser, flag, "FOLDER", f"{what} (default: its place in training, then $FEDLAS_DATA)")


NUM_BINS = 15


def add_replicates(parser: argparse.ArgumentParser, *, default: int = REPLICATES) -> None:
    """Add ``--replicates``."""
    option(
        parser,
        "--replicates",
        "N",
        "replicates of intervals and noise floors; 0: none (default: %(default)s)",
        type=int,
        default=default,
    )


def add_confidence_level(parser: argparse.ArgumentParser) -> None:
    """Add ``--confidence-level``."""
    option(
        parser,
        "--confidence-level",
        "LEVEL",
        "level of intervals, e.g. 0.9 (default: %(default)s)",
        type=float,
        default=CONFIDENCE_LEVEL,
    )


_RULES = {
    "cost_ratio": ("RATIO", "act where a missed event is as bad as RATIO false alarms, e.g. 9"),
    "budget": ("N", "act on at most N of as many samples as are tested"),
    "recall": ("SHARE", "act so that this share of the events is found, e.g. 0.8"),
    "precision": ("SHARE", "act so that this share of the alarms are events, e.g. 0.5"),
}
"""By the argument in Python: placeholder and line of ``--help``."""


def add_rules(parser: argparse.ArgumentParser, default: str = "no decision") -> None:
    """Add the options that choose from which probability of an event to act, on held-out predictions."""
    for name, (metavar, text) in _RULES.items():
        about = f"two classes: {text} (default: {default})"
        option(parser, f"--{name.replace('_', '-')}", metavar, about, type=float)


def rules_given(args: argparse.Namespace) -> dict[str, Any]:
    """Return those that were given, by the name of their argument in Python."""
    return {name: value for name in _RULES if (value := getattr(args, name)) is not None}


def add_num_bins(parser: argparse.ArgumentParser) -> None:
    """Add ``--num-bins``."""
    option(
        parser,
        "--num-bins",
        "N",
        "bins of calibration errors (default: %(default)s)",
        type=int,
        default=NUM_BINS,
    )


_COLUMNS = (
    ("--logits", "COLUMNS", "columns of logits in the order of the classes: a,b,c or 'logit_*', or one --logits for "
     "each; one column holds the second of two classes, or lists (default: array logits of an .npz)"),
    ("--probs", "COLUMNS", "columns of probabilities, named like --logits (default: none)"),
    ("--target", "COLUMN", "column of the labels: class names, or numbers from 0 (default: none)"),
    ("--classes", "A,B,C", "class names in the order of the columns (default: the part of each name that * matches)"),
    ("--event", "CLASS", "class, of two, that measures, gates and pages are about (default: the affirmative one, as "
     "yes or 1, else the last)"),
    ("--confidence", "COLUMN", "column of the probability of the predicted class, where the others are unknown "
     "(default: array confidence of an .npz)"),
    ("--correct", "COLUMN", "with --confidence: column of 0 and 1, true and false, yes and no, or correct and "
     "incorrect (default: none)"),
    ("--predicted", "COLUMN", "with --confidence and --target: column of the predicted class, written like the "
     "labels (default: none)"),
)  # fmt: skip
_SAMPLES = (
    ("--label-probs", "COLUMNS", "columns of the annotators' votes on each sample as shares, named like --logits "
     "(default: none)"),
    ("--weights", "COLUMN", "column of the weight of each sample (default: all weights are 1)"),
    ("--groups", "COLUMN", "column of the group of each sample; each group is measured (default: none)"),
    ("--covariates", "COLUMNS", "columns that say more about a sample: numbers, or text of at most 256 values; named "
     "like --logits (default: none)"),
    ("--clusters", "COLUMN", "column of what samples belong to, such as a patient: they are resampled together "
     "(default: all samples are independent)"),
)  # fmt: skip
_FLAGS = {
    "--normalize": "divide each row of probabilities by its sum (default: refuse rows whose sum is not 1)",
    "--percent": "divide probabilities and confidences by 100; 56%% needs no option (default: take them as fractions)",
    "--drop-missing": "leave out rows that lack a value other than the group (default: refuse them)",
}


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the columns of a table and say how to read it."""
    _add_names(parser, _COLUMNS)
    option(
        parser,
        "--confidence-as",
        None,
        "form: number; words; sum, mean or min of lists of token log-probabilities; p-true, those of True and False "
        "(default: %(default)s)",
        choices=CONFIDENCE_FORMS,
        default="number",
    )
    option(
        parser,
        "--format",
        None,
        "lm-eval: samples of lm-evaluation-harness (default: detected)",
        choices=("table", "lm-eval"),
    )
    for name, text in _FLAGS.items():
        flag(parser, name, text)
    option(
        parser,
        "--sep",
        "CHAR",
        "separator of a CSV file (default: , ; tab or |, as detected)",
        dest="separator",
    )


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Add ``--label-probs``, ``--weights`` and ``--groups``."""
    _add_names(parser, _SAMPLES)


def add_refused(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights`` and ``--clusters`` without a line of ``--help``: what reads them refuses them with a reason."""
    for name in ("--weights", "--clusters"):
        option(parser, name, "COLUMN", argparse.SUPPRESS)


def _add_names(parser: argparse.ArgumentParser, options: Sequence[tuple[str, str, str]]) -> None:
    """Add options that name columns; one that takes several takes a list with commas, or one name each time."""
    for name, metavar, text in options:
        option(
            parser,
            name,
            metavar,
            text,
            action="store" if metavar in ("COLUMN", "CLASS") else "append",
        )


def columns_of(args: argparse.Namespace) -> Columns | None:
    """Return the columns that these options name; None if there are none, as for an ``.npz`` with known arrays."""
    values: dict[str, Any] = {each.name: getattr(args, each.name, None) for each in fields(Columns)}
    # An option that is given once holds a list; given again, each time one name.
    values = {
        name: v[0] if isinstance(v, list) and len(v) == 1 else v
        for name, v in values.items()
        if v not in (None, False, "number")
    }
    return Columns(**values) if values else None


def column_options(columns: Columns | None) -> str:
    """Return the options that name these columns, as a shell takes them: " --probs 'p_*' --target y --percent"."""
    parts: list[str] = []
    for each in fields(Columns):
        value: Any = getattr(columns, each.name, each.default)
        if not value or value == each.default:
            continue
        option = "--sep" if each.name == "separator" else f"--{each.name.replace('_', '-')}"
        if each.name == "classes":
            value = ",".join(value)
        names = [value] if isinstance(value, str) else value
        parts += [option] if value is True else [f"{option} {shlex.quote(name)}" for name in names]
    return "".join(f" {part}" for part in parts)


def add_method(parser: argparse.ArgumentParser, old: str, text: str, **settings: Any) -> None:
    """Add ``--method``, with its old name for one release."""
    option(parser, "--method", "NAME", text, **settings)
    parser.add_argument(
        old,
        dest="method",
        help=argparse.SUPPRESS,
        **{"default": argparse.SUPPRESS} | settings | {"action": OldName},
    )


class OldName(Several):
    """Takes the values of an option whose name has changed."""

    def __call__(  # noqa: D102
        self, _parser: object, namespace: argparse.Namespace, values: Any, option: object = None
    ) -> None:
        text = f"{option} is now --{self.dest}; the old name goes with the next release."
        say_commands(f"fedlas: warning: {text}", stderr=True)
        if isinstance(values, list):
            super().__call__(_parser, namespace, values)
        else:
            setattr(namespace, self.dest, values)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a calibration card."""
    add_method(
        parser,
        "--calibrate",
        f"calibrator fitted on validation, or none; see 'fedlas list calibrators' (default: {DEFAULT})",
    )
    add_replicates(parser)
    add_data_folder(parser, "folder of the run's data")


def laboratory(module: str, name: str) -> Any:
    """Return a function of ``fedlas.lab``, which subcommands of files import for the folder of a run alone."""
    return getattr(import_module(f"fedlas.lab.{module}"), name)
