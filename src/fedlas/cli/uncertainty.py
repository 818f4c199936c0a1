"""``fedlas runs uncertainty``: builds an ensemble, MC dropout, Laplace or another method from finished runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import AddSubcommand, add_data_folder, add_option, add_path
from fedlas.cli.recipe_options import add_set

if TYPE_CHECKING:
    from fedlas.lab.runs.folder import RunFolder


def add_uncertainty(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs uncertainty``."""
    parser = add(_run, "METHOD RUN [RUN ...]")
    add_option(parser, "method", "METHOD", "method, see 'fedlas list uncertainty'")
    add_path(parser, "runs", "RUN", "folders of finished runs", nargs="+")
    add_path(
        parser,
        "--out",
        "FOLDER",
        "folder of the result (default: METHOD-LOSS-sSEED beside the first run)",
    )
    add_set(parser, "KEY=VALUE", "set an option of the method, e.g. samples=50")
    add_option(parser, "--name", None, "name of the result in reports (default: METHOD(LOSS))")
    add_data_folder(parser, "folder of the runs' data")


def _run(args: argparse.Namespace) -> int:
    from fedlas.lab.recipes.recipe import parse_options
    from fedlas.lab.studies.uncertainty import UNCERTAINTY, apply_method, plan_method
    from fedlas.present.metric_tables import short_table
    from fedlas.present.table import print_blocks

    derived = plan_method(
        args.method,
        args.runs,
        out=args.out,
        options=parse_options(args.set),
        name=args.name,
        data=args.data,
    )
    metrics = apply_method(derived)
    before = "mean of the runs" if len(derived.members) > 1 else derived.members[0].name
    columns = {
        before: _mean_over_runs(derived.members, metrics["test"]),
        derived.loss: metrics["test"],
    }
    if metrics["test_calibrated"]:
        columns[f"after temperature {metrics['temperature']:.3f}"] = metrics["test_calibrated"]
    title = f"{UNCERTAINTY[args.method].metadata['title']} on {metrics['recipe']}, test set"
    print_blocks([short_table(columns, title=title)])
    print_lines(*metrics["notes"], f"folder: {derived.folder}")
    return 0


def _mean_over_runs(members: Sequence[RunFolder], metrics: Iterable[str]) -> dict[str, float]:
    """Return the mean over runs of each test metric that all runs have."""
    tables = [member.metrics["test"] for member in members]
    shared = [
        key for key in metrics if all(isinstance(table.get(key), int | float) for table in tables)
    ]
    return {key: sum(table[key] for table in tables) / len(tables) for key in shared}
