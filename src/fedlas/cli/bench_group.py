"""Options shared by the subcommands that train or read runs, and the recipe that they choose."""

from __future__ import annotations

import argparse

from fedlas.lab.recipes.recipe import Recipe, load_recipe
from fedlas.lab.train.tracking import TRACKERS


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and its overrides."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="recipe of the package (see 'fedlas list recipes'), or a .yaml file"
    )
    add_set(parser, "KEY=VALUE", "override a key of the recipe, e.g. optimizer.lr=0.05")
    parser.add_argument(
        "--precision",
        metavar="NAME",
        help="auto, fp32 or bf16; short for --set train.precision=... (default: the recipe's)",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="folder of the data; short for --set data.root=... (default: $FEDLAS_DATA, then the usual places)",
    )


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add ``--track``."""
    parser.add_argument(
        "--track",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help=f"also show the runs in these trackers: {', '.join(TRACKERS)}; --set trackers.NAME.KEY=VALUE sets an "
        "option (default: the recipe's)",
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Return the changes of a recipe that parsed arguments ask for, as ``--set`` takes them, without its data."""
    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return [*args.set, *short]


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Return the recipe that parsed arguments choose, with their overrides, data and trackers."""
    return load_recipe(args.recipe, overrides_of(args)).with_data_root(args.data).with_trackers(args.track)


def add_set(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Add ``--set``, which may be repeated."""
    parser.add_argument(
        "--set", action="append", default=[], metavar=metavar, help=f"{what}; may be repeated (default: none)"
    )
