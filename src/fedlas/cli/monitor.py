"""``fedlas monitor``: whether calibration has drifted since the card was written."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedlas._core.files import path_argument
from fedlas.cli.arguments import AddSubcommand, add_columns, columns_of
from fedlas.deploy.monitor import monitor


def add_monitor(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(
        "monitor",
        _monitor,
        "Say whether calibration has drifted since the card; exit status 3 on an alarm.",
        "CARD PREDS [PREDS ...]",
    )
    parser.add_argument("card", type=Path, metavar="CARD", help="card.json, or the run folder that holds it")
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="PREDS", help="live predictions in the order of time, with labels or not"
    )
    add_columns(parser)
    parser.add_argument(
        "--false-alarm",
        type=float,
        default=0.01,
        metavar="X",
        help="largest probability of an alarm while nothing drifts, over the whole stream (default: %(default)s)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="apply the card's calibration first (default: PREDS are calibrated)"
    )
    parser.add_argument(
        "--state",
        type=path_argument,
        metavar="FILE",
        help="resume from here, and keep it (default: every call starts afresh)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON (default: sentences)")


def _monitor(args: argparse.Namespace) -> int:
    return monitor(
        args.card,
        args.files,
        false_alarm=args.false_alarm,
        columns=columns_of(args),
        raw=args.raw,
        state=args.state,
        as_json=args.json,
    )
