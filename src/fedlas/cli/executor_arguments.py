"""Arguments of the command line that choose an executor, and the executor they choose."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError

if TYPE_CHECKING:
    from fedlas.lab.bench.executors import Executor

_SHORT = ("workers", "gpus_per_run", "cpus_per_run")


def add_executor_arguments(parser: Any) -> None:
    """Add them to a verb that does several runs."""
    parser.add_argument(
        "--executor",
        default="local",
        metavar="NAME",
        help="where runs happen: local, ray, slurm (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="runs at a time (default: 1 if local, else as there is room)"
    )
    parser.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="GPUs of a run; 0.5 lets two share one (default: 1 if any)"
    )
    parser.add_argument("--cpus-per-run", type=int, metavar="N", help="threads of a run (default: the executor's)")
    parser.add_argument(
        "--executor-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set another option, e.g. partition=gpu; may be repeated; see 'fedlas list executors' (default: none)",
    )


def executor_of(args: argparse.Namespace) -> Executor:
    """The executor that parsed arguments choose.

    Raises:
        InputError: For an unknown one, an option that it does not have, or a value that it does not take.
    """
    from fedlas.lab.bench.executors import EXECUTORS
    from fedlas.lab.recipes.recipe import parse_options

    options = {name: getattr(args, name) for name in _SHORT if getattr(args, name) is not None}
    for key, value in parse_options(args.executor_set).items():
        if key in options:
            flag = f"--{key.replace('_', '-')}"
            raise InputError("--executor-set", f"{key} must be given once", f"{key} and {flag}", f"Leave {flag} out.")
        options[key] = value
    executor: Executor = EXECUTORS.build(args.executor, options)
    return executor
