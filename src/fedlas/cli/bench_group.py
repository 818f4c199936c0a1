"""Options shared by the subcommands that train or read runs, and the recipe that they choose."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fedlas.cli.arguments import option
from fedlas.lab.train.tracking import TRACKERS

if TYPE_CHECKING:
    from fedlas.lab.recipes.recipe import Recipe


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and its overrides."""
    option(
        parser,
        "recipe",
        "RECIPE",
        "recipe of the package (see 'fedlas list recipes'), or a .yaml file",
    )
    add_set(parser, "KEY=VALUE", "override a key of the recipe, e.g. optimizer.lr=0.05")
    option(
        parser,
        "--precision",
        "NAME",
        "auto, fp32 or bf16, as --set train.precision=... (default: the recipe's)",
    )
    option(
        parser,
        "--data",
        "FOLDER",
        "folder of the data, as --set data.root=... (default: $FEDLAS_DATA, then usual places)",
    )


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add ``--track``."""
    option(
        parser,
        "--track",
        "NAME",
        f"also show the runs in these trackers: {', '.join(TRACKERS)}; --set trackers.NAME.KEY=VALUE sets an "
        "option (default: the recipe's)",
        nargs="+",
        default=[],
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """Return the changes of a recipe that parsed arguments ask for, as ``--set`` takes them, without its data."""
    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return [*args.set, *short]


def recipe_of(args: argparse.Namespace) -> Recipe:
    """Return the recipe that parsed arguments choose, with their overrides, data and trackers."""
    from fedlas.lab.recipes.recipe import load_recipe

    return (
        load_recipe(args.recipe, overrides_of(args))
        .with_data_root(args.data)
        .with_trackers(args.track)
    )


def add_set(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Add ``--set``, which may be repeated."""
    option(
        parser,
        "--set",
        metavar,
        f"{what}; may be repeated (default: none)",
        action="append",
        default=[],
    )
