"""Options that several subcommands have, and what they mean together."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from fedlas._core.check import InputError
from fedlas.lab.recipes.recipe import Recipe, load_recipe
from fedlas.predictions.class_labels import OWNER
from fedlas.predictions.columns import Columns, split_names
from fedlas.stats.estimates import REPLICATES

AddSubcommand = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
"""``add(name, run, summary, positional)``: the parser of a new subcommand."""


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, what overrides it, and the trackers that its runs are shown to."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="recipe of the package (see 'fedlas list recipes'), or a .yaml file"
    )
    add_set(parser, "KEY=VALUE", "override a key of the recipe, e.g. optimizer.lr=0.05")
    parser.add_argument(
        "--precision", help="auto, fp32 or bf16; short for --set train.precision=... (default: the recipe's)"
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the data is; short for --set data.root=... (default: $FEDLAS_DATA, then the usual places)",
    )


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add ``--track``."""
    parser.add_argument(
        "--track",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="show the runs to these trackers too, see 'fedlas list trackers'; --set trackers.NAME.KEY=VALUE sets one "
        "up (default: the recipe's)",
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """What parsed arguments change in the recipe, as ``--set`` would; its data excepted."""
    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return [*args.set, *short]


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that parsed arguments choose, with their overrides, data and trackers."""
    return load_recipe(args.recipe, overrides_of(args)).with_data_root(args.data).with_trackers(args.track)


def add_set(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Add ``--set``, which may be repeated."""
    parser.add_argument(
        "--set", action="append", default=[], metavar=metavar, help=f"{what}; may be repeated (default: none)"
    )


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


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add ``--logits``, ``--probs``, ``--target`` and ``--classes``."""
    parser.add_argument(
        "--logits",
        metavar="COLUMNS",
        help="columns of logits in the order of the classes, a,b,c or 'logit_*'; one column: of two classes' second, "
        "or of lists (default: an .npz's array logits)",
    )
    parser.add_argument(
        "--probs", metavar="COLUMNS", help="columns of probabilities instead, named in the same ways (default: none)"
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="column of the labels: class names, or numbers from 0 (default: none)"
    )
    parser.add_argument(
        "--classes", metavar="A,B,C", help="class names in the order of the columns (default: what * stands for)"
    )


def columns_of(args: argparse.Namespace) -> Columns | None:
    """What these options say; None if none was given, as for an ``.npz`` with ``logits`` and ``target``.

    Raises:
        InputError: If they say half of it, or contradict each other.
    """
    if args.logits is None and args.probs is None:
        if args.target is None and args.classes is None:
            return None
        got = "--target" if args.target is not None else "--classes"
        raise InputError(OWNER, f"{got} goes with --logits or --probs", "neither", "Say which columns hold the scores.")
    return Columns(args.logits, args.probs, args.target, split_names(args.classes))


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a calibration card."""
    parser.add_argument(
        "--calibrate",
        default="temperature",
        metavar="NAME",
        help="temperature, vector or none, fitted on the run's validation part (default: %(default)s)",
    )
    add_replicates(parser)
    add_data(parser, "where the run's data is")
