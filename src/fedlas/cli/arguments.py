"""Options that several subcommands have, and what they mean together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any

from fedlas.predictions.columns import CONFIDENCE_FORMS, Columns
from fedlas.stats.estimates import REPLICATES

AddSubcommand = Callable[[Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""``add(run, positional)``: the parser of a subcommand, whose name and summary are in :mod:`fedlas.cli.main`."""


def add_data(parser: argparse.ArgumentParser, what: str, *, flag: str = "--data") -> None:
    """Add the folder of the data of finished runs; ``what`` says whose and for what."""
    parser.add_argument(flag, metavar="FOLDER", help=f"{what} (default: where it was in training, then $FEDLAS_DATA)")


def add_replicates(parser: argparse.ArgumentParser, *, default: int = REPLICATES) -> None:
    """Add ``--replicates``."""
    parser.add_argument(
        "--replicates",
        type=int,
        default=default,
        metavar="N",
        help="replicates of intervals and noise floors; 0 computes none (default: %(default)s)",
    )


def add_details(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--details``."""
    parser.add_argument("--details", action="store_true", help=what)


def add_columns(parser: argparse.ArgumentParser, *, top_label: bool = False) -> None:
    """Add the options that name the columns of a table and say how to read it.

    Args:
        parser: Parser of the subcommand.
        top_label: Whether confidences alone are enough: adds ``--confidence``, ``--correct`` and ``--predicted``.
    """
    add_names(
        parser,
        "--logits",
        "columns of logits in the order of the classes: a,b,c or 'logit_*', or the option once a name; one column: of "
        "two classes' second, or of lists (default: an .npz's array logits)",
    )
    add_names(parser, "--probs", "columns of probabilities instead, named in the same ways (default: none)")
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of the labels: class names, or numbers from 0 (default: none)"
    )
    add_names(
        parser, "--classes", "class names in the order of the columns (default: what * stands for)", metavar="A,B,C"
    )
    if top_label:
        parser.add_argument(
            "--confidence",
            metavar="COLUMN",
            help="column of the predicted class's probability, where the others are unknown (default: an .npz's array "
            "confidence)",
        )
        parser.add_argument(
            "--correct",
            metavar="COLUMN",
            help="with --confidence: 0 and 1, true and false, yes and no, or correct and incorrect (default: none)",
        )
        parser.add_argument(
            "--predicted",
            metavar="COLUMN",
            help="with --confidence and --target: the predicted class, as the labels are written (default: none)",
        )
        parser.add_argument(
            "--confidence-as",
            choices=CONFIDENCE_FORMS,
            default="number",
            help="words: text that states it; sum, mean, min: lists of token log-probabilities; p-true: those of True "
            "and False (default: %(default)s)",
        )
        parser.add_argument(
            "--format",
            choices=("table", "lm-eval"),
            help="lm-eval: samples of lm-evaluation-harness (default: noticed)",
        )
    parser.add_argument(
        "--normalize",
        action="store_true",
        help="divide each row of probabilities by its sum (default: none is far off)",
    )
    parser.add_argument(
        "--percent",
        action="store_true",
        help="divide probabilities and confidences by 100; 56%% needs no option (default: they are fractions)",
    )
    parser.add_argument(
        "--drop-missing",
        action="store_true",
        help="leave out rows that lack a value, not those that lack a group alone (default: they are refused)",
    )
    parser.add_argument(
        "--sep", dest="separator", metavar="CHAR", help="separator of a CSV file (default: , ; tab or | as noticed)"
    )


def add_names(parser: argparse.ArgumentParser, flag: str, what: str, *, metavar: str = "COLUMNS") -> None:
    """Add an option that takes names: a list with commas, or one name each time it is given."""
    parser.add_argument(flag, action="append", metavar=metavar, help=what)


def add_samples(parser: argparse.ArgumentParser) -> None:
    """Add ``--label-probs``, ``--weights`` and ``--groups``."""
    what = "columns of the distribution of each label, as annotators voted, named like --probs (default: none)"
    add_names(parser, "--label-probs", what)
    parser.add_argument(
        "--weights", metavar="COLUMN", help="column of the weight of each sample (default: all count once)"
    )
    parser.add_argument(
        "--groups", metavar="COLUMN", help="column of the group of each sample: measure each group (default: none)"
    )


def columns_of(args: argparse.Namespace) -> Columns | None:
    """Return the columns that these options name; None if there are none, as for an ``.npz`` with known arrays.

    Raises:
        InputError: If they contradict each other.
    """
    values: dict[str, Any] = {each.name: getattr(args, each.name, each.default) for each in fields(Columns)}
    # An option that is given once holds a list; given again, each time one name.
    values = {name: v[0] if isinstance(v, list) and len(v) == 1 else v for name, v in values.items()}
    columns = Columns(**values)
    return None if columns == Columns() else columns


def add_card_options(parser: argparse.ArgumentParser, *, default: str) -> None:
    """Add the options of a calibration card."""
    parser.add_argument(
        "--calibrate",
        metavar="NAME",
        help=f"calibrator, fitted on the validation part, or none; see 'fedlas list calibrators' (default: {default})",
    )
    add_replicates(parser)
    add_data(parser, "where the run's data is")


def laboratory(module: str, name: str) -> Any:
    """Return a function of the laboratory, which subcommands of files import for the folder of a run alone.

    Args:
        module: Module of ``fedlas.lab``, such as ``"studies.run_parts"``.
        name: Name of the function.
    """
    return getattr(import_module(f"fedlas.lab.{module}"), name)
