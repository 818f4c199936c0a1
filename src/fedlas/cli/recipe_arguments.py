"""Arguments that choose a recipe and change it, for every subcommand that trains."""

from __future__ import annotations

import argparse
from typing import Any


def add_recipe_arguments(parser: Any) -> None:
    """Add them to a verb."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="recipe of the package (see 'fedlas list recipes'), or a .yaml file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe, e.g. optimizer.lr=0.05; may be repeated (default: none)",
    )
    parser.add_argument("--precision", help="fp32 or bf16; short for --set train.precision=... (default: the recipe's)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the data is; short for --set data.root=... (default: $FEDLAS_DATA, then the usual places)",
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """What parsed arguments change in the recipe, as ``--set`` would; its data excepted."""
    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return [*args.set, *short]
