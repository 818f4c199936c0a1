"""Options shared by the subcommands that train, and the recipe built from them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fedlas.cli.arguments import add_option
from fedlas.lab.train.tracking import TRACKERS

if TYPE_CHECKING:
    from fedlas.lab.recipes.recipe import Recipe


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe, its overrides, its precision and its data folder."""
    add_option(
        parser,
        "recipe",
        "RECIPE",
        "recipe of the package (see 'fedlas list recipes'), or a .yaml file",
    )
    add_set(parser, "KEY=VALUE", "override a key of the recipe, e.g. optimizer.lr=0.05")
    add_option(
        parser,
        "--precision",
        "NAME",
        "auto, fp32 or bf16, as --set train.precision=... (default: the recipe's)",
    )
    add_option(
        parser,
        "--data",
        "FOLDER",
        "folder of the data, as --set data.root=... (default: $FEDLAS_DATA, then usual places)",
    )


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add ``--track``."""
    add_option(
        parser,
        "--track",
        "NAME",
        f"also show the runs in these trackers: {', '.join(TRACKERS)}; --set trackers.NAME.KEY=VALUE sets an "
        "option (default: the recipe's)",
        nargs="+",
        default=[],
    )


def recipe_overrides(args: argparse.Namespace) -> list[str]:
    """Return the recipe overrides in the arguments as ``KEY=VALUE`` strings, except the data folder."""
    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return [*args.set, *short]


def load_chosen_recipe(args: argparse.Namespace) -> Recipe:
    """Load the recipe that the arguments name, with overrides, data folder and trackers."""
    from fedlas.lab.recipes.recipe import load_recipe

    return (
        load_recipe(args.recipe, recipe_overrides(args))
        .with_data_root(args.data)
        .with_trackers(args.track)
    )


def add_set(parser: argparse.ArgumentParser, metavar: str, description: str) -> None:
    """Add ``--set``, which can be repeated."""
    add_option(
        parser,
        "--set",
        metavar,
        f"{description}; may be repeated (default: none)",
        action="append",
        default=[],
    )
